"""Penstock, as this clone has it: under uvicorn and under gunicorn, over a log in SQLite."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.systems.install import NotInstalled
from benchmarks.systems.system import Running, System, Versions, serve

UVICORN_COMMAND = ("uvicorn", "benchmarks.apps.asgi_app:app", "--http=penstock.doors.uvicorn:PushProtocol")
UVICORN_OPTIONS = ("--no-access-log", "--log-level=warning")
GUNICORN_COMMAND = ("gunicorn", "--worker-class=penstock.doors.gunicorn.PushWorker", "--threads=4")
GUNICORN_OPTIONS = (
    "--no-control-socket",
    "--keep-alive=3600",
    "--backlog=4096",
    "benchmarks.apps.flask_app:app",
)


def _install(*packages: str) -> Versions:
    try:
        return {name: importlib.metadata.version(name) for name in ("penstock", *packages)}
    except importlib.metadata.PackageNotFoundError as error:
        raise NotInstalled(f"{error.name} is not in this environment") from error


@contextmanager
def _start(command: tuple[str, ...], port: int, folder: Path) -> Iterator[Running]:
    env = {"PENSTOCK_URL": f"sqlite:///{folder}/log.db"}
    words = [word.format(port=port) for word in command]
    with serve([sys.executable, "-m", *words], folder, port=port, env=env) as running:
        yield running


UVICORN = System(
    "penstock-uvicorn",
    "uvicorn with PushProtocol and uvloop; every event is in the SQLite log before its POST is answered",
    rate=400_000,
    install=partial(_install, "uvicorn", "uvloop", "httptools"),
    start=partial(_start, (*UVICORN_COMMAND, "--loop=uvloop", "--port={port}", *UVICORN_OPTIONS)),
)
UVICORN_ASYNCIO = System(
    "penstock-uvicorn-asyncio",
    "the same on asyncio's own loop",
    rate=400_000,
    install=partial(_install, "uvicorn", "httptools"),
    start=partial(_start, (*UVICORN_COMMAND, "--loop=asyncio", "--port={port}", *UVICORN_OPTIONS)),
)
GUNICORN = System(
    "penstock-gunicorn",
    "Flask on gunicorn with PushWorker and 4 threads; the same log",
    rate=400_000,
    install=partial(_install, "gunicorn", "Flask"),
    start=partial(_start, (*GUNICORN_COMMAND, "--bind=127.0.0.1:{port}", *GUNICORN_OPTIONS)),
)
