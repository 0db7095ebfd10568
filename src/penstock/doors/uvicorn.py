"""uvicorn's HTTP protocol, whose streams are no tasks.

``uvicorn app:app --http penstock.doors.uvicorn:PushProtocol``, or ``uvicorn.run(..., http=PushProtocol)``.

uvicorn parses the request, runs the app, and writes the head of the response and the line of its access
log. Then a duplicate of the socket goes to the engine, and uvicorn's connection is ended; nothing of
request, scope, parser and task stays in memory. A connection under TLS is more than its socket and stays
with uvicorn: there a stream is a task, which the ordinary ASGI door drives.

What is used of uvicorn's inside stands here and nowhere else: see ``_OF_A_PROTOCOL`` and ``_OF_A_CYCLE``.
Where a release has it no more, nothing is handed over, and one line in the log says so.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from penstock.doors.handover import KEY, MARK, ON_STOP, Offer, Ticket
from penstock.engine.engine import Engine
from penstock.engine.notices import warn

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.http.h11_impl import H11Protocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger("penstock.uvicorn")

_OF_A_PROTOCOL = (
    "app",  # what is run for a request
    "server_state",  # one for each server
    "connections",  # of the server: they are told when it stops, and waited for
    "limit_concurrency",  # how many of them there may be
)
_OF_A_CYCLE = ("transport",)  # that is the object of a request, of which ``send`` is a method
_CHUNKED = "chunked_encoding"  # of a cycle, unless h11 writes the head

HEAD_WITHIN_S = 5.0  # a client that does not take the head by then will take no events
_LOOK_S = 0.02
_MARK = MARK.lower().encode()
# What is said of an answer with an empty body; a stream has another, which nobody encodes.
_UNFIT = (b"content-length", b"content-encoding", b"transfer-encoding", b"connection", _MARK)

Message = MutableMapping[str, Any]


class _Pushing(asyncio.Protocol):
    """What is put on top of uvicorn's protocols."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not _has(self, _OF_A_PROTOCOL):
            return
        self.app: Any = _offering(self)
        self.limit_concurrency: int | None
        if self.limit_concurrency is not None:
            self.limit_concurrency += 1  # what stands for all streams among the connections does not count


class PushProtocol(_Pushing, AutoHTTPProtocol):
    """uvicorn's own choice of a protocol (httptools if it is installed, else h11), which lets streams go."""


class H11PushProtocol(_Pushing, H11Protocol):
    """uvicorn's protocol in pure Python, which lets streams go."""


class _Offering:
    """The app of a server, with an offer in the scope of each request.

    Args:
        app: what uvicorn runs.
        streams: those of this server.
        by_h11: whether h11 writes the heads; it knows what HTTP/1.0 is.
    """

    def __init__(self, app: Any, streams: _Streams, *, by_h11: bool) -> None:
        self._app = app
        self._streams = streams
        self._of_a_cycle = {"1.1": _OF_A_CYCLE, "1.0": _OF_A_CYCLE if by_h11 else (*_OF_A_CYCLE, _CHUNKED)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope[ON_STOP] = self._streams.drain_on_stop
        cycle = getattr(send, "__self__", None)
        offer = self._offer(scope["http_version"], cycle)
        if offer is None:
            await self._app(scope, receive, send)
            return
        scope[KEY] = offer
        try:
            await self._app(scope, receive, _Leaving(offer, cycle, scope["http_version"], send).send)
        finally:
            offer.ticket()  # if it was not used its place is given back now, whoever keeps the scope

    def _offer(self, http_version: str, cycle: Any) -> Offer | None:
        wanted = self._of_a_cycle.get(http_version)
        if wanted is None or not _has(cycle, wanted):
            return None
        transport = cycle.transport
        if transport.get_extra_info("sslcontext") is not None:
            _tell_once("connections under TLS are more than their sockets; a proxy may end TLS instead")
            return None
        shown = transport.get_extra_info("socket")
        return None if shown is None else Offer("uvicorn's PushProtocol", shown.fileno())


class _Leaving:
    """What comes out of the last middleware on its way to uvicorn; a stream's connection leaves here.

    Args:
        offer: of this connection.
        cycle: uvicorn's object for this request.
        http_version: the client's.
        send: uvicorn's.
    """

    __slots__ = ("_chunked", "_cycle", "_offer", "_send", "_ticket")

    def __init__(self, offer: Offer, cycle: Any, http_version: str, send: Any) -> None:
        self._offer = offer
        self._cycle = cycle
        self._chunked = http_version != "1.0"
        self._send = send
        self._ticket: Ticket | None = None

    async def send(self, message: Message) -> None:
        """See the ASGI specification."""
        if message["type"] == "http.response.start":
            message = self._head(message)
        ticket = self._ticket
        if ticket is None or message["type"] == "http.response.start":
            await self._send(message)
        elif not message.get("more_body", False):
            self._ticket = None
            await self._let_go(ticket)

    def _head(self, message: Message) -> Message:
        headers = [(name.lower(), value) for name, value in message.get("headers", ())]
        if all(name != _MARK for name, _ in headers):
            return message
        ticket = self._offer.ticket()
        if ticket is None or message["status"] != 200:  # it is not, or no more, the answer of the door
            return {**message, "headers": [each for each in headers if each[0] != _MARK]}
        self._ticket = ticket
        headers = [each for each in headers if each[0] not in _UNFIT]
        if self._chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        elif hasattr(self._cycle, _CHUNKED):
            setattr(self._cycle, _CHUNKED, False)  # HTTP/1.0 has no chunks: the connection's end is the end
        headers.append((b"connection", b"close"))
        return {**message, "headers": headers}

    async def _let_go(self, ticket: Ticket) -> None:
        """End uvicorn's part in the connection; the engine goes on with a duplicate of its socket."""
        transport = self._cycle.transport
        if await _all_sent(transport):
            try:
                fd = os.dup(transport.get_extra_info("socket").fileno())
            except OSError as error:
                warn(logger, "a stream could not be handed over, and its client was sent away: %s", error)
            else:
                transport.abort()  # nothing is sent any more, not even that it ends
                ticket.start(fd, chunked=self._chunked)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _all_sent(transport: Any) -> bool:
    """Wait until all that was written is the kernel's. False if the client has left, or takes nothing."""
    deadline = time.monotonic() + HEAD_WITHIN_S
    pause = 0.0
    while not transport.is_closing():
        if not transport.get_write_buffer_size():
            return True
        if time.monotonic() > deadline:
            transport.abort()
            break
        await asyncio.sleep(pause)
        pause = _LOOK_S
    return False


class _Streams:
    """All streams of a server, as one more of its connections.

    uvicorn tells its connections when it stops, and waits until they are gone, whatever it was that made it
    stop and whichever thread it runs in.

    Args:
        connections: the server's.
    """

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections
        self._engines: WeakSet[Engine] = WeakSet()
        self._stopping = False
        connections.add(self)

    def drain_on_stop(self, engine: Engine) -> None:
        """Drain an engine's streams when the server stops."""
        self._engines.add(engine)
        if self._stopping:
            engine.begin_drain()

    def shutdown(self) -> None:
        """Called by uvicorn, on its loop."""
        self._stopping = True
        for engine in list(self._engines):  # a view in a thread may be adding one
            engine.begin_drain()
        self._look()

    def _look(self) -> None:
        if any(engine.has_clients for engine in self._engines):
            asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        else:
            self._connections.discard(self)


_of_servers: WeakKeyDictionary[Any, _Offering] = WeakKeyDictionary()  # by uvicorn's state of the server


def _offering(protocol: Any) -> _Offering:
    """The app of a protocol's server; made with its first connection."""
    state = protocol.server_state
    found = _of_servers.get(state)
    if found is None:
        streams = _Streams(protocol.connections)
        found = _of_servers[state] = _Offering(
            protocol.app, streams, by_h11=isinstance(protocol, H11Protocol)
        )
    return found


def _has(inner: Any, names: Sequence[str]) -> bool:
    """Whether something of uvicorn's inside is as it is known."""
    for name in names:
        if not hasattr(inner, name):
            _tell_once(f"this release of uvicorn has no {name} where it is looked for")
            return False
    return True


@functools.cache
def _tell_once(why: str) -> None:
    logger.warning("streams are tasks of uvicorn's and are not handed over: %s", why)
