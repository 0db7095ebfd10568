"""better-sse: Node.js's own HTTP server, and the ``broadcast`` of a channel. No history, as it comes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.systems.install import npm_packages
from benchmarks.systems.system import Running, System, Versions, serve

APP = Path(__file__).with_suffix(".js")
PACKAGE = "better-sse@0.16.1"


def _install() -> Versions:
    return npm_packages("better-sse", PACKAGE)[1]


def _start(port: int, folder: Path) -> AbstractContextManager[Running]:
    modules, _ = npm_packages("better-sse", PACKAGE)
    return serve(["node", APP, modules, str(port)], folder, port=port, env={"NODE_ENV": "production"})


SYSTEM = System(
    "better-sse",
    "Node.js's HTTP server, Channel.broadcast: no history",
    rate=70_000,
    install=_install,
    start=_start,
)
