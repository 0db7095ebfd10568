"""A stream that is pulled: its driver, a thread or a coroutine, asks for what comes next.

The driver asks ``poll``. Where the log must be read, the driver calls ``read``, which may block; where
there is nothing, the driver sleeps until its ``wake`` is called. ``wake`` may be called from any thread
and for nothing, and is called after every change that the stream has not seen: a driver that resets its
wake-up, polls, and then sleeps cannot miss one.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.stream import Closing, Input, State, Stream
from penstock.core.wire import Block
from penstock.engine.feed import Feed, Next
from penstock.engine.ring import Ring
from penstock.log.base import Log


class Pull(Feed):
    """A pulled stream, as its driver and the loop see it.

    Args:
        log: see ``Feed``.
        ring: see ``Feed``.
        stream: see ``Feed``.
        wake: wakes the driver.
    """

    __slots__ = ("_news", "_wake", "client", "cut", "waiting")

    def __init__(self, log: Log, ring: Ring, stream: Stream, wake: Callable[[], None]) -> None:
        super().__init__(log, ring, stream)
        self._wake = wake
        self._news = False
        self.client = True  # whether a client is behind it
        self.cut: Callable[[], None] = _nothing  # cuts off that client, where the door can
        self.waiting = False  # whether the driver sleeps, or is busy with its client

    @property
    def lagging(self) -> bool:
        """Whether news waits for a driver that is busy with older ones."""
        return self.stream.state is State.LAGGING or (self._news and not self.waiting)

    def news(self) -> None:
        """See ``Member``; called by the loop."""
        self._news = True
        self._wake()

    def close(self, why: Closing) -> None:
        """Let the stream end at the next poll. From any thread; the first reason stays."""
        if self._closing is None:
            self._closing = why
        self._wake()

    def poll(self) -> Block | Next:
        """What comes next, without blocking."""
        stream = self.stream
        if self._closing is not None:
            stream.close(self._closing)
        if self._news:
            self._news = self._stalled = False
            if not self.waiting:
                stream.feed(Input.FELL_BEHIND)
        self.waiting = False
        while stream.state is not State.CLOSED:
            block = self._next()
            if isinstance(block, Next):
                self.waiting = block is Next.WAIT
                return block
            if block is not None:
                return block
        return Next.CLOSED

    def count_bytes(self, size: int) -> None:
        """Note what was handed to the client."""
        self.bytes += size


def _nothing() -> None:
    pass
