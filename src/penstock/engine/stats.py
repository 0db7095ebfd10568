"""What a process can tell about itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of one process's part in a log; counters begin with the process.

    Attributes:
        log_url: the log, without a password.
        log_state: ``following``, ``away`` (trying again), ``starting``, ``idle`` (no stream yet),
            ``stopped``.
        streams: streams open now.
        audiences: different subscriptions among them.
        lagging: streams with news waiting for them while their client is busy with older ones.
        polls: answers that were bounded because every place for a stream was taken.
        published: events stored by this process.
        delivered: events handed to streams.
        bytes: bytes handed to streams.
        gaps: gap notices given.
        ring_events: events in the ring.
        ring_bytes: memory it takes, as estimated.
        tail_seq: the newest seq that this process has seen; None before its first stream.
        tail_lag: records in the log beyond that; None if the log does not answer.
        draining: whether ``drain()`` was called.
    """

    log_url: str
    log_state: str
    streams: int
    audiences: int
    lagging: int
    polls: int
    published: int
    delivered: int
    bytes: int
    gaps: int
    ring_events: int
    ring_bytes: int
    tail_seq: int | None
    tail_lag: int | None
    draining: bool

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict, for JSON."""
        return dataclasses.asdict(self)
