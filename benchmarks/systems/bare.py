"""The limit: a loop of ``send()`` in C, which keeps nothing and knows nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.systems.install import compiled
from benchmarks.systems.system import Running, System, Versions, serve

SOURCE = Path(__file__).parent.parent / "load" / "bare.c"


def program() -> Path:
    return compiled("bare", [SOURCE])


def _install() -> Versions:
    program()
    return {}


def _start(port: int, folder: Path) -> AbstractContextManager[Running]:
    return serve([program(), str(port)], folder, port=port)


SYSTEM = System(
    "bare-c",
    "a loop of send() in C: no log, no ids, no channels",
    rate=250_000,
    install=_install,
    start=_start,
)
