"""One stream: where it is, what it still wants, and which state it is in.

A stream has no queue. It has a position, and whoever drives it hands it the records that follow; the
stream keeps those that it subscribed to, notices what is missing, and tells when it is over. The same
object serves every door. The loop, the thread or the coroutine that drives it is its only user.

The states and what moves a stream between them::

    REPLAYING ──caught up──► LIVE ◄──caught up── LAGGING
                              └──────fell behind────►┘         any ──close──► CLOSED
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from penstock.core.channel import Subscription
from penstock.core.position import Bounds, Gap, GapReason, Position, find_gap
from penstock.core.wire import Entry, Item


class State(Enum):
    """What a stream is doing."""

    REPLAYING = "replaying"  # reads what it missed, at its own pace
    LIVE = "live"  # has everything, waits for news
    LAGGING = "lagging"  # news came before it had taken the last; reads at its own pace again
    CLOSED = "closed"  # over


class Input(Enum):
    """What can happen to a stream."""

    CAUGHT_UP = "caught up"  # it has all that there is
    FELL_BEHIND = "fell behind"  # there is news, and its sink is still busy
    CLOSE = "close"


class Closing(Enum):
    """Why a stream is over."""

    ENDED = "its channels have ended"
    DRAINED = "the server drains"
    LEFT = "the client left"
    OLD = "its longest life is over"
    SLICED = "it was a bounded answer"
    FAILED = "an error"
    EXPIRED = "the right to read it has ended"
    KICKED = "its user was kicked"


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.REPLAYING, Input.CAUGHT_UP): State.LIVE,
    (State.REPLAYING, Input.FELL_BEHIND): State.REPLAYING,
    (State.REPLAYING, Input.CLOSE): State.CLOSED,
    (State.LIVE, Input.CAUGHT_UP): State.LIVE,
    (State.LIVE, Input.FELL_BEHIND): State.LAGGING,
    (State.LIVE, Input.CLOSE): State.CLOSED,
    (State.LAGGING, Input.CAUGHT_UP): State.LIVE,
    (State.LAGGING, Input.FELL_BEHIND): State.LAGGING,
    (State.LAGGING, Input.CLOSE): State.CLOSED,
    # A wake-up may still be under way when a stream is closed, and a close may come from two sides.
    (State.CLOSED, Input.CAUGHT_UP): State.CLOSED,
    (State.CLOSED, Input.FELL_BEHIND): State.CLOSED,
    (State.CLOSED, Input.CLOSE): State.CLOSED,
}


class Stream:
    """A subscription on its way through a log.

    Args:
        subscription: what it follows.
        position: it wants every record after this.
        ended: channels of the subscription that had ended at that position; if that is all that it
            follows, it is over from the start.
    """

    __slots__ = ("closing", "ended", "epoch", "seq", "state", "subscription")

    def __init__(
        self, subscription: Subscription, position: Position, ended: frozenset[str] = frozenset()
    ) -> None:
        self.subscription = subscription
        self.epoch = position.epoch
        self.seq = position.seq
        self.ended = ended  # nearly always the one empty set: a stream is to cost little
        self.state = State.REPLAYING
        self.closing: Closing | None = None
        if self.over:
            self.close(Closing.ENDED)

    def __repr__(self) -> str:
        return f"<Stream {self.subscription} {self.state.value} at {self.position}>"

    @property
    def position(self) -> Position:
        """Every record up to here was taken or is not this stream's."""
        return Position(self.epoch, self.seq)

    @property
    def over(self) -> bool:
        """Whether every channel that it can ever hear of has ended."""
        wants = self.subscription
        return not wants.patterns and self.ended >= wants.channels

    def feed(self, what: Input) -> None:
        """Move to the next state."""
        self.state = TRANSITIONS[self.state, what]

    def close(self, why: Closing) -> None:
        """End the stream. The first reason stays."""
        if self.closing is None:
            self.closing = why
        self.feed(Input.CLOSE)

    def accept(self, entries: Sequence[Entry]) -> list[Item]:
        """Take records in the order of the log.

        Those at or before the position are passed over, so what comes twice is taken once. A hole is a
        gap notice: the log no longer has what was there. Nothing is taken from another epoch on: where
        to go on there only ``check`` can tell.

        Returns:
            What is to be delivered. After the end of the last channel nothing more is, and the stream
            is closed.
        """
        items: list[Item] = []
        covers = self.subscription.covers
        for entry in entries:
            record = entry.record
            if record.epoch != self.epoch:
                break
            if record.seq <= self.seq:
                continue
            if record.seq > self.seq + 1:
                resumes = Position(self.epoch, record.seq - 1)
                items.append(Gap(GapReason.EXPIRED, str(self.position), resumes))
            self.seq = record.seq
            if not covers(record.channel):
                continue
            items.append(entry)
            if record.end:
                self.ended |= {record.channel}
                if self.over:
                    self.close(Closing.ENDED)
                    break
            elif self.ended:
                self.ended -= {record.channel}  # published to again after its end
        return items

    def skip_to(self, seq: int) -> None:
        """Go on to a place, when it is known that nothing on the way there is this stream's."""
        self.seq = max(self.seq, seq)

    def back_to(self, seq: int) -> None:
        """Go back to a record that was taken, since what came after it was not delivered.

        No end of a channel may be among what is taken back.
        """
        self.seq = seq

    def check(self, bounds: Bounds) -> Gap | None:
        """Compare the position with what a log holds, and go on where the log can.

        Returns:
            The gap that was jumped, or None if there is none.
        """
        gap = find_gap(self.position, bounds)
        if gap is not None:
            self.epoch, self.seq = gap.resumes.epoch, gap.resumes.seq
            if gap.reason is GapReason.EPOCH:
                self.ended = frozenset()
        return gap
