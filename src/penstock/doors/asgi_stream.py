"""A stream that is a coroutine of an ASGI server's.

One task waits for news and sends it, and another waits for the client to leave: some servers tell the
departure to whoever receives, some by an error of the next send, and both are heeded. A send that its
client holds up is given up when the client leaves or is cut off, since not every server does that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from penstock.core.stream import Closing
from penstock.doors.acquaintance import get_to_know
from penstock.doors.asgi_body import pour
from penstock.doors.asgi_servers import waiting_for_room
from penstock.doors.ask import Ask
from penstock.doors.hang_up import hang_up, hang_up_later
from penstock.engine.engine import Engine
from penstock.engine.origin import Origin
from penstock.engine.phrases import farewell
from penstock.engine.wakeups import wakeups

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PARTING_S = 0.1  # the server may take so long for the last message of a stream that cannot wait


class _Gone(Exception):
    """There is no client to send to any more."""


class Streaming:
    """A stream, from its first byte to its last. To be made in the task that serves the request.

    Args:
        engine: whose it is.
        ask: what was asked for.
        origin: where it begins.
        scope: the ASGI connection scope.
        receive: see the ASGI specification.
        send: see the ASGI specification.
    """

    def __init__(
        self,
        engine: Engine,
        ask: Ask,
        origin: Origin,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._engine = engine
        self._ask = ask
        self._origin = origin
        self._scope = scope
        self._receive = receive
        self._server_send = waiting_for_room(scope, send)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._woken = asyncio.Event()
        self._pull = engine.open(ask.subscription, origin, wakeups().of(self._woken), rights=ask.rights)
        self._pull.cut = self._cut
        self._sending = False  # the task waits for the server to take something
        self._given_up = False  # and was told not to
        self._hung_up = False

    async def run(self, start: Message) -> None:
        """Send all of it, head first; returns when it is over."""
        watching = asyncio.create_task(self._watch())
        forget = get_to_know(self._engine, self._scope)
        try:
            await self._send(start)
            await self._send_all(pour(self._engine, self._ask, self._origin, self._pull, self._woken))
            watching.cancel()  # once it has the last message, a server says that the client has left
            if self._pull.stream.closing is Closing.DRAINED:
                hang_up_later(self._scope.get("client"), self._scope.get("server"))
            await self._send_body(b"", more=False)
        except _Gone:
            self._pull.close(Closing.LEFT)
            await self._part(b"")
        finally:
            watching.cancel()
            forget()
            self._engine.leave(self._pull)

    async def _send_all(self, chunks: AsyncGenerator[bytes, None]) -> None:
        async with contextlib.aclosing(chunks):
            while True:
                try:
                    chunk = await anext(chunks, None)
                except asyncio.CancelledError:  # a server that ends, and does not wait for its requests
                    await self._part(farewell(self._pull.stream.position))
                    raise
                if chunk is None:
                    return
                await self._send_body(chunk)

    async def _send_body(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._pull.count_bytes(len(data))

    async def _send(self, message: Message) -> None:
        self._sending = True
        try:
            await self._server_send(message)
        except OSError as error:  # so does a server of specification 2.4 tell that the client left
            raise _Gone from error
        except asyncio.CancelledError:
            if not self._given_up:
                raise
        finally:
            self._sending = False
        if self._given_up:
            assert self._task is not None
            self._task.uncancel()
            raise _Gone

    async def _part(self, words: bytes) -> None:
        """Complete the response, if the server lets us: else it would complain."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PARTING_S):
                await self._server_send({"type": "http.response.body", "body": words, "more_body": False})

    async def _watch(self) -> None:
        """Close the stream when its client leaves. Nobody else receives meanwhile."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._pull.close(Closing.LEFT)
        self._give_up()

    def _give_up(self) -> None:
        """Let the task wait no longer for a client that takes nothing."""
        if self._sending and not self._given_up:
            assert self._task is not None
            self._given_up = True
            self._task.cancel()

    def _cut(self) -> None:
        """Cut off the client; called from the engine's loop, and again if that did not help."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cut_here)

    def _cut_here(self) -> None:
        if not self._hung_up:
            self._hung_up = True
            if hang_up(self._scope.get("client"), self._scope.get("server")):
                return  # the server will notice it
        self._give_up()
