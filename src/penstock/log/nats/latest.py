"""The newest records of some channels, by JetStream's index of subjects.

Under the subject of a channel lie messages with its events, or signposts to such. They are counted by the
server from some place on, further and further back, until there are enough.
"""

from __future__ import annotations

from penstock.core.channel import Subscription
from penstock.core.record import Record
from penstock.log.nats.chain import Chain
from penstock.log.nats.entry import Entry
from penstock.log.nats.stream import Stream

_FIRST_SPAN = 16  # places that are looked at first
_FURTHER = 8  # times as many the next time
_ENOUGH = 4  # times as many messages as are wanted are no waste


class Latest:
    """Finds them. All of it happens on the log's loop.

    Args:
        stream: the stream.
        chain: the log's.
    """

    def __init__(self, stream: Stream, chain: Chain) -> None:
        self._stream = stream
        self._chain = chain

    async def find(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """See ``History.latest``."""
        tip = await self._chain.refresh()
        if not limit:
            return []
        subjects = self._stream.subjects
        filters = [subject for name in subscription.channels for subject in subjects.of_channel(name)]
        filters += [subject for pattern in subscription.patterns for subject in subjects.of_pattern(pattern)]
        newest = await self._stream.get_all([{"last_by_subj": subject} for subject in filters])
        found: dict[int, Record] = {}
        for subject, sign in zip(filters, newest, strict=True):
            if sign is None:
                continue
            records = await self._records([sign], tip, subscription, ends)
            messages = limit
            is_all = False
            while len(records) < limit and not is_all:  # ends and other channels are not counted
                signs, is_all = await self._newest(subject, messages, sign)
                records = await self._records(signs, tip, subscription, ends)
                messages *= _ENOUGH
            found |= records
        return [found[seq] for seq in sorted(found)[-limit:]]

    async def _newest(self, subject: str, wanted: int, last: Entry) -> tuple[list[Entry], bool]:
        """The newest messages under a subject, at least so many; and whether these are all."""
        too_short, too_long = 0, 0  # spans of places
        span = max(_FIRST_SPAN, wanted)
        while True:
            first = max(1, last.place - span + 1)
            there = await self._stream.consumer(first, subject)
            try:
                if there.pending > max(_FIRST_SPAN, _ENOUGH * wanted):
                    too_long = span
                elif there.pending < wanted and first > 1:
                    too_short = span
                else:
                    return await there.next(there.pending), first == 1
            finally:
                await there.end()
            span = (too_short + too_long) // 2 if too_long else _FURTHER * span

    async def _records(
        self, signs: list[Entry], tip: Entry, subscription: Subscription, ends: bool
    ) -> dict[int, Record]:
        """The records to which messages lead, by their seqs."""
        entries = {sign.place: sign for sign in signs if not sign.left}
        missing = {sign.place + sign.left for sign in signs} - set(entries)
        for entry in await self._stream.get_all([{"seq": place} for place in missing]):
            if entry is not None:
                entries[entry.place] = entry
        return {
            record.seq: record
            for entry in entries.values()
            for record in entry.records(tip.epoch, tip.trimmed)
            if (ends or not record.end) and subscription.covers(record.channel)
        }
