"""A stream's bytes as an asynchronous iterator: for whatever sends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, MutableMapping
from typing import Any

from penstock.core.stream import Closing
from penstock.core.wire import Block
from penstock.doors.acquaintance import get_to_know
from penstock.doors.asgi_servers import drain_with_server
from penstock.doors.ask import Ask
from penstock.doors.hang_up import hang_up_later
from penstock.doors.opening import slice_of
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Origin
from penstock.engine.phrases import greeting, last_words
from penstock.engine.pull import Pull
from penstock.engine.wakeups import wakeups

BLOCKS_AT_ONCE = 4  # of one stream that has much to read, before the loop's others have their turn


async def pour(
    engine: Engine, ask: Ask, origin: Origin, pull: Pull, woken: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """All bytes of a stream, from the first to its last words.

    Args:
        engine: whose it is.
        ask: what was asked for.
        origin: where it begins.
        pull: the stream; whoever opened it lets it leave, and counts its bytes.
        woken: is set when there is news.
    """
    try:
        yield greeting(origin, engine.options.retry)
        blocks = 0
        while True:
            woken.clear()
            step = pull.poll()
            if step is Next.WAIT:
                engine.failures.over()
                await woken.wait()
                continue
            if step is Next.CLOSED:
                break
            block = await asyncio.to_thread(pull.read) if step is Next.READ else step
            if isinstance(block, Block):
                yield block.wire
                blocks += 1
                if blocks % BLOCKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        if words := last_words(pull.stream):
            yield words
    except Exception as error:
        yield engine.failures.on_the_way(ask.subscription, error)


class Body:
    """The body of an answer, for a framework that sends it by itself.

    It is opened by the first step, on the server's loop. ``close`` may come from any thread, whatever
    happened, and however often; a body that nobody ever asked for anything closes itself.

    Args:
        engine: whose it is.
        chunks: makes the bytes, in the task that serves the request.
        end: called once when it is over.
    """

    def __init__(
        self,
        engine: Engine,
        chunks: Callable[[Body], AsyncGenerator[bytes, None]],
        end: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._make_chunks = chunks
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._end: Callable[[], None] | None = end
        self.pull: Pull | None = None

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._make_chunks(self)
        try:
            return await anext(self._chunks)
        except BaseException:
            self.close()
            raise

    async def aclose(self) -> None:
        """End it; called on the loop."""
        self.close()
        if self._chunks is not None:
            await self._chunks.aclose()

    def close(self) -> None:
        """Give back what it holds."""
        pull, self.pull = self.pull, None
        if pull is not None:
            self._engine.leave(pull)
        end, self._end = self._end, None
        if end is not None:
            end()

    def __del__(self) -> None:
        self.close()


def stream_body(
    engine: Engine, ask: Ask, origin: Origin, end: Callable[[], None], scope: MutableMapping[str, Any]
) -> Body:
    """The body of a stream."""

    async def chunks(body: Body) -> AsyncGenerator[bytes, None]:
        drain_with_server(engine)
        woken = asyncio.Event()
        pull = body.pull = engine.open(ask.subscription, origin, wakeups().of(woken), rights=ask.rights)
        forget = get_to_know(engine, scope)
        try:
            async with contextlib.aclosing(pour(engine, ask, origin, pull, woken)) as flow:
                async for chunk in flow:
                    pull.count_bytes(len(chunk))
                    yield chunk
        finally:
            forget()
        if pull.stream.closing is Closing.DRAINED:
            hang_up_later(scope.get("client"), scope.get("server"))

    return Body(engine, chunks, end)


def slice_body(
    engine: Engine, ask: Ask, origin: Origin, end: Callable[[], None], scope: MutableMapping[str, Any]
) -> Body:
    """The body of a bounded answer."""
    return Body(engine, lambda body: in_thread(slice_of(engine, ask, origin)), end)


def whole_body(engine: Engine, words: bytes, end: Callable[[], None]) -> Body:
    """A body that is there already."""
    return Body(engine, lambda body: _only(words), end)


async def _only(words: bytes) -> AsyncGenerator[bytes, None]:
    if words:
        yield words


async def in_thread(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What an iterator gives that may block."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
