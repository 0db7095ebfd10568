"""The door for any ASGI server.

Where the server offers its connections, a stream takes one and nothing else is left of the request. Else
it is a coroutine of the server's: see ``asgi_stream``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from penstock.doors.asgi_body import Body, in_thread, slice_body, stream_body, whole_body
from penstock.doors.asgi_servers import collects_answers, drain_with_server
from penstock.doors.asgi_stream import Message, Receive, Scope, Send, Streaming
from penstock.doors.ask import Ask
from penstock.doors.cors import Headers
from penstock.doors.handover import KEY, ON_STOP, Offer, Ticket
from penstock.doors.opening import Client, Opening, decide, head_only, slice_of
from penstock.doors.over import over
from penstock.doors.places import Places, without_threads
from penstock.engine.engine import Engine
from penstock.errors import ConfigError


class Answer(NamedTuple):
    """What a face makes its framework's response of."""

    status: int
    headers: Headers
    body: Body


class Door:
    """One process's streams over ASGI.

    Args:
        engine: gives this process's engine.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._places: WeakKeyDictionary[Engine, dict[bool, Places]] = WeakKeyDictionary()
        self._mutex = threading.Lock()

    async def answer(self, scope: Scope, receive: Receive, send: Send, ask: Ask) -> None:
        """Answer a request for a stream; returns when all has been sent, or the connection handed over.

        Args:
            scope: the ASGI connection scope, of type ``http``.
            receive: see the ASGI specification.
            send: see the ASGI specification.
            ask: what is asked for.

        Raises:
            ConfigError: where the server's loop is not one of asyncio.
        """
        _need_asyncio()
        engine = self._engine()
        if ON_STOP not in scope:
            drain_with_server(engine)
        opening = await self._open_apart(engine, scope, ask)
        origin, give_back = opening.origin, opening.give_back
        end = over(engine, give_back, ask.on_close)
        if (mark := _hand_over(engine, scope, ask, opening, end)) is not None:
            opening.headers.append(mark)
            await _send_whole(send, opening)
            return
        try:
            if origin is None:
                await _send_whole(send, opening)
            elif give_back is None:
                await _send_slice(send, opening, slice_of(engine, ask, origin))
            else:
                await Streaming(engine, ask, origin, scope, receive, send).run(_start(opening))
        finally:
            end()

    async def open(self, scope: Scope, ask: Ask) -> Answer:
        """As ``answer``, for a framework that sends its responses by itself."""
        _need_asyncio()
        engine = self._engine()
        return self._as_answer(engine, scope, ask, await self._open_apart(engine, scope, ask))

    def open_here(self, scope: Scope, ask: Ask) -> Answer:
        """As ``open``, for a view that runs in a thread. Blocks: the log may be read."""
        engine = self._engine()
        return self._as_answer(engine, scope, ask, self._open(engine, scope, ask))

    def _as_answer(self, engine: Engine, scope: Scope, ask: Ask, opening: Opening) -> Answer:
        status, headers, words, origin, give_back = opening
        end = over(engine, give_back, ask.on_close)
        if (mark := _hand_over(engine, scope, ask, opening, end)) is not None:
            return Answer(status, [*headers, mark], whole_body(engine, b"", _nothing))
        if origin is None:
            return Answer(status, headers, whole_body(engine, words, end))
        body = slice_body if give_back is None else stream_body
        return Answer(status, headers, body(engine, ask, origin, end, scope))

    async def _open_apart(self, engine: Engine, scope: Scope, ask: Ask) -> Opening:
        loop = asyncio.get_running_loop()
        deciding = loop.run_in_executor(None, self._open, engine, scope, ask)
        try:
            return await asyncio.shield(deciding)
        except asyncio.CancelledError:
            deciding.add_done_callback(_give_back)  # the thread goes on, and takes a place
            raise

    def _open(self, engine: Engine, scope: Scope, ask: Ask) -> Opening:
        if scope["method"] == "HEAD":
            return head_only(engine, ask)
        if ON_STOP in scope:
            scope[ON_STOP](engine)
        offer: Offer | None = scope.get(KEY)
        with self._mutex:
            known = self._places.setdefault(engine, {})
            handed = offer is not None
            if handed not in known:
                server = (offer.server, offer.stopping) if offer is not None else ("ASGI", None)
                known[handed] = without_threads(engine, *server)
        address = (scope.get("client") or (None,))[0]
        client = Client(address, offer.fd if offer is not None else None)
        return decide(engine, known[handed], ask, client, bounded=collects_answers(scope))


def _hand_over(
    engine: Engine, scope: Scope, ask: Ask, opening: Opening, end: Callable[[], None]
) -> tuple[str, str] | None:
    """Hand the connection over, where the server offers it: the mark of the answer's head."""
    offer: Offer | None = scope.get(KEY)
    if offer is None or opening.origin is None or opening.give_back is None:
        return None
    return offer.take(Ticket(engine, ask, opening.origin, end))


def _nothing() -> None:
    pass


def _need_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "streams need an event loop of asyncio, and this server runs another: serve with asyncio or "
            "uvloop (hypercorn --worker-class asyncio)"
        ) from None


def _give_back(deciding: asyncio.Future[Opening]) -> None:
    """Give back the place of a request that was given up before it was answered."""
    if not deciding.cancelled() and deciding.exception() is None:
        give_back = deciding.result().give_back
        if give_back is not None:
            give_back()


async def _send_slice(send: Send, opening: Opening, chunks: Iterator[bytes]) -> None:
    with contextlib.suppress(OSError):
        await send(_start(opening))
        async for chunk in in_thread(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_whole(send: Send, opening: Opening) -> None:
    with contextlib.suppress(OSError):
        await send(_start(opening))
        await send({"type": "http.response.body", "body": opening.words, "more_body": False})


def _start(opening: Opening) -> Message:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in opening.headers]
    return {"type": "http.response.start", "status": opening.status, "headers": headers}
