"""Finds records in the stream, and reads on from there.

A message holds any number of records and each says which, so the message of a seq is searched for: by a
guess, then between what is known, as a name in a telephone book. Who reads on, which is the rule, goes on
where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count, pairwise
from typing import NamedTuple

from penstock.core.position import Bounds
from penstock.log.base import READ_BYTES
from penstock.log.nats.api import Consumer
from penstock.log.nats.chain import Chain
from penstock.log.nats.entry import Entry
from penstock.log.nats.errors import NoResponders
from penstock.log.nats.stream import Stream

Compare = Callable[[Entry], int]

_LANES = 8  # that go on where they were; to begin anew takes some round trips
_GROWTH = 16  # so many times what was read may be asked for next
_MOST = 4  # times READ_BYTES is what the server may send at once


class Found(NamedTuple):
    """What was read.

    Attributes:
        tip: the newest entry at that time.
        entries: messages without holes between their records.
    """

    tip: Entry
    entries: list[Entry]


class _Lane:
    """One who reads on, and is likely to come back for what follows.

    Attributes:
        epoch: of the log where it began.
        passed: the seq up to which it was read.
        entries: what the server has sent and was not read.
    """

    def __init__(self, stream: Stream, entry: Entry) -> None:
        self._stream = stream
        self._consumer: Consumer | None = None
        self._place = entry.place  # of the newest that was sent
        self.passed = entry.first - 1
        self.entries = [entry]

    @property
    def head(self) -> int:
        """The newest record that the server has sent."""
        return self.entries[-1].head if self.entries else self.passed

    def pass_by(self, seq: int) -> None:
        """Forget what was read."""
        while self.entries and self.entries[0].head <= seq:
            self.passed = self.entries.pop(0).head

    async def fill(self, upto: int) -> bool:
        """Let the server send what is wanted. False if it cannot go on from here."""
        size = sum(len(entry.body) for entry in self.entries)
        while self.head < upto and size < READ_BYTES:
            if self._consumer is None:
                self._consumer = await self._stream.consumer(self._place + 1, self._stream.subjects.log)
            # As if what comes were like what came; at first nobody knows.
            events = max(1, self.head - self.passed)
            known = max(1, len(self.entries))
            wanted = min(_GROWTH * known, 1 + (upto - self.head) * known // events)
            try:
                found = await self._consumer.next(wanted, _MOST * READ_BYTES)
            except NoResponders:  # it was away for so long that the server forgot it
                return False
            true = await self._true_of(found)
            for entry in true:
                if entry.first != self.head + 1:  # trimmed just now, or removed by hand
                    return False
                self.entries.append(entry)
                self._place = entry.place
                size += len(entry.body)
            if not found or len(true) < len(found):
                return False
        return True

    async def _true_of(self, found: list[Entry]) -> list[Entry]:
        """What the leader of a replicated stream has too of what one of its servers sent.

        One that was the leader, was cut off and came back may have stored what never was; so what it
        sends must lead to a message of the leader's, each naming the one before.
        """
        if not self._stream.replicated or not found:
            return found
        ends = [n for n, (one, after) in enumerate(pairwise(found)) if not after.follows(one)]
        ends.append(len(found) - 1)
        kept = 0
        for end, entry in zip(
            ends, await self._stream.get_all([{"seq": found[n].place} for n in ends]), strict=True
        ):
            if entry is None or entry.id != found[end].id:
                break
            kept = end + 1
        return found[:kept]

    async def end(self) -> None:
        if self._consumer is not None:
            await self._consumer.end()


class Reader:
    """Reads messages by the seqs of their records. All of it happens on the log's loop.

    Args:
        stream: the stream.
        chain: the log's.
    """

    def __init__(self, stream: Stream, chain: Chain) -> None:
        self._stream = stream
        self._chain = chain
        self._below: Entry | None = None  # lies before most of what is wanted
        self._oldest = 0, 1  # the first place of the stream, and the first record from there on
        self._lanes: list[_Lane] = []  # the latest last
        self._lanes_of = 0, ""  # which connection and epoch

    async def read(self, after: int, limit: int) -> Found:
        """The messages that hold what follows a seq, about as many as the limit needs."""
        tip = self._chain.tip
        if tip is not None and (heard := self._chain.follower.after(max(after, tip.trimmed))):
            return Found(tip, heard)
        tip = await self._chain.refresh()
        passed = max(after, tip.trimmed)
        if passed >= tip.head or limit <= 0:
            return Found(tip, [])
        if tip.first <= passed + 1:
            return Found(tip, [tip])
        lane = self._take_lane(passed, tip)
        goes_on = lane is not None and await lane.fill(min(passed + limit, tip.head))
        if lane is None or not lane.entries:
            lane = _Lane(self._stream, await self.locate(passed + 1, tip))
            goes_on = await lane.fill(min(max(passed, lane.passed) + limit, tip.head))
        entries = [entry for entry in lane.entries if entry.place <= tip.place]
        if goes_on:
            self._lanes.append(lane)
        if not goes_on or len(self._lanes) > _LANES:
            await (self._lanes.pop(0) if goes_on else lane).end()
        return Found(tip, entries)

    def _take_lane(self, passed: int, tip: Entry) -> _Lane | None:
        """The lane of one who has read up to here."""
        of = self._chain.connection_number, tip.epoch
        if of != self._lanes_of:
            self._lanes_of, self._lanes = of, []
        for lane in self._lanes:
            if lane.passed <= passed <= lane.head:
                self._lanes.remove(lane)
                lane.pass_by(passed)
                return lane
        return None

    async def bounds(self) -> Bounds:
        """What the log holds now. What somebody removed from the stream by hand is trimmed as well."""
        tip, found = await asyncio.gather(self._chain.refresh(), self._stream.look())
        if found is not None and found.first != self._oldest[0]:
            entry = await self._stream.at_or_after(found.first)
            self._oldest = found.first, entry.first if entry is not None else 1
        first = min(max(tip.trimmed + 1, self._oldest[1]), tip.head + 1)
        return Bounds(tip.epoch, first, tip.head)

    async def locate(self, seq: int, tip: Entry) -> Entry:
        """The message with a record; if that is gone, the first that follows."""

        def compare(entry: Entry) -> int:
            return -1 if entry.head < seq else 0 if entry.first <= seq else 1

        return await self.find(compare, tip, lambda entry: entry.first, seq)

    async def find(
        self, compare: Compare, tip: Entry, measure: Callable[[Entry], float], goal: float
    ) -> Entry:
        """A message, or the first beyond if it is gone.

        Args:
            compare: negative for one that lies before it, 0 for itself, positive for one beyond.
            tip: the newest, which does not lie before it.
            measure: something that grows along the stream, by which the place is guessed.
            goal: what the measure is there, about.
        """
        if compare(self._below or tip) >= 0:
            self._below = await self._stream.at_or_after(1)
        below, best = self._below or tip, tip
        if compare(below) >= 0:
            return below
        high = tip.place - 1  # it is the best so far, or lies up to here
        for turn in count(1):
            low = below.place + 1
            if low > high:
                break
            middle = (low + high) // 2
            rise = measure(best) - measure(below)
            if turn % 3 and rise > 0:
                share = (goal - measure(below)) / rise
                middle = min(high, max(low, below.place + int(share * (best.place - below.place))))
            entry = await self._stream.at_or_after(middle) or tip
            side = compare(entry)
            if side < 0:
                below = entry
            else:
                best, high = entry, middle - 1
            if side == 0:
                break
        return best
