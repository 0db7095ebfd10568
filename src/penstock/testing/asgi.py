# ruff: noqa: D102  the methods of ``Call`` stand in exchange.py
"""An ASGI app at work on one request: the ``receive`` and ``send`` that it is given, and the rules for both.

The standard says what an app may send and in which order; servers differ in what they do where it is
broken, so here it is an error that the test sees. What servers do when the client leaves depends on the
``spec_version`` that they tell: up to 2.3 a ``send`` after that does nothing, from 2.4 on it raises OSError.
With both, ``receive`` gives ``http.disconnect``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from penstock.testing.exchange import Exchange
from penstock.testing.faults import ProtocolFault
from penstock.testing.request import HOST, PORT, Request
from penstock.testing.whereabouts import of_task

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Awaitable[object]]

RAISES_SINCE = (2, 4)  # the version of the standard in which send() learned to tell that the client left


class Server(NamedTuple):
    """The server that the app believes to be behind.

    Attributes:
        app: the app.
        spec_version: of ASGI, as the server tells it.
        strict: whether it is an error to call ``receive`` from two places at once.
    """

    app: ASGIApp
    spec_version: str
    strict: bool

    @property
    def send_raises(self) -> bool:
        """Whether ``send`` raises after the client has left."""
        return tuple(map(int, self.spec_version.split("."))) >= RAISES_SINCE


class ClientLeft(OSError):
    """What ``send`` raises after the client has left."""


class ASGICall:
    """A task in which the app answers one request.

    Args:
        server: what the app is to see.
        exchange: what comes of it.
        state: what the app's lifespan has left for requests; None if there is none.
        loop: on which the app runs; this may be made in any thread.
    """

    def __init__(
        self,
        server: Server,
        exchange: Exchange,
        state: Mapping[str, Any] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server = server
        self._exchange = exchange
        self._loop = loop
        self._scope = scope_of(exchange.request, server.spec_version, state)
        self._asked = False  # whether the app has been given the request's body
        self._receiving = False
        self._gone = asyncio.Event()  # the answer is complete, or the client has left
        self._room = asyncio.Event()
        self._complete = False
        self._abandoned = False
        self._over = False
        self._task: asyncio.Task[None] | None = None
        exchange.freed = lambda: self._call_on_loop(self._room.set)
        self._call_on_loop(self._begin)

    # See ``Call``

    @property
    def over(self) -> bool:
        return self._over

    def leave(self) -> None:
        self._call_on_loop(self._let_leave)

    def abandon(self) -> bool:
        self._abandoned = True
        self._call_on_loop(self._cancel)
        return True

    def reap(self) -> None:
        pass

    def where(self) -> str:
        return of_task(self._task) if self._task is not None else ""

    # On the loop

    def _call_on_loop(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the app with it
            self._loop.call_soon_threadsafe(call)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run(), name=f"app: {self._exchange.request}")
        self._task.add_done_callback(self._ended)

    def _let_leave(self) -> None:
        self._gone.set()
        self._room.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None = None
        if task.cancelled():
            if not self._abandoned:
                error = self._fault("the app was cancelled, though its client was there")
        else:
            error = task.exception()
        if error is not None and self._exchange.left and _comes_of_leaving(error):
            error = None
        self._over = True
        self._exchange.end(error)

    async def _run(self) -> None:
        await self._server.app(self._scope, self._receive, self._send)
        exchange = self._exchange
        if exchange.left:
            return
        if exchange.status is None:
            raise self._fault("the app returned without an answer")
        if not self._complete:
            raise self._fault("the app returned without the last body, the one without more_body")

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._exchange.request.body, "more_body": False}
        if self._receiving and self._server.strict:
            self._fault(
                "receive() was called while another call of it was waiting: a disconnect reaches only one "
                "of the two on some servers. strict=False does not mind"
            )
        self._receiving = True
        try:
            await self._gone.wait()
        finally:
            self._receiving = False
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        exchange = self._exchange
        kind = message.get("type")
        if self._complete:
            raise self._fault(f"{kind!r} was sent after the last body")
        if exchange.left:
            if self._server.send_raises:
                raise ClientLeft("the client has left")
            await asyncio.sleep(0)  # an app that sends without an end must not stop the loop
            return
        if kind == "http.response.start":
            if exchange.status is not None:
                raise self._fault("'http.response.start' was sent twice")
            status = message.get("status")
            if isinstance(status, bool) or not isinstance(status, int):
                raise self._fault(f"a status is a number, not {status!r}")
            exchange.begin(status, "", list(self._headers(message.get("headers", ()))))
        elif kind == "http.response.body":
            if exchange.status is None:
                raise self._fault("a body was sent before 'http.response.start'")
            chunk = message.get("body", b"")
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise self._fault(f"a body is bytes, not {chunk!r:.80}")
            exchange.bring(bytes(chunk))
            if not message.get("more_body", False):
                self._complete = True
                self._gone.set()
                exchange.end()
            await self._pause()
        else:
            raise self._fault(f"no such message is known here: {kind!r}")

    def _headers(self, headers: object) -> Iterator[tuple[str, str]]:
        if not isinstance(headers, Iterable):
            raise self._fault(f"headers are pairs of bytes, not {headers!r:.80}")
        for header in headers:
            try:
                name, value = header
                text = name.decode("latin-1"), value.decode("latin-1")
            except (TypeError, ValueError, AttributeError):
                raise self._fault(f"a header is a pair of bytes, not {header!r}") from None
            yield text  # in whatever case: the standard wants small letters, and Django sends others

    async def _pause(self) -> None:
        """Let others run, and wait while the client is slow to read."""
        exchange = self._exchange
        await asyncio.sleep(0)
        while exchange.full and not exchange.left and not self._complete:
            self._room.clear()
            if exchange.full and not exchange.left:
                await self._room.wait()

    def _fault(self, text: str) -> ProtocolFault:
        fault = ProtocolFault(f"ASGI: {text}; {self._exchange.request}")
        self._exchange.refuse(fault)
        return fault


def scope_of(request: Request, spec_version: str, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """The scope of a request."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path.decode(errors="replace"),
        "raw_path": request.target.encode(),
        "query_string": request.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value) for name, value in request.header_lines],
        "client": ("127.0.0.1", 50_000),
        "server": (HOST, PORT),
        "extensions": {},
    }
    if state is not None:
        scope["state"] = dict(state)
    return scope | dict(request.extra)


def _comes_of_leaving(error: BaseException | None) -> bool:
    """Whether it is what ``send`` raised, or was raised because of it, as frameworks do."""
    while error is not None:
        if isinstance(error, ClientLeft):
            return True
        if isinstance(error, BaseExceptionGroup) and all(map(_comes_of_leaving, error.exceptions)):
            return True
        error = error.__cause__ or error.__context__
    return False
