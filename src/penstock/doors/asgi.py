"""The door for any ASGI server.

Where the server offers its connections, a stream takes one and nothing else is left of the request. Else
it is a coroutine of the server's: see ``asgi_stream``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from penstock.core.channel import Subscription
from penstock.doors.asgi_servers import drain_with_server
from penstock.doors.asgi_stream import Message, Receive, Scope, Send, Streaming
from penstock.doors.handover import KEY, ON_STOP, Offer, Ticket
from penstock.doors.opening import Opening, Request, decide, head_only, slice_of
from penstock.doors.over import over
from penstock.doors.places import Places, without_threads
from penstock.engine.engine import Engine
from penstock.engine.origin import Wish
from penstock.errors import ConfigError


class Door:
    """One process's streams over ASGI.

    Args:
        engine: gives this process's engine.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._places: WeakKeyDictionary[Engine, dict[bool, Places]] = WeakKeyDictionary()
        self._mutex = threading.Lock()

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        subscription: Subscription,
        wish: Wish,
        last_event_id: str | None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """Answer a request for a stream; returns when all has been sent, or the connection handed over.

        Args:
            scope: the ASGI connection scope, of type ``http``.
            receive: see the ASGI specification.
            send: see the ASGI specification.
            subscription: what the stream follows; the caller has seen to it that the client may.
            wish: where it begins for a client without a position.
            last_event_id: what the client sent.
            on_close: called once, in a thread, when the answer is over, whatever it was.

        Raises:
            ConfigError: where the server's loop is not one of asyncio.
        """
        if scope["method"] == "HEAD":
            over(self._engine(), None, on_close)()
            await _send_whole(send, head_only())
            return
        _need_asyncio()
        offer: Offer | None = scope.get(KEY)
        client = (scope.get("client") or (None,))[0]
        request = Request(subscription, wish, last_event_id, client, offer.fd if offer is not None else None)
        engine = self._engine()
        if ON_STOP in scope:
            scope[ON_STOP](engine)
        else:
            drain_with_server(engine)
        opening = await self._open(engine, offer, request)
        origin, give_back = opening.origin, opening.give_back
        end = over(engine, give_back, on_close)
        if origin is not None and give_back is not None and offer is not None:
            opening.headers.append(offer.take(Ticket(engine, subscription, origin, end)))
            await _send_whole(send, opening)
            return
        try:
            if origin is None:
                await _send_whole(send, opening)
            elif give_back is None:
                await _send_slice(send, opening, slice_of(engine, subscription, origin))
            else:
                await Streaming(engine, subscription, origin, scope, receive, send).run(_start(opening))
        finally:
            end()

    async def _open(self, engine: Engine, offer: Offer | None, request: Request) -> Opening:
        loop = asyncio.get_running_loop()
        deciding = loop.run_in_executor(None, self._decide, engine, offer, request)
        try:
            return await asyncio.shield(deciding)
        except asyncio.CancelledError:
            deciding.add_done_callback(_give_back)  # the thread goes on, and takes a place
            raise

    def _decide(self, engine: Engine, offer: Offer | None, request: Request) -> Opening:
        with self._mutex:
            known = self._places.setdefault(engine, {})
            handed = offer is not None
            if handed not in known:
                server = (offer.server, offer.stopping) if offer is not None else ("ASGI", None)
                known[handed] = without_threads(engine, *server)
        return decide(engine, known[handed], request)


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
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_whole(send: Send, opening: Opening) -> None:
    with contextlib.suppress(OSError):
        await send(_start(opening))
        await send({"type": "http.response.body", "body": opening.words, "more_body": False})


def _start(opening: Opening) -> Message:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in opening.headers]
    return {"type": "http.response.start", "status": opening.status, "headers": headers}
