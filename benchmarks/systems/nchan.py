"""Nchan: publish and subscribe as a module of nginx, in C. Debian's packages, one worker, memory only."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.systems.install import debian_packages
from benchmarks.systems.system import Running, System, Versions, serve

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = Path(__file__).with_suffix(".conf")


def _install() -> Versions:
    return debian_packages(["nginx", MODULE], "nginx", "libnginx-mod-nchan")


@contextmanager
def _start(port: int, folder: Path) -> Iterator[Running]:
    text = string.Template(CONFIGURATION.read_text())
    own = folder / "nginx.conf"
    own.write_text(text.safe_substitute(folder=folder, port=port, module=MODULE))
    with serve(["nginx", "-c", own, "-p", folder, "-e", "stderr"], folder, port=port) as running:
        yield running


SYSTEM = System(
    "nchan",
    "nginx with Debian's Nchan module, one worker: its buffer in memory, no durable log",
    rate=100_000,
    install=_install,
    start=_start,
)
