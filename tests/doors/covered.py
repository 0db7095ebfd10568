"""gunicorn's configuration as some agents make it: they put something between gunicorn and the app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def post_worker_init(worker: Any) -> None:
    inner = worker.wsgi

    def watched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: Iterable[bytes] = inner(environ, lambda *head: start_response(*head))
        return body

    worker.wsgi = watched
