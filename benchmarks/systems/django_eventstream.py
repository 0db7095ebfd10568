"""django-eventstream on uvicorn: as its README sets it up, and with its storage in SQLite.

Without the storage it keeps ten events for a client that is behind and drops what comes then; with it, such
a client reads from the database.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.systems.install import python_packages
from benchmarks.systems.system import Running, System, Versions, serve
from tests.support.processes import environment

APP = Path(__file__).parent / "apps" / "django_eventstream_app.py"
REQUIREMENTS = (
    "django-eventstream==5.3.4",
    "Django==5.2.19",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
)


def _install() -> Versions:
    return python_packages("django-eventstream", *REQUIREMENTS)[1]


@contextmanager
def _start(stored: bool, port: int, folder: Path) -> Iterator[Running]:
    python, _ = python_packages("django-eventstream", *REQUIREMENTS)
    env = {"DATABASE": str(folder / "events.sqlite3")} if stored else {}
    if stored:
        migrate = [str(python), str(APP), "migrate"]
        subprocess.run(migrate, env=environment(env), check=True, capture_output=True, timeout=60)
    command = [str(python), "-m", "uvicorn", "--app-dir", str(APP.parent), f"{APP.stem}:application"]
    options = [
        "--loop=uvloop",
        "--http=httptools",
        "--no-access-log",
        "--log-level=warning",
        "--lifespan=off",
    ]
    with serve([*command, "--port", str(port), *options], folder, port=port, env=env) as running:
        yield running


SYSTEM = System(
    "django-eventstream",
    "on uvicorn with uvloop, without its storage",
    rate=8_000,
    install=_install,
    start=partial(_start, False),
)
STORED = System(
    "django-eventstream-stored",
    "the same, with its storage in SQLite: replay",
    rate=8_000,
    install=_install,
    start=partial(_start, True),
)
