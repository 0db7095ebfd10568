"""One SQLite file, and this process's connections to it.

SQLite breaks a file in silence where its rules are not kept (https://sqlite.org/howtocorrupt.html). They
are kept here:

- **Nobody but SQLite opens the file.** To close any descriptor of a file is to lose all locks that the
  process holds on it; another process would then take the write-ahead log away under it.
- **No connection is open during a fork.** The child would take its parent's locks for its own. All are
  closed before, and opened again by the next use.
- **What a file left behind is not the next one's.** A file that was deleted or replaced leaves its
  write-ahead log, which SQLite would play into the new one. It is removed first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from penstock import threads
from penstock.errors import (
    AppendUnsure,
    Closed,
    LogDenied,
    LogUnavailable,
)
from penstock.log.base import new_epoch
from penstock.log.fork import hold_in_forks
from penstock.log.sqlite.errors import Border, is_no_database, is_passing, transaction
from penstock.log.sqlite.schema import Sync, prepare

MAX_IDLE_READERS = 8  # each may hold some megabytes and three descriptors
_OPEN_TRIES = 5  # a file that is replaced while it is opened is opened anew, so often
_ALONE_WITHIN_S = 1.0  # some other program may hold the folder's lock for ever
_FORK_WITHIN_S = 10.0  # a fork waits no longer for a commit or a read to end

_HEAD = "SELECT epoch, coalesce((SELECT max(seq) FROM record), trimmed) FROM log"

_Inode = tuple[int, int] | None  # None: there is no such file


class _Marks(NamedTuple):
    """By what a file is known to be the same."""

    file: _Inode
    wal: _Inode


class _Lost(NamedTuple):
    """A log that is no longer where it was."""

    file: _Inode
    epoch: str
    head: int


class LogFile:
    """A file that holds a log: opened and made when it is first used, and again if it was replaced.

    Args:
        path: the file; made if it is not there, the folder must be.
        sync: how much a commit waits for the disk.
        busy_timeout_s: how long a commit waits for those of other processes.
    """

    def __init__(self, path: Path, sync: Sync, busy_timeout_s: float) -> None:
        self.path = path
        self.closed = False
        self._names = str(path), f"{path}-wal"
        self._sync = sync
        self._busy_timeout_s = busy_timeout_s
        self._border = Border(path, busy_timeout_s)
        self._writing = threads.Lock()  # guards the writer, and which file is open
        self._writer: sqlite3.Connection | None = None
        self._marks: _Marks | None = None  # of the file that is open
        self._lost: _Lost | None = None  # the file that was open before it was moved or replaced
        self._reading = threads.Condition()  # guards the readers
        self._idle: list[sqlite3.Connection] = []  # one list for each file that was open
        self._readers = 0  # at work
        hold_in_forks(self)

    def open(self) -> None:
        """Open the file now, and not by its first use."""
        with self._writing, self._border.translated("open the log"):
            self._ready()

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[sqlite3.Connection]:
        """A transaction: stored whole when the block is over, not at all when it raises.

        Args:
            what: what is being done, for messages: "could not <what>".
        """
        with self._writing, self._border.translated(what):
            connection = self._ready()
            try:
                with transaction(connection, self.path):
                    yield connection
            except (sqlite3.Error, AppendUnsure) as error:
                if not is_passing(error):
                    self._let_go()  # whatever it was, it shall not outlast this connection
                raise

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[sqlite3.Connection]:
        """A connection to read with, for this thread alone."""
        with self._border.translated(what):
            connection, pool = self._take_reader()
            sound = False
            try:
                yield connection
                sound = True
            finally:
                self._put_back(connection, pool, sound)

    def _take_reader(self) -> tuple[sqlite3.Connection, list[sqlite3.Connection]]:
        """A reader of the file that is there now, and where it comes from."""
        for _ in range(_OPEN_TRIES):
            if not self._is_current():
                with self._writing:
                    self._ready()
            with self._reading:
                if self.closed:
                    raise self._closed_error()
                self._readers += 1
                pool = self._idle
                if pool:
                    return pool.pop(), pool
            try:
                connection = self._connect_to_read()
            except BaseException as error:
                self._put_back(None, pool)
                if isinstance(error, sqlite3.Error) and not self._is_of_now(pool):
                    continue
                raise
            if self._is_of_now(pool):
                return connection, pool
            self._put_back(connection, pool, sound=False)
        raise self._replaced_error()

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            connection.execute("PRAGMA query_only = on")
            connection.execute(_HEAD).fetchone()  # only this opens what lies beside the file
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_of_now(self, pool: list[sqlite3.Connection]) -> bool:
        """Whether the file was not replaced meanwhile; a reader might have parts of two."""
        return self._is_current() and pool is self._idle

    def _put_back(
        self,
        connection: sqlite3.Connection | None,
        pool: list[sqlite3.Connection],
        sound: bool = True,
    ) -> None:
        with self._reading:
            if connection is not None:
                same_file = pool is self._idle and not self.closed
                if sound and same_file and len(pool) < MAX_IDLE_READERS:
                    pool.append(connection)
                else:
                    connection.close()
            self._readers -= 1
            self._reading.notify_all()

    def close(self) -> None:
        """Let go of the file. May be called twice; readers at work come to their end."""
        self.closed = True
        with self._writing:
            self._let_go()

    # Opening

    def _ready(self) -> sqlite3.Connection:
        """The writer of the file that is there now. Only under ``_writing``."""
        if self.closed:
            raise self._closed_error()
        if self._writer is not None and not self._is_current():
            self._leave(self._writer)
        if self._writer is None:
            self._writer = self._open()
        return self._writer

    def _leave(self, writer: sqlite3.Connection) -> None:
        """Let go of a file that was deleted, moved or replaced."""
        with contextlib.suppress(sqlite3.Error):
            writer.execute("PRAGMA wal_checkpoint")  # where it was moved to, it is whole
            assert self._marks is not None
            self._lost = _Lost(self._marks.file, *writer.execute(_HEAD).fetchone())
        with self._alone():
            now, then = self._look(), self._marks
            if then is not None and now.file != then.file and now.wal == then.wal:
                self._remove_companions()
        self._let_go()

    def _is_current(self) -> bool:
        """Whether the open file is the one that is there: while it is open, its inode stays its own."""
        return self._marks is not None and self._marks == self._look()

    def _look(self) -> _Marks:
        return _Marks(*map(_inode, self._names))

    def _let_go(self) -> None:
        with self._reading:
            self._close_connections()

    def _close_connections(self) -> None:
        idle, self._idle = self._idle, []  # readers at work will not come back to the new list
        for connection in [*idle, *filter(None, [self._writer])]:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._writer = None
        self._marks = None

    def _open(self) -> sqlite3.Connection:
        """Open the file, and make it a log if there is nothing in it."""
        for _ in range(_OPEN_TRIES):
            self._look_before_opening()
            if not self.path.exists():
                self._make()
            before = self._look().file
            connection = self._connect()
            try:
                prepare(connection, self.path, self._sync, self._busy_timeout_s)
                marks = self._look()
                if marks.file == before is not None:
                    self._renew_if_less(connection, before)
                    self._marks, self._lost = marks, None
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise self._replaced_error()

    def _look_before_opening(self) -> None:
        """Refuse what SQLite would report unclearly, or only at the first write."""
        folder = self.path.parent
        if not folder.is_dir():
            raise LogDenied(f"the folder {folder} is not there; make it first: nothing was created")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise LogDenied(
                f"the folder {folder} may not be written by this user; SQLite keeps files beside the log"
            )
        if self.path.exists() and not (self.path.is_file() and os.access(self.path, os.R_OK | os.W_OK)):
            raise LogDenied(f"{self.path} is no file that this user may read and write")
        self._refuse_strangers()

    def _refuse_strangers(self) -> None:
        """Refuse a file that is not SQLite's, although a log that was here before left its ``-wal``.

        SQLite would believe the write-ahead log, show its records, and one day write them over the file.
        What is immutable has none: so it looks at the file itself, and takes and loses no locks.
        """
        if self.path.exists():
            with contextlib.closing(self._connect("ro&immutable=1")) as connection:
                try:
                    connection.execute("PRAGMA schema_version")
                except sqlite3.DatabaseError as error:
                    if is_no_database(error):  # all else may be right again with the write-ahead log
                        raise

    def _connect(self, mode: Literal["rw", "rwc", "ro&immutable=1"] = "rw") -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions begin and end where the code says so
            check_same_thread=False,  # the locks of this class see to it
        )

    def _make(self) -> None:
        with self._alone():
            if not self.path.exists():
                self._remove_companions()
                self._connect("rwc").close()

    def _remove_companions(self) -> None:
        for end in ("-wal", "-shm"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes from doing the same: they must not remove what is new already."""
        if sys.platform == "win32":  # an open file can be neither deleted nor replaced
            yield
            return
        import fcntl

        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            deadline = time.monotonic() + _ALONE_WITHIN_S
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                threads.sleep(0.005)
            yield
        finally:
            os.close(folder)

    def _renew_if_less(self, connection: sqlite3.Connection, file: _Inode) -> None:
        """Begin a new epoch in what may be a backup: seqs that were given out would come again."""
        lost = self._lost
        if lost is None:
            return
        with transaction(connection, self.path):
            epoch, head = connection.execute(_HEAD).fetchone()
            if epoch == lost.epoch and (file != lost.file or head < lost.head):
                connection.execute("UPDATE log SET epoch = ?", (new_epoch(),))

    # Forks

    def hold(self) -> bool:
        """Wait until nobody reads or writes, close all connections, and let nobody begin."""
        if not self._writing.acquire(timeout=_FORK_WITHIN_S):
            return False
        self._reading.acquire()
        self._reading.wait_for(lambda: not self._readers, _FORK_WITHIN_S)
        self._close_connections()
        return True

    def go_on(self) -> None:
        """After the fork, in the parent and in the child: let all begin again."""
        self._reading.release()
        self._writing.release()

    def _replaced_error(self) -> LogUnavailable:
        return LogUnavailable(f"{self.path} is replaced again and again; nothing was stored")

    def _closed_error(self) -> Closed:
        return Closed(f"the log {self.path} is closed")


def _inode(path: str) -> _Inode:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
