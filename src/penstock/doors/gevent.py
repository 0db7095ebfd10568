"""gunicorn's gevent worker, but streams hold no greenlet: ``gunicorn -k penstock.doors.gevent.PushWorker``.

Once the head of a stream has been sent, its descriptor is taken out of gevent's socket, which lets go of its
watchers, and leaves for the engine, whose loop runs in a real thread beside the hub. The greenlet ends, and
with it the connection that gunicorn counts.

What is used of gunicorn's inside stands here and in ``doors/gunicorn_app.py``: ``init_process``,
``load_wsgi``, and ``handle_request`` with the connection's socket as its third argument.
"""

from __future__ import annotations

from typing import Any

from gevent.socket import socket
from gunicorn.workers.ggevent import GeventWorker

from penstock.doors.gunicorn_app import App, Offering, keep_shared


class PushWorker(GeventWorker):
    """As gevent; streams of Penstock leave its greenlets."""

    def init_process(self) -> None:
        """Begin in the new process."""
        keep_shared()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the app, and offer it the connections of its requests."""
        super().load_wsgi()
        self._offering = Offering(self.wsgi, self, "gunicorn's PushWorker on gevent", socket, "greenlet")
        self.wsgi: App = self._offering

    def run(self) -> None:
        """Serve until told to stop, and then let streams say farewell."""
        try:
            super().run()
        finally:
            self._offering.drain()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Handle a request, in its greenlet; a stream's socket leaves gunicorn here."""
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            started = self._offering.started(sock)
            if started is not None:
                ticket, chunked = started
                ticket.start(sock.detach(), chunked=chunked)
