"""Removes the oldest records, in two steps: they are hidden, and then their messages are purged.

A message without events says up to which seq all is trimmed. It is added as any other is, so the bounds are
exact at any moment, for all who look, also within a message and when nothing is left. Then JetStream removes
what lies before the first message that is still needed. Whoever dies in between, the next trim purges.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.log.base import Retention
from penstock.log.nats.chain import Chain
from penstock.log.nats.entry import Entry
from penstock.log.nats.reader import Reader
from penstock.log.nats.stream import Message, Stream

PURGE_STEP = 20_000  # messages that are removed at once: publishers wait no longer for it


class Trimming:
    """One trim.

    Args:
        stream: the stream.
        chain: the log's.
        reader: the log's.
        retention: what it keeps.
    """

    def __init__(self, stream: Stream, chain: Chain, reader: Reader, retention: Retention) -> None:
        self._stream = stream
        self._chain = chain
        self._reader = reader
        self._retention = retention
        self._expired = 0  # records up to this one are, in the epoch where that was found

    async def run(self) -> int:
        """Trim. Tells how many records it removed."""
        tip = await self._chain.refresh()
        first = await self._stream.at_or_after(1) or tip
        epoch = tip.epoch
        self._expired = await self._find(tip, first)

        async def hide(tip: Entry, look: bool) -> list[Message]:
            if tip.epoch != epoch or self._expired <= tip.trimmed:
                return []
            entry = tip.next(time.time(), trimmed=self._expired)
            return [Message(self._stream.subjects.state, entry)]

        tip, messages = await self._chain.commit(hide)
        await self._purge(messages[-1].entry if messages else tip, first)
        return self._expired - tip.trimmed if messages else 0

    async def _find(self, tip: Entry, first: Entry) -> int:
        """Up to which seq the records are expired."""
        age_s, events, size = self._retention
        expired = tip.trimmed
        if events is not None:
            expired = max(expired, tip.head - events)
        if age_s is not None:
            expired = max(
                expired, await self._before(lambda entry: entry.time, time.time() - age_s, tip, first)
            )
        if size is not None:
            expired = max(
                expired, await self._before(lambda entry: entry.size, tip.end_size - size, tip, first)
            )
        return min(expired, tip.head)

    async def _before(self, measure: Callable[[Entry], float], goal: float, tip: Entry, first: Entry) -> int:
        """The newest record before the first message that measures so much."""
        if measure(first) >= goal:
            return 0
        if measure(tip) < goal:
            return tip.head
        entry = await self._reader.find(lambda entry: -1 if measure(entry) < goal else 1, tip, measure, goal)
        return entry.first - 1

    async def _purge(self, tip: Entry, first: Entry) -> None:
        """Remove the messages of which nothing is needed; signposts are, of a message that is."""
        if first.head > tip.trimmed:
            return
        needed = tip.place
        if tip.trimmed < tip.head:
            entry = await self._reader.locate(tip.trimmed + 1, tip)
            needed = entry.place - entry.signposts
        for before in range(first.place + PURGE_STEP, needed, PURGE_STEP):
            await self._stream.purge(before)
        if first.place < needed:
            await self._stream.purge(needed)
