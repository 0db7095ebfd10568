"""The default log: one SQLite file beside the app, for all processes of a machine.

Write-ahead logging: one process writes at a time, and readers never wait. With ``sync=normal`` (the
default) what is acknowledged survives the death of every process; with ``sync=full`` each commit is
flushed and survives a power cut too. Followers of other processes are woken by a ``Doorbell``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from penstock.core.channel import Subscription, matches
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.errors import Closed
from penstock.log.base import READ_BYTES, WAIT_S, Appended, Log, Retention, new_epoch
from penstock.log.sqlite.doorbell import Doorbell
from penstock.log.sqlite.file import LogFile
from penstock.log.sqlite.schema import Sync

BUSY_TIMEOUT_S = 5.0  # how long a commit waits for those of other processes
TRIM_STEP = 2_000  # rows a transaction, some milliseconds: publishers wait no longer for it

_COLUMNS = 'seq, time, channel, event, data, retry, key, "end"'
_BOUNDS = "SELECT epoch, trimmed + 1, coalesce((SELECT max(seq) FROM record), trimmed) FROM log"
_READ = f"SELECT (SELECT epoch FROM log), {_COLUMNS} FROM record WHERE seq > ? ORDER BY seq LIMIT ?"
_LATEST = (
    f"SELECT (SELECT epoch FROM log), {_COLUMNS} FROM record"
    ' WHERE channel = ? AND "end" <= ? ORDER BY seq DESC LIMIT ?'
)
# Of 1, 2, 4 … 64 rows: many rows cost one call into SQLite and one release of the GIL, and there are few
# statements to keep compiled. More rows would gain nothing, and old versions take at most 999 values.
_INSERTS = [
    f"INSERT INTO record ({_COLUMNS}) VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * (1 << power))
    for power in range(7)
]
_BY_KEY = "SELECT seq FROM record WHERE channel = ? AND key = ?"
# Distinct names by skipping from one to the next in the index, not by walking all of it.
_CHANNELS = """
WITH RECURSIVE name(channel) AS (
    SELECT min(channel) FROM record WHERE channel >= :low
    UNION ALL
    SELECT (SELECT min(channel) FROM record WHERE channel > name.channel AND channel < :high)
    FROM name WHERE name.channel IS NOT NULL
)
SELECT channel FROM name WHERE channel IS NOT NULL AND channel < :high
"""


class SQLiteLog(Log):
    """See ``Log``.

    Args:
        path: the file; made if it is not there, the folder must be.
        sync: ``normal`` or ``full``, see above.
        busy_timeout_s: how long a commit waits for those of other processes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sync: Sync = "normal",
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        # Whatever links lead here: SQLite puts its files beside the real one, and so does the bell.
        self.path = Path(os.path.realpath(path))
        self.url = f"sqlite:///{quote(str(self.path))}" + ("?sync=full" if sync == "full" else "")
        self._file = LogFile(self.path, sync, busy_timeout_s)
        self._bell = Doorbell(self.path)
        self._last_own = "", 0  # epoch and head after this object's last append

    def open(self, *, renew: str | None = None) -> None:
        self._file.open()
        if renew is not None:
            with self._file.writing("begin a new epoch") as connection:
                connection.execute("UPDATE log SET epoch = ? WHERE epoch = ?", (new_epoch(), renew))
            self._bell.ring(own=True)

    def exists(self) -> bool:
        """See ``Findable.exists``."""
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # to open it will tell what is wrong

    def append(self, events: Sequence[Event]) -> Appended:
        with self._file.writing(f"store {len(events)} event(s)") as connection:
            appended, head = _store(connection, events)
        # After records of others the follower in this process has to read: its own do not follow
        # what it has. The others have rung, unless they were killed just before.
        others_wrote = (appended.epoch, head) != self._last_own
        self._last_own = appended.epoch, max(head, *appended.seqs) if appended.seqs else head
        self._bell.ring(own=others_wrote)
        return appended

    def read(self, after: int, limit: int) -> list[Record]:
        with self._file.reading(f"read after {after}") as connection:
            found: list[Record] = []
            size = 0
            rows = connection.execute(_READ, (after, max(0, limit)))
            for row in rows:
                size += len(row[5])
                if found and size > READ_BYTES:
                    break
                found.append(_record(row))
            rows.close()
            return found

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """See ``History.latest``."""
        with self._file.reading("find the newest records") as connection:
            connection.execute("BEGIN")  # one view of the log for all channels
            found: list[Record] = []
            for channel in _covered(connection, subscription):
                rows = connection.execute(_LATEST, (channel, int(ends), limit))
                found += map(_record, rows.fetchall())
            connection.execute("COMMIT")
            found.sort()
            return found[-limit:] if limit else []

    def bounds(self) -> Bounds:
        with self._file.reading("find the bounds") as connection:
            return Bounds(*connection.execute(_BOUNDS).fetchone())

    def wait(self, after: int) -> None:
        if self._file.closed:
            raise Closed(f"the log {self.url} is closed")
        self._bell.wait(WAIT_S)

    def trim(self, retention: Retention) -> int:
        removed = 0
        while expired := self._expired(retention):
            epoch, upto = expired
            with self._file.writing("trim") as connection:
                # Of this very log: it may have been replaced since it was looked at.
                same = connection.execute(
                    "UPDATE log SET trimmed = max(trimmed, ?) WHERE epoch = ?", (upto, epoch)
                ).rowcount
                if same:
                    removed += connection.execute("DELETE FROM record WHERE seq <= ?", (upto,)).rowcount
        return removed

    def _expired(self, retention: Retention) -> tuple[str, int] | None:
        """The epoch and seq up to which one step of trimming removes; None if nothing is to do."""
        epoch, first, head = self.bounds()
        kept = head - first + 1
        if not kept:
            return None
        excess = 0
        if retention.events is not None:
            excess = kept - retention.events
        with self._file.reading("find what is expired") as connection:
            if retention.bytes is not None:
                used = _used_bytes(connection)
                if used > retention.bytes:
                    excess = max(excess, int(kept * (1 - retention.bytes / used)) + 1)
            if retention.age_s is not None:
                row = connection.execute(
                    "SELECT min(seq) FROM (SELECT seq, time FROM record ORDER BY seq LIMIT ?)"
                    " WHERE time >= ?",
                    (TRIM_STEP, time.time() - retention.age_s),
                ).fetchone()
                excess = max(excess, TRIM_STEP if row[0] is None else row[0] - first)
        return (epoch, first - 1 + min(excess, TRIM_STEP, kept)) if excess > 0 else None

    def close(self) -> None:
        self._bell.close()
        self._file.close()


def _store(connection: sqlite3.Connection, events: Sequence[Event]) -> tuple[Appended, int]:
    """Insert events. Also gives the head that was there before."""
    now = time.time()
    epoch, _, head = connection.execute(_BOUNDS).fetchone()
    seq = head
    seqs: list[int] = []
    values: list[str | int | float | None] = []  # row after row
    known: dict[tuple[str, str], int] = {}  # keys of this very batch
    for event in events:
        if event.key is not None:
            key = (event.channel, event.key)
            first = known.get(key) or connection.execute(_BY_KEY, key).fetchone()
            if first is not None:
                seqs.append(first if isinstance(first, int) else first[0])
                continue
            known[key] = seq + 1
        seq += 1
        seqs.append(seq)
        values += (seq, now, event.channel, event.event, event.data, event.retry, event.key, event.end)
    _insert(connection, values)
    return Appended(epoch, head + 1, seqs, now), head


def _insert(connection: sqlite3.Connection, values: list[str | int | float | None]) -> None:
    """Insert rows, in as few statements as there are ones in the binary number of rows."""
    start = 0
    while rows := (len(values) - start) // 8:
        power = min(rows.bit_length(), len(_INSERTS)) - 1
        end = start + (8 << power)
        connection.execute(_INSERTS[power], values[start:end])
        start = end


def _covered(connection: sqlite3.Connection, wanted: Subscription) -> set[str]:
    """The channels of a subscription, those that its patterns stand for included."""
    channels = set(wanted.channels)
    for pattern in wanted.patterns:
        literal = pattern[: pattern.index("*")].rstrip("/")
        names = connection.execute(_CHANNELS, {"low": literal, "high": literal + "\U0010ffff" * 2})
        channels.update(name for (name,) in names if matches(pattern, name))
    return channels


def _record(row: tuple[str, int, float, str, str | None, str, int | None, str | None, int]) -> Record:
    epoch, seq, at, channel, event, data, retry, key, end = row
    return Record(epoch, seq, at, channel, data, event, retry, key, bool(end))


def _used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of the file that hold something, indexes included."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
