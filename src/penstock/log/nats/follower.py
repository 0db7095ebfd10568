"""What the server tells of by itself: each message that was stored, in order, as soon as it is.

It is kept for the next ``read``, within bounds; what is not kept is read from the server. So messages may
be missed and nothing is lost by it: they only wake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from penstock.log.nats.entry import Entry

MAX_ENTRIES = 4_000  # that nobody has read
MAX_BYTES = 8 * 1024 * 1024


class Follower:
    """The newest messages, and who waits for more."""

    def __init__(self) -> None:
        self._recent: deque[Entry] = deque()  # without holes
        self._bytes = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def hear(self, entry: Entry, tip: Entry | None) -> None:
        """Keep an entry, if it is new or follows what is kept.

        Args:
            entry: the entry.
            tip: the newest that was known. A server that was the leader may tell late what never was.
        """
        last = self._recent[-1] if self._recent else None
        follows = last is not None and entry.follows(last)
        is_new = tip is None or entry.place > tip.place or (entry.place, entry.id) == (tip.place, tip.id)
        if last is not None and (entry.place, entry.id) == (last.place, last.id):  # told twice
            return
        if not follows:
            if not is_new:
                return
            if last is not None and entry.first != last.head + 1:  # some were missed
                self.forget()
        self._recent.append(entry)
        self._bytes += len(entry.body)
        if len(self._recent) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self.forget()

    def after(self, seq: int) -> list[Entry]:
        """The entries that follow a seq, if the first of them is here. What is before is forgotten."""
        while self._recent and self._recent[0].head <= seq:
            self._bytes -= len(self._recent.popleft().body)
        if self._recent and self._recent[0].first <= seq + 1:
            return list(self._recent)
        return []

    def forget(self) -> None:
        """Keep nothing of before."""
        self._recent.clear()
        self._bytes = 0

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something has happened that makes the condition true; give its last answer."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.add(turn)
                    try:
                        await turn
                    finally:
                        self._waiting.discard(turn)
        except TimeoutError:
            return condition()
        return True

    def wake(self) -> None:
        """Let all look at their conditions."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
