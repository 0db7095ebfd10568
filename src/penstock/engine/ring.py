"""The newest records of the log in memory, encoded once, for streams that are live or come back.

The engine's loop is the only writer. Readers are any number of threads without a lock: a view is one
tuple, its list only ever grows at its end, and what is dropped is dropped by making another view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.core.wire import Entry

ENTRY_OVERHEAD_BYTES = 400  # the objects of an entry, beside its text, which it holds twice
BLOCK_BYTES = 256 * 1024  # one reader takes at most this at a time, or a single larger entry


class _View(NamedTuple):
    bounds: Bounds | None  # of the log, when the window was last moved
    first: int  # the seq of the first entry
    entries: list[Entry]

    @property
    def head(self) -> int:
        return self.first + len(self.entries) - 1


class Ring:
    """A window on the end of the log.

    Args:
        max_events: the most records.
        max_bytes: the most memory, as estimated.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.bytes = 0
        self._view = _View(None, 1, [])

    def __len__(self) -> int:
        return len(self._view.entries)

    @property
    def head(self) -> int:
        """The seq of the newest record that is known."""
        return self._view.head

    @property
    def epoch(self) -> str | None:
        """The incarnation of the log; None while it is unknown."""
        bounds = self._view.bounds
        return bounds.epoch if bounds is not None else None

    @property
    def bounds(self) -> Bounds | None:
        """What the log holds as far as the ring knows: its head, and the oldest at the last move."""
        bounds, first, entries = self._view
        return bounds._replace(head=first + len(entries) - 1) if bounds is not None else None

    def move(self, bounds: Bounds, head: int) -> None:
        """Empty the window and begin again after this head."""
        self.bytes = 0
        self._view = _View(bounds, head + 1, [])

    def append(self, records: Sequence[Record]) -> list[Entry]:
        """Add records that directly follow.

        Returns:
            Their entries.
        """
        added = [Entry(record) for record in records]
        self._view.entries.extend(added)
        self.bytes += _size(added)
        if len(self) > self._max_events or self.bytes > self._max_bytes:
            self._drop()
        return added

    def after(self, epoch: str, seq: int, limit: int) -> list[Entry] | None:
        """Entries that follow a position.

        Args:
            epoch: the position's epoch.
            seq: the position's seq.
            limit: at most so many; fewer if they would have over ``BLOCK_BYTES``.

        Returns:
            None if the window does not reach there, an empty list at or beyond its head.
        """
        bounds, first, entries = self._view
        start = seq + 1 - first
        if start < 0 or bounds is None or bounds.epoch != epoch:
            return None
        found = entries[start : start + limit]
        size = 0
        for index, entry in enumerate(found):
            size += len(entry.record.data)
            if size > BLOCK_BYTES and index:
                return found[:index]
        return found

    def _drop(self) -> None:
        """Make room: a quarter at once, so that the copying is rare. The newest always stays."""
        bounds, first, entries = self._view
        drop = max(0, min(len(entries) - self._max_events * 3 // 4, len(entries) - 1))
        self.bytes -= _size(entries[:drop])
        while len(entries) - drop > 1 and self.bytes > self._max_bytes * 3 // 4:
            self.bytes -= _size(entries[drop : drop + 1])
            drop += 1
        self._view = _View(bounds, first + drop, entries[drop:])


def _size(entries: Sequence[Entry]) -> int:
    return ENTRY_OVERHEAD_BYTES * len(entries) + 2 * sum([len(entry.record.data) for entry in entries])
