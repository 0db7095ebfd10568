"""What gunicorn's workers run instead of the app, so that the sockets of streams leave them.

gunicorn parses the request, calls this, and sends the head of the response; the hooks and the access log see
it like any other. What is used of gunicorn's inside stands in the modules of its workers and here: of the
response, which is found behind ``start_response``, what ``_USED`` names. Where one of them is missing nothing
is handed over, and streams hold what they hold on any other worker.
"""

from __future__ import annotations

import gc
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

from penstock.doors.handover import KEY, MARK, Offer, Ticket
from penstock.doors.wsgi_servers import asked_to_stop, is_http2
from penstock.engine.engine import Engine
from penstock.engine.notices import warn

logger = logging.getLogger("penstock.gunicorn")

FAREWELL_S = 1.0  # a client that takes nothing any more is cut off by then
EVENT_STREAM = "text/event-stream"
_USED = ("chunked", "force_close", "send_headers", "sock")  # of gunicorn's response
_UNFIT = ("content-length", "content-encoding")  # what a middleware says of the empty body

App = Callable[..., Iterable[bytes]]


def keep_shared() -> None:
    """Leave what was there before the fork where it is; to be called first in a new worker.

    It is shared with the arbiter, and Python's collector, which marks all that it looks at, would have each
    worker copy it: some megabytes, taken for no stream's sake.
    """
    gc.freeze()


class Offering:
    """The app, with an offer in the environment of its requests.

    Args:
        app: the WSGI app.
        worker: the worker that it runs in.
        name: the worker's, for log lines.
        plain: the kind of sockets that can be given away.
        unit: what a stream holds that is not handed over: a thread, or a greenlet.
    """

    def __init__(self, app: App, worker: Any, name: str, plain: type[Any], unit: str) -> None:
        self._app = app
        self._stopping = asked_to_stop(worker)
        self._name = name
        self._plain = plain
        self._unit = unit
        self._leaving: dict[Any, tuple[Ticket, bool]] = {}  # whose head has been sent
        self._engines: WeakSet[Engine] = WeakSet()
        if worker.cfg.is_ssl:
            logger.warning(
                "this worker ends TLS, and what TLS wraps cannot be handed over: each stream holds a %s. Let "
                "a proxy end TLS",
                unit,
            )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """See PEP 3333."""
        response = getattr(start_response, "__self__", None)
        offer = self._offer(environ, response)
        if offer is None:
            return self._app(environ, start_response)
        environ[KEY] = offer
        head = _Head(start_response)
        try:
            body = self._app(environ, head.start)
        except BaseException:
            offer.ticket()  # gives the place back now: a report of the error may keep the environment
            raise
        if head.started and not head.marked:
            _give_back(offer, head)
            return body  # untouched: it may be a file that gunicorn sends its own way
        return self._handing_over(body, head, offer, response)

    def started(self, sock: Any) -> tuple[Ticket, bool] | None:
        """Once, for a connection that is to be let go: its stream, and whether in chunked coding."""
        found = self._leaving.pop(sock, None)
        if found is not None:
            self._engines.add(found[0].engine)
        return found

    def drain(self) -> None:
        """Let streams say farewell, while the process has all its threads. Blocks."""
        for engine in self._engines:
            engine.drain(FAREWELL_S)

    def _offer(self, environ: dict[str, Any], response: Any) -> Offer | None:
        shown: Any = getattr(response, "sock", None)
        if isinstance(shown, ssl.SSLSocket) or is_http2(environ):
            return None  # a connection is more than its socket there
        missing = [name for name in _USED if not hasattr(response, name)]
        if missing or type(shown) is not self._plain:
            warn(
                logger,
                "gunicorn's %s is not where it is looked for, in this release or behind what was put between "
                "it and the app: nothing is handed over, and each stream holds a %s",
                "response" if missing else "connection",
                self._unit,
            )
            return None
        return Offer(self._name, shown.fileno(), self._stopping)

    def _handing_over(
        self, body: Iterable[bytes], head: _Head, offer: Offer, response: Any
    ) -> Iterator[bytes]:
        """The body of a response; of a marked one only the head is sent, and its connection let go."""
        try:
            for chunk in body:
                if not head.marked:
                    yield chunk
            if not head.marked:
                _give_back(offer, head)
            elif (ticket := offer.ticket()) is not None:
                response.force_close()
                response.send_headers()
                self._leaving[response.sock] = ticket, response.chunked
                response.chunked = False  # the last chunk is the engine's to send
        finally:
            if hasattr(body, "close"):
                body.close()


class _Head:
    """The head that comes out of the last middleware: is it that of a stream to be handed over?"""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self.started = self.marked = self.is_stream = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """See PEP 3333."""
        found = {name.lower(): value for name, value in headers}
        self.started = True
        self.is_stream = status.startswith("200") and found.get("content-type", "").startswith(EVENT_STREAM)
        self.marked = self.is_stream and MARK.lower() in found
        if MARK.lower() in found:
            unfit = {MARK.lower(), *(_UNFIT if self.marked else ())}
            headers = [each for each in headers if each[0].lower() not in unfit]
        return self._start_response(status, headers, exc_info)


def _give_back(offer: Offer, head: _Head) -> None:
    """Give the place of a stream back whose answer became another one on its way out."""
    if offer.ticket() is not None and head.is_stream:
        warn(
            logger,
            "a middleware sent a stream's head on without its %s header: the stream is empty, and its "
            "client comes back again and again. Let the middleware keep headers that it does not know",
            MARK,
        )
