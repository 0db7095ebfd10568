"""What a test sees of the inside of a gunicorn worker, and where it holds its views.

It is gunicorn's configuration too (``-c python:tests.doors.inside``): its hooks write lines to the log.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from gunicorn.http.wsgi import FileWrapper

kept: list[object] = []  # what something in the process does not let go of
file_wrappers: list[ReadFile] = []
_worker: Any = None
_HELD_FOR_S = 30.0


def post_worker_init(worker: Any) -> None:
    global _worker
    _worker = worker


def pre_request(worker: Any, request: Any) -> None:
    worker.log.info("HOOK before %s?%s", request.path, request.query)


def post_request(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
    worker.log.info("HOOK after %s?%s %s", request.path, request.query, response.status)


def look() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "connections": _worker.nr_conns,
        "threads": threading.active_count(),
        "files_read": sum(file.was_read for file in file_wrappers),
    }


class ReadFile(FileWrapper):
    """A ``wsgi.file_wrapper`` that knows whether it was read, or sent by the kernel."""

    was_read = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        file_wrappers.append(self)

    def __next__(self) -> bytes:
        self.was_read = True
        return super().__next__()


def reach(place: str) -> None:
    """Write a file named so, and stay until it is gone."""
    mark = Path(place)
    mark.touch()
    deadline = time.monotonic() + _HELD_FOR_S
    while mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
