"""What a stream is given next: from its audience's turn, from the ring, or from the log.

Both kinds of sink read through this. What comes out of memory comes at once; where the log must be read,
``read`` is to be called where blocking does no harm.
"""

from __future__ import annotations

from enum import Enum

from penstock.core.position import Gap
from penstock.core.stream import Closing, Input, Stream
from penstock.core.wire import Block, Entry, Item
from penstock.engine.fanout import Audience
from penstock.engine.ring import Ring
from penstock.errors import LogUnavailable
from penstock.log.base import Log

STEP_EVENTS = 500  # records looked at between two looks at everything else


class Next(Enum):
    """What is to be done when there is no block."""

    READ = "call read()"
    WAIT = "wait for news"
    CLOSED = "it is over; see the stream's closing"


class Feed:
    """One stream's way to its events.

    Args:
        log: what it reads where memory is not enough.
        ring: the newest records, in memory.
        stream: the stream; from now on only its driver touches it.
    """

    __slots__ = (
        "_beat",
        "_closing",
        "_log",
        "_ring",
        "_stalled",
        "audience",
        "bytes",
        "delivered",
        "gaps",
        "stream",
        "subscription",
    )

    def __init__(self, log: Log, ring: Ring, stream: Stream) -> None:
        self._log = log
        self._ring = ring
        self.stream = stream
        self.subscription = stream.subscription
        self.audience: Audience | None = None  # written by the loop
        self._beat = 0
        self._stalled = False  # the log could not be read; the next news may change that
        self._closing: Closing | None = None
        self.delivered = 0
        self.bytes = 0
        self.gaps = 0

    def join(self, audience: Audience) -> None:
        """Hear the news of an audience from now on; called by the loop."""
        self._beat = audience.beat  # earlier keep-alives were not for this stream
        self.audience = audience

    def read(self) -> Block | None:
        """Read on in the log, blocking. None if nothing came of it, and then look or wait again.

        Raises:
            LogError: if the log cannot be read and waiting will not mend it.
        """
        stream = self.stream
        try:
            records = self._log.read(stream.seq, STEP_EVENTS)
            if records and records[0].epoch == stream.epoch:
                return self._block(stream.accept([Entry(record) for record in records]))
            bounds = self._log.bounds()
        except LogUnavailable:
            self._stalled = True  # the tail wakes everybody when the log is back
            return None
        # Only the log can tell which epoch is the new one: the ring may still be of the old one, and its
        # move to the new one wakes everybody.
        gap = stream.check(bounds)
        self._stalled = gap is None
        return self._block([gap]) if gap is not None else None

    def _next(self) -> Block | Next | None:
        """A block; what to do instead; or None after a step that brought nothing."""
        stream, ring, audience = self.stream, self._ring, self.audience
        turn = audience.turn if audience is not None else None
        if (
            turn is not None
            and turn.epoch == stream.epoch
            and turn.after <= stream.seq <= turn.before
            and not (turn.ends or stream.ended)
        ):
            stream.skip_to(turn.upto)
            self.delivered += turn.events
            return turn.block
        entries = ring.after(stream.epoch, stream.seq, STEP_EVENTS)
        if entries:
            return self._block(stream.accept(entries))
        if entries is not None:
            stream.feed(Input.CAUGHT_UP)
        if audience is not None and audience.beat != self._beat:
            self._beat = audience.beat
            return Block([stream.position])
        return Next.WAIT if entries is not None or self._stalled else Next.READ

    def _block(self, items: list[Item]) -> Block | None:
        if not items:
            return None
        block = Block(items)
        self.delivered += block.events
        self.gaps += sum(isinstance(item, Gap) for item in items)
        return block
