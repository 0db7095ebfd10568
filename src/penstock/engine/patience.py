"""How long a connection is kept whose client does not answer, and one whose client takes nothing.

A client may vanish without a word: a lid is closed, a network is gone. Then nothing of what it is sent is
acknowledged, and the kernel gives it up after a quarter of an hour, or when it was told to (RFC 5482).

A client that has paused, or reads slowly, is another matter: there is no room at its end, but it answers when
the kernel asks whether there is some again. A kernel that was told to give up takes both for the same, and
Linux counts from the first time that there was no room, even if much was taken since. So the kernel is told
only of clients that took all at once so far. With the first bytes that have to wait it is told to go on, and
from then on it is asked here, now and then, who has answered.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from penstock import threads

LEAST_S = 1.5  # a client answers no two questions within half a second, so it may seem silent for as long
EARLIER_S = 1.5  # a keep-alive leaves up to a look late, and the kernel counts from its first repetition
LOOKS = 8  # in the time that a client is given to answer
PAUSED_S = 600.0  # a client that takes nothing for so long may come back, and will have missed nothing
UNSENT_BYTES = 16 * 1024  # the kernel keeps no more for a client that takes nothing; by itself it keeps 4 MB
_RTO_MAX_MS = 44  # TCP_RTO_MAX_MS of Linux 6.15: else the kernel asks twice as seldom each time
# Of ``struct tcp_info``, Linux 4.6: what ``_Told`` names, in its order.
_INFO = struct.Struct("=2xBB52xI60xQ16xI")


class Patience:
    """The connections of a process's streams. All but ``begin`` happens on the engine's loop.

    Args:
        keep_alive_s: a client that answers nothing is gone within two of them: one until something is sent
            to it, and less than one until it is given up.
    """

    def __init__(self, keep_alive_s: float) -> None:
        self._silent_s = max(keep_alive_s - EARLIER_S, LEAST_S)
        self._waiting: dict[int, _Slow] = {}  # by descriptor
        self._looked = 0.0

    def begin(self, fd: int) -> None:
        """Let the kernel give a client up that answers nothing. Any thread."""
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            _set(fd, socket.TCP_USER_TIMEOUT, round(self._silent_s * 1_000))

    def begin_push(self, fd: int) -> None:
        """As ``begin``; and let the kernel keep little for a client that takes nothing."""
        self.begin(fd)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            _set(fd, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def look_after(self, fd: int, peer: tuple[str, int] | None = None) -> None:
        """Its client takes no more for now: it may have paused, or vanished.

        Args:
            fd: the connection's descriptor.
            peer: host and port of the client, if the descriptor is somebody else's: it may be closed, and its
                number given to another connection, at any time.
        """
        known = self._waiting.get(fd)
        if (known is not None and known.peer == peer) or _ask(fd, peer) is None:
            return
        self._waiting[fd] = _Slow(time.monotonic(), peer)
        _set(fd, socket.TCP_USER_TIMEOUT, 0)
        _set(fd, _RTO_MAX_MS, max(1_000, round(self._silent_s * 500)))

    def forget(self, fd: int, peer: tuple[str, int] | None = None) -> None:
        """The descriptor is about to be closed, or that of this peer was."""
        if fd in self._waiting and self._waiting[fd].peer == peer:
            del self._waiting[fd]

    def look(self) -> None:
        """Cut off who has vanished, and who has paused for too long. Called now and then."""
        now = time.monotonic()
        if now - self._looked < self._silent_s / LOOKS:
            return
        self._looked = now
        silent_s = max(self._silent_s * (LOOKS - 1) / LOOKS, LEAST_S)
        for fd, slow in self._waiting.items():
            told = _ask(fd, slow.peer)
            if told is not None and slow.is_over(told, now, silent_s):
                with contextlib.suppress(OSError), borrowed(fd) as connection:
                    connection.shutdown(socket.SHUT_RDWR)  # the loop sees it, and closes the descriptor


class _Told(NamedTuple):
    """What the kernel tells of a connection."""

    repeated: int  # how often, what was sent and is not acknowledged
    asked: int  # how often, whether there is room; without an answer
    silent_ms: int  # since anything was acknowledged
    taken: int  # bytes
    unsent: int  # bytes


class _Slow:
    """A client for which something had to wait once."""

    __slots__ = ("_answered", "_taken", "_took", "peer")

    def __init__(self, now: float, peer: tuple[str, int] | None) -> None:
        self.peer = peer
        self._answered = self._took = now  # all that it was asked; something
        self._taken = -1

    def is_over(self, told: _Told, now: float, silent_s: float) -> bool:
        """Whether it is to be cut off. To be asked now and then.

        Args:
            told: of its connection.
            now: the clock's time.
            silent_s: for how long it may answer nothing.
        """
        if not told.repeated + told.asked or told.silent_ms / 1_000 < now - self._answered:
            self._answered = now
        if told.taken != self._taken or not told.unsent:
            self._taken, self._took = told.taken, now
        return now - self._answered >= silent_s or now - self._took > PAUSED_S


def _ask(fd: int, peer: tuple[str, int] | None) -> _Told | None:
    """What the kernel tells; None where it tells nothing, this is none of TCP, or another's."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, struct.error), borrowed(fd) as connection:
            if peer is not None and connection.getpeername()[:2] != peer:
                return None
            found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            return _Told(*_INFO.unpack(found))
    return None


def _set(fd: int, option: int, value: int) -> None:
    with contextlib.suppress(OSError), borrowed(fd) as connection:  # it is none of TCP, or of an older kernel
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


@contextlib.contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A descriptor as a socket, of whatever kind it is."""
    connection = threads.Socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        yield connection
    finally:
        connection.detach()
