"""The newest record that a process knows, by which it notices that a log has lost what it had.

A standby that took over without the last commits, or a backup that was restored, gives out seqs once more. So
whoever asks for anything says what he knows last; if there is another record in its place, or none, a new
epoch begins before anything else happens.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.log.postgres.values import Value, bigint, text


class Mark(NamedTuple):
    """A record, and by what it is known again: the random number of the append that stored it."""

    epoch: str
    seq: int
    batch: int

    @staticmethod
    def values(mark: Mark | None) -> tuple[Value, Value, Value]:
        """As parameters of a statement."""
        epoch, seq, batch = mark if mark is not None else (None, None, None)
        return text(epoch), bigint(seq), bigint(batch)
