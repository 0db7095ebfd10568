"""A client of WSGI apps (Flask, Django, any callable) for streams without an end: no server, no port.

The app runs in a thread of its own for each request, as on a server with threads: to wait for the next
piece of an idle stream blocks. When the client leaves, nothing can wake an iterator that waits; a server
notices at the next piece that it cannot write, and then calls ``close()``. So does this client. An app
that watches the socket of its client, as Penstock does where the server shows it, notices at once.
"""

from __future__ import annotations

import contextvars
import io
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from penstock.testing.client import TIMEOUT_S, Client, drop_all
from penstock.testing.exchange import Exchange
from penstock.testing.faults import ProtocolFault, note_on
from penstock.testing.request import HOST, PORT, SOFTWARE, Request
from penstock.testing.streams import EventStream
from penstock.testing.whereabouts import of_thread

WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes]]
_Raised = tuple[type[BaseException], BaseException, TracebackType | None]

_STATUS = re.compile(r"([1-9][0-9]{2}) ?([^\r\n]*)")
_BAD_IN_HEADER = re.compile("[\r\n\0]")
_REAP_S = 5.0  # a thread whose work is done ends sooner


class WSGIClient(Client[EventStream]):
    """A client of a WSGI app.

    Args:
        app: the app.
        timeout: how many seconds each wait takes at the most, where nothing else is said.

    Example:
        >>> with WSGIClient(app).stream("/events") as stream:
        ...     sse.publish("chat", "hello")
        ...     assert stream.next_event().data == "hello"
    """

    def __init__(self, app: WSGIApp, *, timeout: float = TIMEOUT_S) -> None:
        super().__init__(lambda exchange: _Call(app, exchange), EventStream, timeout)

    def close(self) -> None:
        """Drop all streams that are still open."""
        drop_all(self._streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as late:
            if not note_on(error, late):
                raise


class _Call:
    """A thread in which the app answers one request."""

    def __init__(self, app: WSGIApp, exchange: Exchange) -> None:
        self._app = app
        self._exchange = exchange
        self._over = False
        self._sent = False  # whether the headers have left, with the first bytes
        self._room = threading.Event()
        self._client_end, self._server_end = socket.socketpair()
        exchange.freed = self._room.set
        # Not in the test's context: a server has none of it either.
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(self._run,), name=f"WSGIClient {exchange.request}",
            daemon=True,
        )  # fmt: skip
        self._thread.start()

    # See ``Call``

    @property
    def over(self) -> bool:
        return self._over

    def leave(self) -> None:
        self._client_end.close()
        self._room.set()

    def abandon(self) -> bool:
        return False  # no thread can be stopped from outside

    def reap(self) -> None:
        self._thread.join(_REAP_S)

    def where(self) -> str:
        return of_thread(self._thread)

    # In the thread

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._answer()
        except BaseException as raised:  # whatever it is, the test is to raise it
            error = raised
        self._server_end.close()
        self._client_end.close()
        self._over = True
        self._exchange.end(error)

    def _answer(self) -> None:
        exchange = self._exchange
        chunks = self._app(environ_of(exchange.request, self._server_end), self._start_response)
        if isinstance(chunks, str | bytes) or not isinstance(chunks, Iterable):
            raise self._fault(f"the app returned {chunks!r:.80}, which is no iterable of bytes")
        try:
            for chunk in chunks:
                self._write(chunk)
                if exchange.left:
                    break
            if exchange.status is None:
                raise self._fault("the app ended without a call of start_response()")
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _Raised | None = None
    ) -> Callable[[bytes], None]:
        exchange = self._exchange
        if exc_info is not None:
            try:
                if self._sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circle through this frame
        elif exchange.status is not None:
            raise self._fault("start_response() was called twice, without exc_info")
        parts = _STATUS.fullmatch(status) if isinstance(status, str) else None
        if parts is None:
            raise self._fault(f"a status is text such as '200 OK', not {status!r}")
        for header in headers:
            name, value = header
            if not (isinstance(name, str) and isinstance(value, str)) or _BAD_IN_HEADER.search(name + value):
                raise self._fault(f"a header is a pair of texts, each one line, not {header!r}")
        exchange.begin(int(parts[1]), parts[2], headers)
        return self._write

    def _write(self, chunk: bytes) -> None:
        exchange = self._exchange
        if not isinstance(chunk, bytes):
            raise self._fault(f"a piece of the body is bytes, not {chunk!r:.80}")
        if not chunk:
            return
        if exchange.status is None:
            raise self._fault("the body began before start_response() was called")
        self._sent = True
        if not exchange.left:
            exchange.bring(chunk)
        while exchange.full and not exchange.left:
            self._room.clear()
            if exchange.full and not exchange.left:
                self._room.wait()

    def _fault(self, text: str) -> ProtocolFault:
        fault = ProtocolFault(f"WSGI (PEP 3333): {text}; {self._exchange.request}")
        self._exchange.refuse(fault)
        return fault


def environ_of(request: Request, client: socket.socket) -> dict[str, Any]:
    """The environ of a request.

    Args:
        request: the request.
        client: what the app may watch to see its client leave, under Werkzeug's name for it.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": HOST,
        "SERVER_PORT": str(PORT),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": SOFTWARE,
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "werkzeug.socket": client,
    }
    for name, value in request.header_lines:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = value.decode("latin-1")
    return environ | dict(request.extra)
