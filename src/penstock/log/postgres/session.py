"""One connection to the server, and how something is asked through it: in time, and knowing the outcome.

psycopg connects. From then on its ``pq``, the bare libpq, is driven here: each wait then has an end, whatever
the server and the network do, another thread can end it, and it is a native wait under gevent too.

An answer with an error means that nothing was done. That a connection broke, was ended, or gave no answer in
time means that nobody knows: ``Lost``.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from penstock import threads
from penstock.log.postgres.values import Value

_GOOD = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)
_IN, _OUT = select.POLLIN, select.POLLIN | select.POLLOUT


class Refusal(Exception):
    """The server's answer was an error: the statement did nothing.

    Attributes:
        state: the SQLSTATE, of five characters.
        text: what the server says, without what it says beside.
    """

    def __init__(self, state: str, text: str) -> None:
        super().__init__(f"{text} (SQLSTATE {state})")
        self.state = state
        self.text = text


class Lost(Exception):
    """There was no answer: what was asked was done or not."""


class Deaf(Lost):
    """The connection stands, and there was no answer in time."""


class Session:
    """A connection. One thread uses it at a time.

    Args:
        connection: just made, in autocommit.
        timeout_s: how long an answer may take.
    """

    def __init__(self, connection: psycopg.Connection, timeout_s: float) -> None:
        self.pooled = True  # there may be something in between that may give each statement another backend
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._socket = self._pgconn.socket
        self._poll = threads.Poll()
        self._poll.register(self._socket, _IN)
        self._prepared: dict[bytes, bytes] = {}

    @property
    def backend(self) -> int:
        """The process of the server, as it was told when the connection was made."""
        return self._pgconn.backend_pid

    @property
    def sound(self) -> bool:
        """Whether it can be used again."""
        pgconn = self._pgconn
        return pgconn.status == ConnStatus.OK and pgconn.transaction_status == TransactionStatus.IDLE

    def is_alive(self) -> bool:
        """Whether it may be used, without asking the server: what that says unasked is mostly a farewell."""
        return self.sound and not self._poll.poll(0)

    def ask(self, statement: bytes, *values: Value) -> PGresult:
        """Ask for something, in a transaction of its own.

        Raises:
            Refusal: nothing was done.
            Lost: nobody knows.
        """
        deadline = time.monotonic() + self._timeout_s
        data = [value.data for value in values]
        formats = [Format.BINARY] * len(values)
        try:
            if self.pooled:  # there the next statement may meet another backend
                types = [value.type for value in values]
                self._pgconn.send_query_params(statement, data, types, formats, Format.BINARY)
            else:
                name = self._prepared.get(statement) or self._prepare(statement, values, deadline)
                self._pgconn.send_query_prepared(name, data, formats, Format.BINARY)
            return self._answer(deadline)
        except psycopg.Error as error:
            raise Lost(_brief(str(error))) from error

    def _prepare(self, statement: bytes, values: Sequence[Value], deadline: float) -> bytes:
        name = b"penstock-%d" % len(self._prepared)
        self._pgconn.send_prepare(name, statement, [value.type for value in values])
        self._answer(deadline)
        self._prepared[statement] = name
        return name

    def run(self, statements: str) -> None:
        """Run statements that give nothing back; several are one transaction, if they say nothing else."""
        deadline = time.monotonic() + self._timeout_s
        try:
            self._pgconn.send_query(statements.encode())
            self._answer(deadline)
        except psycopg.Error as error:
            raise Lost(_brief(str(error))) from error

    def listen(self, until: float, wake: int) -> list[str]:
        """What notifications said, once there are any.

        Args:
            until: the time (monotonic) to wait till.
            wake: a descriptor that ends it when it can be read.

        Raises:
            Lost: the connection is broken.
        """
        poll = threads.Poll()
        poll.register(self._socket, _IN)
        poll.register(wake, _IN)
        try:
            while not (told := self._notified()):
                left_s = until - time.monotonic()
                ready = poll.poll(max(0.0, left_s) * 1000)
                if left_s <= 0 or any(fd == wake for fd, _ in ready):
                    break
                if ready:
                    self._pgconn.consume_input()
            return told
        except psycopg.Error as error:
            raise Lost(_brief(str(error))) from error

    def close(self) -> None:
        """Let go of the connection; not of that of a parent process."""
        if self._pid == os.getpid():
            with contextlib.suppress(psycopg.Error):
                self._connection.close()

    def _notified(self) -> list[str]:
        told: list[str] = []
        while notification := self._pgconn.notifies():
            told.append(notification.extra.decode(errors="replace"))
        return told

    def _answer(self, deadline: float) -> PGresult:
        pgconn = self._pgconn
        while pgconn.flush():
            if self._wait(_OUT, deadline) & select.POLLIN:
                pgconn.consume_input()
        last: PGresult | None = None
        error: PGresult | None = None
        while True:
            while pgconn.is_busy():
                self._wait(_IN, deadline)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            last = result
            if result.status not in _GOOD:
                error = result  # also after an answer: the commit may have failed
        if error is not None:
            raise _error_of(error)
        if last is None or pgconn.status != ConnStatus.OK:
            raise Lost("the connection was closed")
        return last

    def _wait(self, events: int, deadline: float) -> int:
        left_s = deadline - time.monotonic()
        self._poll.modify(self._socket, events)
        try:
            ready = self._poll.poll(max(0.0, left_s) * 1000)
        finally:
            self._poll.modify(self._socket, _IN)
        if not ready and left_s <= 0:
            raise Deaf(f"there was no answer within {self._timeout_s:g} s")
        return ready[0][1] if ready else 0


def _error_of(result: PGresult) -> Refusal | Lost:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    text = field(DiagnosticField.MESSAGE_PRIMARY)
    if field(DiagnosticField.SEVERITY_NONLOCALIZED) != "ERROR":  # it ended the connection, at whatever moment
        return Lost(text or _brief(result.error_message.decode(errors="replace")))
    return Refusal(field(DiagnosticField.SQLSTATE), text)


def _brief(message: str) -> str:
    """The first line; what follows is advice to an operator of the server."""
    return message.strip().partition("\n")[0]
