"""The one border where SQLite's errors, and the system's, become ours."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import (
    AppendUnsure,
    LogCorrupt,
    LogDenied,
    LogFull,
    LogUnavailable,
    NotALog,
    PenstockError,
)


class Border:
    """Where errors about one file are translated.

    Args:
        path: the file.
        busy_timeout_s: how long was waited for other processes, for the message.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Let no foreign error out of the block.

        Args:
            what: what the block does, for the message: "could not <what>".
        """
        try:
            yield
        except PenstockError:
            raise
        except sqlite3.Error as error:
            raise self._of_sqlite(error, what) from error
        except PermissionError as error:
            raise LogDenied(f"could not {what}: {error}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(what) from error
            raise LogUnavailable(f"could not {what}: {error}; nothing was stored") from error

    def _of_sqlite(self, error: sqlite3.Error, what: str) -> PenstockError:
        kind, path = _kind(error), self._path
        if is_busy(error):
            return LogUnavailable(
                f"could not {what}: another process held {path} for {self._busy_timeout_s:g} s; "
                "nothing was stored"
            )
        if kind == sqlite3.SQLITE_FULL or _code(error) == sqlite3.SQLITE_IOERR_SHMSIZE:
            return self._full(what)
        if kind == sqlite3.SQLITE_CORRUPT:
            return LogCorrupt(
                f"could not {what}: {path} is damaged ({error}); it was not touched: restore a backup "
                "and run 'penstock renew', or move it away to begin a new log"
            )
        if is_no_database(error):
            return NotALog(f"could not {what}: {path} is no SQLite file; it was left as it is")
        may_not = path.exists() and not os.access(path, os.R_OK | os.W_OK)
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or may_not:
            return LogDenied(f"could not {what}: {path} may not be opened or written ({error})")
        return LogUnavailable(f"could not {what} in {path}: {error}; nothing was stored")

    def _full(self, what: str) -> LogFull:
        return LogFull(
            f"could not {what}: no room left for {self._path}; nothing was stored, and what was before "
            "is kept: free some disk, or lower the retention"
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Commit when the block is over, roll back when it raises.

    Raises:
        AppendUnsure: if the commit failed in such a way that it may come to light after a crash.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        try:
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if _kind(error) == sqlite3.SQLITE_IOERR:
                raise AppendUnsure(
                    f"the disk failed while {path} was committed ({error}): what was being stored "
                    "may be there or not"
                ) from error
            raise
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def is_busy(error: Exception) -> bool:
    """Whether another connection was in the way."""
    return _kind(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_passing(error: Exception) -> bool:
    """Whether the connection is sound all the same."""
    return is_busy(error) or _kind(error) == sqlite3.SQLITE_FULL


def is_no_database(error: Exception) -> bool:
    """Whether the file is of another kind."""
    return _kind(error) == sqlite3.SQLITE_NOTADB


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code


def _kind(error: Exception) -> int:
    return _code(error) & 0xFF  # the rest of the code is details
