"""What the ASGI door must know of the server around it, which the specification does not tell.

Whether it is about to stop, and whether a client takes what is sent to it. Each server's inner names are
used here and nowhere else; where they are missing, the door goes without.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from penstock.doors.signals import drain_on_signal
from penstock.engine.engine import Engine
from penstock.engine.notices import warn

_HTTPX_CLIENT = ("127.0.0.1", 123)  # the default of its ASGITransport

logger = logging.getLogger("penstock.asgi")

_heeded: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[Engine]] = WeakKeyDictionary()


def drain_with_server(engine: Engine) -> None:
    """Drain an engine's streams as soon as the server stops. To be called on its loop.

    Most are told to by a signal. A worker of Hypercorn's is told by its parent, through a flag that a
    task looks at; it is over when the server is to stop, for whatever reason. Uvicorn has a flag that is
    looked at here: the first stream may come just after the signal, when uvicorn still takes requests.
    """
    drain_on_signal(engine)
    heeded = _heeded.setdefault(asyncio.get_running_loop(), WeakSet())
    if engine in heeded:
        return
    heeded.add(engine)
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            if _is_of(frame, "hypercorn.utils", "raise_shutdown"):
                task.add_done_callback(lambda _: engine.begin_drain())
            server = frame.f_locals.get("self") if _is_of(frame, "uvicorn.server", "serve") else None
            if hasattr(server, "should_exit"):
                engine.drain_when(functools.partial(getattr, server, "should_exit"))
            awaited = awaited.cr_await


def collects_answers(scope: MutableMapping[str, Any]) -> bool:
    """Whether this is a client of a test's, which returns no answer before it has the whole of it.

    A stream would hang it for good. Each is known by what no server puts into a scope.

    Args:
        scope: the ASGI connection scope.
    """
    if "http.response.debug" in scope.get("extensions", ()):
        name = "Starlette's TestClient"
    elif "_quart._preserve_context" in scope:
        name = "Quart's test client"
    elif isinstance(scope.get("query_string"), str):  # where the standard has bytes
        name = "Django's AsyncClient"
    elif scope.get("client") == _HTTPX_CLIENT and "spec_version" not in scope.get("asgi", ()):
        name = "httpx.ASGITransport"
    else:
        return False
    warn(
        logger,
        "%s collects whole answers, and a stream has no end: it gets what there is by now. To follow a "
        "stream in a test there is penstock.testing",
        name,
        about=name,
    )
    return True


def waiting_for_room(
    scope: MutableMapping[str, Any], send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """A ``send`` that waits while the client takes nothing. To be called on the server's loop.

    Most servers' own does. Daphne's keeps whatever it is given in memory; but Twisted, on which it is
    built, tells a producer of data to pause.

    Args:
        scope: the ASGI connection scope.
        send: see the ASGI specification.
    """
    request = _daphne_request(scope)
    if request is None:
        return send
    room = _Room()
    request.registerProducer(room, True)

    async def waiting(message: MutableMapping[str, Any]) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and request.producer is room and request.channel is not None:
            request.unregisterProducer()
        await send(message)
        if not last:
            await room.wait()

    return waiting


class _Room:
    """What Twisted calls a push producer."""

    def __init__(self) -> None:
        self._there = asyncio.Event()
        self._there.set()

    async def wait(self) -> None:
        """Wait until the client has taken the most of what it was sent."""
        await self._there.wait()

    def pauseProducing(self) -> None:
        """Called by Twisted when its client takes no more for now."""
        self._there.clear()

    def resumeProducing(self) -> None:
        """Called by Twisted when it does again."""
        self._there.set()

    def stopProducing(self) -> None:
        """Called by Twisted when the connection is lost."""
        self._there.set()


def _daphne_request(scope: MutableMapping[str, Any]) -> Any:
    """Daphne's object of this request; None on another server."""
    if "daphne.server" not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_of(frame, "daphne.server", "run"):
        frame = frame.f_back
    if frame is None:
        return None
    client = scope.get("client")
    connections = getattr(frame.f_locals.get("self"), "connections", ())
    for request in list(connections):
        if client is not None and getattr(request, "client_addr", None) is client:
            return request if hasattr(request, "registerProducer") else None
    return None


def _is_of(frame: FrameType, module: str, function: str) -> bool:
    return frame.f_code.co_name == function and frame.f_globals.get("__name__") == module
