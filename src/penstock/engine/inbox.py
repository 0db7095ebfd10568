"""News on its way from other threads to the engine's loop.

Whatever is queued when the loop comes to it is taken in one turn, so under load many appends cost one
wake-up and one fan-out. What publishers of this process bring faster than the loop takes it is not kept
here beyond a limit: it rests in the log, and the tail reads it in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from penstock import threads
from penstock.core.position import Bounds
from penstock.core.record import Record

MAX_QUEUED_EVENTS = 10_000  # as many as the ring has by default; more would be dropped from it unread
LOOK_S = 0.5  # how often whoever waits looks whether the inbox was closed


class Moved(NamedTuple):
    """The log is to be followed from elsewhere: after ``head``."""

    bounds: Bounds
    head: int


News = Moved | list[Record]


class Inbox:
    """A queue that any thread puts into, and the loop empties.

    Args:
        call_on_loop: lets the loop call something; nothing happens once the loop is closed.
        take: takes what was queued, in order; called on the loop.
    """

    def __init__(
        self,
        call_on_loop: Callable[[Callable[[], None]], object],
        take: Callable[[list[News]], None],
    ) -> None:
        self._call_on_loop = call_on_loop
        self._take = take
        self._queue: deque[tuple[News, threads.Event | None]] = deque()
        self._mutex = threads.Lock()  # guards the number of records that put() has queued
        self._queued = 0
        self._scheduled = False
        self._closed = False

    def put(self, records: list[Record]) -> None:
        """Queue records of this process and return at once; they are dropped if too many wait."""
        with self._mutex:
            if self._queued and self._queued + len(records) > MAX_QUEUED_EVENTS:
                return
            self._queued += len(records)
        self._put(records, None)

    def put_and_wait(self, news: News) -> None:
        """Queue news and return once it was taken, or once the inbox is closed."""
        taken = threads.Event()
        self._put(news, taken)
        while not (taken.wait(LOOK_S) or self._closed):
            pass

    def close(self) -> None:
        """Nobody takes any more; whoever waits is let go."""
        self._closed = True

    def _put(self, news: News, taken: threads.Event | None) -> None:
        self._queue.append((news, taken))
        if not self._scheduled:
            self._scheduled = True
            self._call_on_loop(self._empty)

    def _empty(self) -> None:
        self._scheduled = False  # before looking: what is queued from here on schedules anew
        queued: list[News] = []
        waiting: list[threads.Event] = []
        while self._queue:
            news, taken = self._queue.popleft()
            queued.append(news)
            if taken is not None:
                waiting.append(taken)
            elif isinstance(news, list):
                with self._mutex:
                    self._queued -= len(news)
        try:
            self._take(queued)
        finally:
            for taken in waiting:
                taken.set()
