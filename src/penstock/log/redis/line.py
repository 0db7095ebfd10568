"""One connection to a server, made of the driver's."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from penstock import threads
from penstock.log.redis.scripts import Script
from penstock.log.redis.target import Address, Credentials, Target

# The driver's types are not complete. Its connections try nothing twice, and that is wanted: what was
# sent may have been obeyed.
_Connection: Any = Connection
_SSLConnection: Any = SSLConnection
_UnixConnection: Any = UnixDomainSocketConnection

Command = Sequence[bytes | str | int]

_GARBAGE = (ValueError, LookupError, TypeError)  # in the driver's parser: something answers that is no Redis


class Line:
    """A connection, for one thread at a time.

    Where gevent has patched the sockets, one belongs to the hub of the thread that made it. Then the line
    has a thread of its own, which does what concerns the connection.

    Args:
        address: where it leads.
        connection: of the driver, not connected yet.

    Attributes:
        address: where it leads.
        greeted: whether the log was looked at through it.
        used: whether something was answered already, so that the server may have closed it since.
        unanswered: whether something was sent whole, and the answer has not come.
    """

    def __init__(self, address: Address, connection: Any) -> None:
        self.address = address
        self.greeted = False
        self.used = False
        self.unanswered = False
        self._connection = connection
        self._thread = _OwnThread() if socket.socket is not threads.Socket else None
        try:
            self._handle = self._do(self._connect)
        except BaseException:
            self._end()
            raise
        self._poll = threads.Poll() if threads.Poll is not None else None  # as on Windows
        if self._poll is not None:
            self._poll.register(self._handle, select.POLLIN)

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go and wait for all answers.

        Raises:
            RedisError: the first of the answers that is an error, or the connection broke.
        """
        if self._thread is None:
            return self._ask(commands)
        answers: list[Any] = self._thread.do(lambda: self._ask(commands))
        return answers

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        """Run a script, for which one round trip is enough if the server ran it before."""
        try:
            return self.ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))[0]
        except NoScriptError:  # it restarted, or was told to forget
            pass
        return self.ask(("EVAL", script.text, len(keys), *keys, *arguments))[0]

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, such as the end of the connection."""
        return self._poll is None or not self._poll.poll(0)

    def hang_up(self) -> None:
        """End what another thread waits for."""
        with contextlib.suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._handle.close()
        self._end()

    def _connect(self) -> socket.socket:
        try:
            self._connection.connect()
        except _GARBAGE as error:
            raise _no_redis(error) from error
        # Of our own, so that another thread may hang up, whatever the driver does meanwhile.
        return threads.Socket(fileno=os.dup(self._connection._sock.fileno()))

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        connection.send_packed_command([b"".join(map(_packed, commands))])
        # If this was not reached, the last of them has not arrived whole, and is not obeyed.
        self.unanswered = True
        answers: list[Any] = []
        error: ResponseError | None = None
        for _ in commands:
            try:
                answers.append(connection.read_response())
            except ResponseError as refused:
                error = error or refused
            except _GARBAGE as garbage:
                raise _no_redis(garbage) from garbage
        self.used, self.unanswered = True, False
        if error is not None:
            raise error
        return answers

    def _do(self, work: Callable[[], Any]) -> Any:
        return work() if self._thread is None else self._thread.do(work)

    def _end(self) -> None:
        self._do(self._connection.disconnect)
        if self._thread is not None:
            self._thread.end()


def _packed(command: Command) -> bytes:
    """A command as it is sent; quicker than the driver's own, which knows more kinds of values."""
    words = [b"*%d" % len(command)]
    for word in command:
        text = word if type(word) is bytes else str(word).encode()
        words.append(b"$%d" % len(text))
        words.append(text)
    words.append(b"")
    return b"\r\n".join(words)


def _no_redis(error: Exception) -> InvalidResponse:
    """What the driver means that trusts in the server to be one."""
    return InvalidResponse(f"{type(error).__name__}: {error}")


class _OwnThread:
    """A thread that does what it is given, one thing after the other."""

    def __init__(self) -> None:
        self._given = threads.Queue()
        threads.Thread(self._run, "penstock-redis").start()

    def do(self, work: Callable[[], Any]) -> Any:
        """Have it do something, and wait for that."""
        done = threads.Lock()
        done.acquire()
        came: list[Any] = []
        self._given.put((work, came, done))
        done.acquire()
        result, error = came
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Let it end when it has done what there is."""
        self._given.put(None)

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            work, came, done = given
            try:
                came += (work(), None)
            except BaseException as error:
                came += (None, error)
            done.release()
            del given, work, came, done  # one that waits must not keep what the last one read


def connect(
    target: Target,
    address: Address,
    credentials: Credentials,
    *,
    db: int = 0,
    connect_timeout_s: float | None = None,
    timeout_s: float | None = None,
) -> Line:
    """Connect to a server; the target says how, and for how long to wait."""
    options: dict[str, Any] = {
        "db": db,
        "username": credentials.user,
        "password": credentials.password,
        "socket_connect_timeout": connect_timeout_s or target.connect_timeout_s,
        "socket_timeout": timeout_s or target.timeout_s,
        "protocol": 2,
    }
    if address.port is None:
        return Line(address, _UnixConnection(path=address.host, **options))
    options |= {"host": address.host, "port": address.port, "socket_keepalive": True}
    if target.tls is not None:
        return Line(address, _SSLConnection(**options, **target.tls))
    return Line(address, _Connection(**options))
