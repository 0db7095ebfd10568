"""A log in Redis or Valkey, for the processes of many machines.

One stream holds the events, in blocks (see ``blocks``), one hash what is known of the log as a whole.
Scripts change both in one atomic step; they give out the seqs, so these are dense and in the order in which
things were stored. The time of a record is the server's: one clock for all. ``docs/redis.md`` says what
survives what.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.log.base import READ_BYTES, Appended, Log, Retention
from penstock.log.redis.append import Writer
from penstock.log.redis.blocks import decode, size_of
from penstock.log.redis.client import Client
from penstock.log.redis.follow import Follower
from penstock.log.redis.line import Line
from penstock.log.redis.scripts import State
from penstock.log.redis.target import Target

# A step of trimming takes a millisecond or so, for which nobody else is served; and what a script has read
# counts as memory of the server until its garbage is collected.
TRIM_BLOCKS, TRIM_BYTES = 256, 512 * 1024
# What one answer may hold, if all its blocks were as large as the largest there ever was.
ANSWER_BYTES, FEW_BLOCKS = 8 * READ_BYTES, 16


class RedisLog(Log):
    """See ``Log``.

    Args:
        target: which log, and how to reach it; ``url.target_of`` reads it from a URL.
    """

    def __init__(self, target: Target) -> None:
        self.url = target.url
        self._client = Client(target)
        self._writer = Writer(self._client)
        self._follower = Follower(self._client, self._writer.own)

    def open(self, *, renew: str | None = None) -> None:
        self._follower.forget_ahead()
        if renew is None:
            self._client.do("open the log", self._client.look)
        else:
            self._client.do("begin a new epoch", partial(self._client.look, renew=renew))

    def exists(self) -> bool:
        """See ``Findable.exists``."""

        def find(line: Line) -> bool:
            return bool(line.ask(("EXISTS", self._client.log_key))[0])

        return self._client.do("find the log", find, greet=False)

    def append(self, events: Sequence[Event]) -> Appended:
        self._follower.forget_ahead()
        return self._writer.append(events)

    def read(self, after: int, limit: int) -> list[Record]:
        ahead = self._follower.take_ahead(after)
        if found := _fitting(ahead, limit):
            return found
        return self._client.do(f"read after {after}", partial(self._read, after, max(0, limit)))

    def bounds(self) -> Bounds:
        self._follower.forget_ahead()
        state = self._client.do("find the bounds", self._client.look)
        return Bounds(state.epoch, state.trimmed + 1, state.head)

    def wait(self, after: int) -> None:
        self._follower.forget_ahead()
        self._follower.wait(after)

    def trim(self, retention: Retention) -> int:
        self._follower.forget_ahead()
        limits = ["" if limit is None else repr(limit) for limit in retention]

        def step(line: Line) -> int:
            blocks = max(1, min(TRIM_BLOCKS, TRIM_BYTES // max(1, self._client.known.largest)))
            return int(self._client.run(line, "trim", *limits, blocks)[1][0])

        removed = 0
        while gone := self._client.do("trim", step):
            removed += gone
        return removed

    def close(self) -> None:
        self._client.close()
        self._follower.close()

    def _read(self, after: int, limit: int, line: Line) -> list[Record]:
        found: list[Record] = []
        at, like = after, _Amount.of(self._client.known)
        while True:
            count = like.blocks_for(limit - len(found), self._client.known.largest)
            state, entries = self._client.blocks(line, at, count)
            if found and (state.epoch != found[0].epoch or state.trimmed > at):
                return found
            more = decode(entries, state.epoch, max(at, state.trimmed))
            found += more
            fitting = _fitting(found, limit)
            if len(entries) < count or len(fitting) < len(found) or len(found) == limit:
                return fitting
            at, like = found[-1].seq, _Amount(len(entries), len(more), size_of(entries))


class _Amount(NamedTuple):
    """So much of a log, by which the rest of it is judged."""

    blocks: int
    events: int
    bytes: int

    @classmethod
    def of(cls, state: State) -> _Amount:
        return cls(state.blocks, state.head - state.trimmed, state.bytes)

    def blocks_for(self, events: int, largest: int) -> int:
        """How many blocks are likely to have so many events, but not many more bytes than a read may give."""
        if not self.blocks:
            return FEW_BLOCKS
        wanted = min(
            events * self.blocks / max(1, self.events), READ_BYTES * self.blocks / max(1, self.bytes)
        )
        return min(int(wanted) + 1, max(FEW_BLOCKS, ANSWER_BYTES // max(1, largest)))


def _fitting(records: list[Record], limit: int) -> list[Record]:
    """As many as one read may give."""
    if len(records) > limit:
        records = records[: max(0, limit)]
    if sum([len(record.data) for record in records]) <= READ_BYTES:
        return records
    size = 0
    for index, record in enumerate(records):
        size += len(record.data)
        if size > READ_BYTES and index:
            return records[:index]
    return records
