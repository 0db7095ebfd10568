"""The newest events of a log, for a page: so many are read and no more, however long the log is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.log.base import History, Log

LOOKED_AT = 1_000  # events, of which the page tells the channels
LOOKED_AT_BYTES = 4 * 1024 * 1024  # of data: a few large events are enough
STEP = 50  # so that a read of events as large as can be stays small
SHOWN = 100

_ALL = Subscription(["**"])  # Penstock's own channels are not among them


class Channel(NamedTuple):
    """A channel that has recent events.

    Attributes:
        name: its name.
        events: how many of the events looked at are its.
        newest: the newest of them.
    """

    name: str
    events: int
    newest: Record


class Recent(NamedTuple):
    """What a page shows.

    Attributes:
        records: the newest events, newest first; those of one channel where one is asked for.
        channels: those of the events looked at, by the newest event of each.
        looked_at: how many events that were.
        bounds: what the log has in all.
    """

    records: Sequence[Record]
    channels: Sequence[Channel]
    looked_at: int
    bounds: Bounds


def look(log: Log, channel: str | None = None) -> Recent:
    """Look at the newest events of a log.

    Args:
        log: the log.
        channel: show those of this channel alone. A log with an index finds them however old they are.

    Raises:
        LogError: if it cannot be read.
    """
    bounds = log.bounds()
    newest = _newest(log, bounds)
    shown = [record for record in newest if channel in (None, record.channel)]
    if channel is not None and isinstance(log, History):
        shown = log.latest(Subscription([channel]), SHOWN, ends=True)[::-1]
    return Recent(shown[:SHOWN], _channels(newest), len(newest), bounds)


def _newest(log: Log, bounds: Bounds) -> list[Record]:
    """The newest events, newest first."""
    found: list[Record] = []
    size, upto = 0, bounds.head
    while upto >= bounds.first and len(found) < LOOKED_AT and size < LOOKED_AT_BYTES:
        after = max(bounds.first - 1, upto - STEP)
        step: list[Record] = []
        while after < upto and (records := log.read(after, upto - after)):
            step += [each for each in records if each.seq <= upto and each.epoch == bounds.epoch]
            after = records[-1].seq
        size += sum(len(record.data) for record in step)
        found += [record for record in reversed(step) if _ALL.covers(record.channel)]
        upto -= STEP
    return found[:LOOKED_AT]


def _channels(newest: Sequence[Record]) -> list[Channel]:
    found: dict[str, Channel] = {}
    for record in newest:
        known = found.get(record.channel, Channel(record.channel, 0, record))
        found[record.channel] = known._replace(events=known.events + 1)
    return list(found.values())
