"""The few connections that append, read and trim. Each is used by one thread at a time, for one statement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg

from penstock import threads
from penstock.errors import Closed, LogUnavailable, LogUnusable
from penstock.log.postgres.errors import of_connecting, of_loss, of_refusal
from penstock.log.postgres.session import Lost, Refusal, Session
from penstock.log.postgres.values import read_int4

MOST = 4  # connections of a process, beside the one that listens; one more caller waits for one of them
_OLDEST = 130000  # version of the server

_INTRODUCE = b"""
SELECT pg_backend_pid(), current_setting('server_version_num')::integer,
       current_setting('server_encoding') = 'UTF8',
       current_setting('default_transaction_isolation') = 'read committed',
       current_setting('default_transaction_read_only')::boolean OR pg_is_in_recovery()
"""
_READ_COMMITTED = "SET default_transaction_isolation = 'read committed'"


def connect(conninfo: str, timeout_s: float, where: str) -> Session:
    """Make a connection, and see whether the server behind it will do.

    Raises:
        LogUnavailable: there is none for now.
        LogUnusable: it will not do.
    """
    try:
        connection = psycopg.Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except (psycopg.Error, OSError) as error:
        raise of_connecting(str(error), where) from error
    session = Session(connection, timeout_s)
    try:
        _introduce(session, where)
    except Refusal as refusal:
        session.close()
        raise of_refusal(refusal, "connect", where) from refusal
    except Lost as lost:
        session.close()
        raise of_loss(lost, "connect", where) from lost
    except BaseException:
        session.close()
        raise
    return session


def _introduce(session: Session, where: str) -> None:
    answer = session.ask(_INTRODUCE)
    backend, version, utf8, read_committed, read_only = (answer.get_value(0, n) or b"" for n in range(5))
    session.pooled = read_int4(backend)[0] != session.backend
    if read_int4(version)[0] < _OLDEST:
        raise LogUnusable(f"{where} is a PostgreSQL older than 13; nothing was made")
    if utf8 != b"\1":
        raise LogUnusable(
            f"the database of {where} has another encoding than UTF8, and cannot hold all text; nothing was "
            "made: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 makes one that can"
        )
    if read_only == b"\1":
        raise LogUnavailable(
            f"{where} takes no writes: it is a standby, or default_transaction_read_only is on; nothing was "
            "stored"
        )
    if read_committed == b"\1":
        return
    if session.pooled:  # what is set for a session there would be set for somebody else
        raise LogUnusable(
            f"{where} needs default_transaction_isolation = 'read committed', and has another: "
            "ALTER ROLE … SET default_transaction_isolation = 'read committed'"
        )
    session.run(_READ_COMMITTED)


class Pool:
    """Connections, made when they are needed.

    Args:
        make: makes one.
        where: the log, for messages.
        timeout_s: how long a caller waits for a free one.
    """

    def __init__(self, make: Callable[[], Session], where: str, timeout_s: float) -> None:
        self.closed = False
        self._make = make
        self._where = where
        self._timeout_s = timeout_s
        self._changed = threads.Condition()
        self._idle: list[Session] = []
        self._taken = 0

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A connection for this thread, which the server has not closed as far as can be seen.

        Raises:
            PenstockError: there is none to be had; nothing was asked.
        """
        session = self._take()
        try:
            yield session
        except Lost:
            self._drop_idle()  # the server was restarted, or a network is gone: they are broken as well
            raise
        finally:
            self._put_back(session)

    def close(self) -> None:
        """Let go of all; those in use when they are put back."""
        self.closed = True
        self._drop_idle()

    def _take(self) -> Session:
        with self._changed:
            if not self._changed.wait_for(lambda: self.closed or self._taken < MOST, self._timeout_s):
                raise LogUnavailable(
                    f"all {MOST} connections to {self._where} were busy for {self._timeout_s:g} s; nothing "
                    "was stored"
                )
            if self.closed:
                raise Closed(f"the log {self._where} is closed")
            self._taken += 1
            idle = self._idle.pop() if self._idle else None
        try:
            while idle is not None and not idle.is_alive():
                idle.close()
                with self._changed:
                    idle = self._idle.pop() if self._idle else None
            return idle or self._make()
        except BaseException:
            self._give_up_place()
            raise

    def _put_back(self, session: Session) -> None:
        with self._changed:
            keep = session.sound and not self.closed
            if keep:
                self._idle.append(session)
        if not keep:
            session.close()
        self._give_up_place()

    def _give_up_place(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def _drop_idle(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
