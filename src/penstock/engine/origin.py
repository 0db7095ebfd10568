"""Where a stream begins: what its client has had, and what its view asks for.

A client that comes back (``Last-Event-ID``) goes on from its position; what the view asks for is for
clients that come for the first time, or whose position means nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from penstock.core.channel import Subscription
from penstock.core.position import Bounds, Gap, GapReason, Position, find_gap
from penstock.errors import ConfigError, MalformedPosition
from penstock.log.base import Log, latest

Earliest = Literal["earliest"]
MAX_LAST = 10_000  # more is no history for a page: replay from a position instead


class Origin(NamedTuple):
    """Where a stream begins.

    Attributes:
        position: what follows it is delivered.
        gap: what the client has to be told first.
        ended: channels that had ended there.
    """

    position: Position
    gap: Gap | None
    ended: frozenset[str]


class Wish(NamedTuple):
    """What a view asks for; see ``check_wish``."""

    after: Position | Earliest | None = None
    last: int | None = None


def check_wish(after: Position | str | None, last: int | None) -> Wish:
    """Read the arguments ``after`` and ``last`` of the public API.

    Raises:
        ConfigError: if both are given, or ``last`` is no number of events.
        MalformedPosition: if ``after`` is text but neither a position nor ``earliest``.
    """
    if after is not None and last is not None:
        raise ConfigError("a stream begins after a position or with the last N events, not both")
    if last is not None and (type(last) is not int or not 0 <= last <= MAX_LAST):
        raise ConfigError(f"last is a whole number from 0 to {MAX_LAST}, not {last!r}")
    if after is None or isinstance(after, Position):
        return Wish(after, last)
    if after == "earliest":
        return Wish("earliest", last)
    if isinstance(after, str):
        return Wish(Position.parse(after), last)
    raise MalformedPosition(f"after is a position or 'earliest', not {after!r}")


def find_origin(
    log: Log, known: Bounds, subscription: Subscription, wish: Wish, last_event_id: str | None
) -> Origin:
    """Decide where a stream begins. May block: the log is read where memory is not enough.

    Args:
        log: the log.
        known: what the ring knows of it; its head may be a little behind.
        subscription: what the stream follows.
        wish: where it begins if its client has no position.
        last_event_id: what the client says it had last; a stranger wrote it. None if it said nothing.
    """
    if last_event_id is not None:
        try:
            position = Position.parse(last_event_id)
        except MalformedPosition:
            fresh = find_origin(log, known, subscription, wish, None)
            unread = Gap(GapReason.MALFORMED, last_event_id[:64], fresh.position)
            return fresh._replace(gap=unread)
    elif isinstance(wish.after, Position):
        position = wish.after
    else:
        position = _begin(log, subscription, wish)
    gap = find_gap(position, known)
    if gap is not None:  # what looks like a gap may be news that the ring has not had yet
        gap = find_gap(position, log.bounds())
    if gap is not None:
        position = gap.resumes
    return Origin(position, gap, _ended(log, subscription, position))


def _begin(log: Log, subscription: Subscription, wish: Wish) -> Position:
    bounds = log.bounds()  # of the log: the ring may not have had yet what was published just before
    if wish.after == "earliest":
        return Position(bounds.epoch, bounds.first - 1)
    if wish.last:
        records = latest(log, subscription, wish.last, ends=False)
        if records:
            return Position(records[0].epoch, records[0].seq - 1)
    return Position(bounds.epoch, bounds.head)  # what came while ``latest`` looked is not passed over


_NONE: frozenset[str] = frozenset()  # one for all: each stream keeps what it is given


def _ended(log: Log, subscription: Subscription, position: Position) -> frozenset[str]:
    """The channels whose newest record is their end, and is one the client has had."""
    ended = set()
    for channel in subscription.channels:
        newest = latest(log, Subscription([channel]), 1, ends=True)
        if newest and newest[0].end and newest[0].seq <= position.seq:
            ended.add(channel)
    return frozenset(ended) if ended else _NONE
