"""sse-starlette on uvicorn: a queue for each client, which its documentation shows for broadcasting."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.systems.install import python_packages
from benchmarks.systems.system import Running, System, Versions, serve

APP = Path(__file__).parent / "apps" / "sse_starlette_app.py"
REQUIREMENTS = (
    "sse-starlette==3.7.0",
    "starlette==1.10.0",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
)


def _install() -> Versions:
    return python_packages("sse-starlette", *REQUIREMENTS)[1]


def _start(port: int, folder: Path) -> AbstractContextManager[Running]:
    python, _ = python_packages("sse-starlette", *REQUIREMENTS)
    command = [
        str(python),
        "-m",
        "uvicorn",
        "--app-dir",
        str(APP.parent),
        f"{APP.stem}:app",
        "--port",
        str(port),
    ]
    options = ["--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"]
    return serve([*command, *options], folder, port=port)


SYSTEM = System(
    "sse-starlette",
    "on uvicorn with uvloop and httptools, a queue for each client: no log",
    rate=15_000,
    install=_install,
    start=_start,
)
