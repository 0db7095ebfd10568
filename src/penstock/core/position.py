"""Where a client is in a log, and what it means when the log no longer reaches there.

A position is ``(epoch, seq)``. The epoch names one incarnation of a log; the seq counts its records
1, 2, 3 … without holes over all channels, so one number is enough however many channels are followed.
On the wire a position is ``epoch:seq``, in ``id:`` and in ``Last-Event-ID``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from penstock.errors import MalformedPosition

# Longer text is no position of ours and is not looked at: a stranger chooses what Last-Event-ID holds.
MAX_POSITION_CHARS = 64
_MAX_SEQ = 2**63 - 1  # the largest integer of SQLite, PostgreSQL and Redis alike
_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_POSITION = re.compile(r"([A-Za-z0-9_-]{1,32}):(0|[1-9][0-9]{0,18})", re.ASCII)


@lru_cache(maxsize=64)  # a process makes many positions, of few epochs
def _is_epoch(text: str) -> bool:
    return _EPOCH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log: after the record ``seq`` of the incarnation ``epoch``.

    Args:
        epoch: the log's incarnation, 1 to 32 of ``A-Z a-z 0-9 _ -``.
        seq: 0 for "before the first record", else the seq of a record.

    Raises:
        MalformedPosition: if either is outside these limits.
    """

    epoch: str
    seq: int

    def __post_init__(self) -> None:
        if (
            not isinstance(self.epoch, str)
            or not _is_epoch(self.epoch)
            or type(self.seq) is not int
            or not 0 <= self.seq <= _MAX_SEQ
        ):
            raise MalformedPosition(f"({self.epoch!r}, {self.seq!r}) is not an (epoch, seq)")

    def __str__(self) -> str:
        """The position as it stands on the wire: ``epoch:seq``."""
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``epoch:seq``.

        Raises:
            MalformedPosition: if the text is anything else. It may come from a stranger.
        """
        found = _POSITION.fullmatch(text) if len(text) <= MAX_POSITION_CHARS else None
        if found is None or int(found[2]) > _MAX_SEQ:
            shown = text if len(text) <= MAX_POSITION_CHARS else text[:MAX_POSITION_CHARS] + "…"
            raise MalformedPosition(f"{shown!r} is not a position; one looks like 'k3v9x2ab:42'")
        return cls(found[1], int(found[2]))


class Bounds(NamedTuple):
    """What a log holds: the records ``first`` to ``head`` of ``epoch``; empty if head is first - 1."""

    epoch: str
    first: int
    head: int


class GapReason(StrEnum):
    """Why events between a position and the log cannot be delivered."""

    EXPIRED = "expired"
    EPOCH = "epoch"
    AHEAD = "ahead"
    MALFORMED = "malformed"

    @property
    def meaning(self) -> str:
        """The reason in words."""
        return _MEANINGS[self]


_MEANINGS = {
    GapReason.EXPIRED: "they were older than the log keeps",
    GapReason.EPOCH: "the position is of another incarnation of the log",
    GapReason.AHEAD: "the position is beyond the end of the log",
    GapReason.MALFORMED: "the position cannot be read",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that cannot be delivered.

    Attributes:
        reason: why.
        after: the position as the client had it (what it sent, if that could not be read).
        resumes: the position after which events follow again.
    """

    reason: GapReason
    after: str
    resumes: Position


def find_gap(position: Position, bounds: Bounds) -> Gap | None:
    """Tell whether a log can continue from a position.

    Args:
        position: where the client is.
        bounds: what the log holds now.

    Returns:
        None if every record after the position is in the log, else the gap. It resumes where nothing
        more is lost and nothing known comes twice: at the oldest record if older ones were trimmed or if
        the log is another incarnation, and at the head if the position is beyond it.
    """
    oldest = Position(bounds.epoch, bounds.first - 1)
    if position.epoch != bounds.epoch:
        return Gap(GapReason.EPOCH, str(position), oldest)
    if position.seq > bounds.head:
        return Gap(GapReason.AHEAD, str(position), Position(bounds.epoch, bounds.head))
    if position.seq < oldest.seq:
        return Gap(GapReason.EXPIRED, str(position), oldest)
    return None
