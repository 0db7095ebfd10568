"""A gunicorn worker whose streams hold no thread: ``gunicorn -k penstock.doors.gunicorn.PushWorker``.

It is the gthread worker. gunicorn parses the request, runs the app in one of its threads, and sends the
head of the response. Then the socket leaves the worker for the engine, and the thread is free again. A
duplicate would not do: gunicorn may shut the connection down when it closes its own, and that ends every
duplicate too. So the descriptor is taken out of the socket object, and gunicorn is left with a stand-in to
close, whatever it does for that and however it counts.

What is used of gunicorn's inside stands here and in ``doors/gunicorn_app.py``: ``init_process``,
``load_wsgi``, ``handle``, and ``conn.sock``.
"""

from __future__ import annotations

import socket
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from penstock.doors.gunicorn_app import App, Offering, keep_shared


class PushWorker(ThreadWorker):
    """As gthread; streams of Penstock leave its threads."""

    def init_process(self) -> None:
        """Begin in the new process."""
        keep_shared()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the app, and offer it the connections of its requests."""
        super().load_wsgi()
        self._offering = Offering(self.wsgi, self, "gunicorn's PushWorker", socket.socket, "thread")
        self.wsgi: App = self._offering

    def run(self) -> None:
        """Serve until told to stop; then let streams say farewell while there still are threads."""
        try:
            super().run()
        finally:
            self._offering.drain()

    def handle(self, conn: Any) -> Any:
        """Handle a request, in a thread of the pool; a stream's socket leaves gunicorn here."""
        shown = conn.sock
        try:
            return super().handle(conn)
        finally:
            started = self._offering.started(shown)
            if started is not None:
                ticket, chunked = started
                conn.sock = socket.socket(socket.AF_UNIX)
                ticket.start(shown.detach(), chunked=chunked)
