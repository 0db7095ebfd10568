"""The open streams of a process: who they are, how long they may live, what they were given.

A stream whose right ends at some time has a timer of its own, so that it gets nothing after it.

Everything here happens on the engine's loop; other threads only read numbers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from penstock.core.rights import FREE, Rights, StreamInfo
from penstock.core.stream import Closing
from penstock.engine.fanout import Audience, Fanout, Member
from penstock.engine.ring import Ring

LIFETIME_SPREAD = 0.2  # so that the streams of a process do not all end at once
FOREVER = float("inf")
LONGEST_TIMER_S = 3600.0  # then the wall clock is looked at again, which may have been set meanwhile
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


class Timer(Protocol):
    """Something that will be called."""

    def cancel(self) -> None:
        """Do not call it."""


Judge = Callable[[StreamInfo], bool]
CallLater = Callable[[float, Callable[[], None]], Timer]


class Streams:
    """The registry of open streams.

    Args:
        fanout: where they hear their news.
        ring: tells up to where news was fanned out.
        lifetime_s: the longest life of a stream, give or take ``LIFETIME_SPREAD``; None for no limit.
        call_later: calls something after so many seconds.
    """

    def __init__(self, fanout: Fanout, ring: Ring, lifetime_s: float | None, call_later: CallLater) -> None:
        self._fanout = fanout
        self._ring = ring
        self._lifetime_s = lifetime_s
        self._call_later = call_later
        self._end_at: dict[Open, float] = {}
        self._rights: dict[Open, Rights] = {}  # of those that something was said of
        self._timers: dict[Open, Timer] = {}
        self.was_kicked: Judge = _nobody  # whether a stream was, just before it was opened
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

    def join(self, stream: Open, rights: Rights = FREE) -> None:
        """Add a stream.

        Args:
            stream: the stream.
            rights: the right to read it.
        """
        now = time.monotonic()
        stream.join(self._fanout.join(stream, self._ring.head, now))
        spread = random.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
        self._end_at[stream] = now + self._lifetime_s * spread if self._lifetime_s else FOREVER
        if self.draining:
            self._end_at[stream] = now
            stream.close(Closing.DRAINED)
        if rights is not FREE:
            self._rights[stream] = rights
            self._expire(stream)
        if self.was_kicked(StreamInfo.of(stream.subscription, rights)):
            stream.close(Closing.KICKED)
        stream.news()  # something may have come since it last looked

    def listen(self, stream: Open) -> None:
        """Let a stream that is not one of a client's hear its news."""
        stream.join(self._fanout.join(stream, self._ring.head, time.monotonic()))

    def kick(self, judge: Judge) -> int:
        """Close the streams that are to be, and return how many."""
        info = StreamInfo.of
        kicked = [
            stream
            for stream in self._end_at
            if stream.client and judge(info(stream.subscription, self._rights.get(stream, FREE)))
        ]
        for stream in kicked:
            stream.close(Closing.KICKED)
        return len(kicked)

    def _expire(self, stream: Open) -> None:
        """Close a stream when its right ends."""
        until = self._rights[stream].until
        if until is None:
            return
        left = until - time.time()
        if left <= 0:
            stream.close(Closing.EXPIRED)
            return
        self._timers[stream] = self._call_later(min(left, LONGEST_TIMER_S), lambda: self._expire(stream))

    def part(self, stream: Open) -> None:
        """Forget a stream, but not what it was given."""
        if self._end_at.pop(stream, None) is not None:
            self._fanout.leave(stream)
            self._rights.pop(stream, None)
            if (timer := self._timers.pop(stream, None)) is not None:
                timer.cancel()
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


def _nobody(info: StreamInfo) -> bool:
    return False
