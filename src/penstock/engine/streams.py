"""The open streams of a process: who they are, how long they may live, what they were given.

Everything here happens on the engine's loop; other threads only read numbers.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

from penstock.core.stream import Closing
from penstock.engine.fanout import Audience, Fanout, Member
from penstock.engine.ring import Ring

LIFETIME_SPREAD = 0.2  # so that the streams of a process do not all end at once
FOREVER = float("inf")
STUCK_S = 1.0  # a client that takes nothing any more has so long to take its farewell


class Open(Member, Protocol):
    """An open stream, whichever kind its sink is of."""

    delivered: int
    bytes: int
    gaps: int

    @property
    def client(self) -> bool:
        """Whether a client is behind it, to which a drain must leave the time of a farewell."""

    @property
    def lagging(self) -> bool:
        """Whether there is more for it than its client has taken."""

    def join(self, audience: Audience) -> None:
        """Hear the news of an audience from now on."""

    def close(self, why: Closing) -> None:
        """End the stream; the first reason stays."""

    def cut(self) -> None:
        """Cut its client off, if that can be done."""


class Streams:
    """The registry of open streams.

    Args:
        fanout: where they hear their news.
        ring: tells up to where news was fanned out.
        lifetime_s: the longest life of a stream, give or take ``LIFETIME_SPREAD``; None for no limit.
    """

    def __init__(self, fanout: Fanout, ring: Ring, lifetime_s: float | None) -> None:
        self._fanout = fanout
        self._ring = ring
        self._lifetime_s = lifetime_s
        self._end_at: dict[Open, float] = {}
        self._gone_delivered = self._gone_bytes = self._gone_gaps = 0  # of streams that are over
        self.draining = False

    @property
    def open(self) -> list[Open]:
        """Those that are open now."""
        return list(self._end_at)

    @property
    def delivered(self) -> int:
        """Events handed to streams, ever."""
        return self._gone_delivered + self._fanout.delivered + sum(stream.delivered for stream in self.open)

    @property
    def bytes(self) -> int:
        """Bytes handed to streams, ever."""
        return self._gone_bytes + self._fanout.bytes + sum(stream.bytes for stream in self.open)

    @property
    def gaps(self) -> int:
        """Gap notices given to streams, ever."""
        return self._gone_gaps + sum(stream.gaps for stream in self.open)

    def join(self, stream: Open) -> None:
        """Add a stream."""
        now = time.monotonic()
        stream.join(self._fanout.join(stream, self._ring.head, now))
        spread = random.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
        self._end_at[stream] = now + self._lifetime_s * spread if self._lifetime_s else FOREVER
        if self.draining:
            self._end_at[stream] = now
            stream.close(Closing.DRAINED)
        stream.news()  # something may have come since it last looked

    def part(self, stream: Open) -> None:
        """Forget a stream, but not what it was given."""
        if self._end_at.pop(stream, None) is not None:
            self._fanout.leave(stream)
        self._gone_delivered += stream.delivered
        self._gone_bytes += stream.bytes
        self._gone_gaps += stream.gaps

    def end_old(self) -> None:
        """End those whose longest life is over, and cut off those that were told to end and do not."""
        if self._lifetime_s is not None or self.draining:
            now = time.monotonic()
            for stream, end_at in self._end_at.items():
                if end_at <= now:
                    stream.close(Closing.OLD)
                if end_at + STUCK_S <= now:
                    stream.cut()

    def cut_all(self) -> None:
        """Cut off those that can be: the process ends."""
        for stream in self._end_at:
            stream.cut()

    def drain(self) -> None:
        """End all, and whoever joins from now on."""
        self.draining = True
        now = time.monotonic()
        for stream in self._end_at:
            self._end_at[stream] = now
            stream.close(Closing.DRAINED)
