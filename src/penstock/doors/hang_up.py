"""Hangs up on a client whose connection belongs to a server that would wait for it for ever.

A server that ends waits until its clients have taken what is on its way to them, and a client that takes
nothing would keep the process alive. ASGI has no way to cut a connection; the operating system has.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from penstock.doors.ends import Ends, connections, ends_of

PARTING_S = 1.0  # a client has so long to take the last bytes of a stream that was drained

_parting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Ends, float]] = WeakKeyDictionary()


def hang_up(client: Sequence[Any] | None, server: Sequence[Any] | None) -> bool:
    """Shut down the connection between two addresses. The server's descriptor of it stays open.

    Args:
        client: host and port of the client.
        server: host and port of our end.

    Returns:
        Whether there was one: behind a proxy that tells its clients' addresses, there is none.
    """
    ends = ends_of(client, server)
    for there, connection in connections() if ends is not None else ():
        if there == ends:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def hang_up_later(client: Sequence[Any] | None, server: Sequence[Any] | None) -> None:
    """Hang up on a client that has not taken the end of its stream soon. To be called on the server's loop.

    The last bytes fitted into the server's buffers, so the stream ended well, and the server waits.

    Args:
        client: see ``hang_up``.
        server: likewise.
    """
    ends = ends_of(client, server)
    if ends is None:
        return
    loop = asyncio.get_running_loop()
    parting = _parting.setdefault(loop, {})
    if not parting:
        loop.call_later(PARTING_S, _look, loop)
    parting[ends] = time.monotonic()


def _look(loop: asyncio.AbstractEventLoop) -> None:
    """Look once for all of them: there may be thousands, and as many descriptors."""
    parting = _parting[loop]
    now = time.monotonic()
    due = {ends for ends, since in parting.items() if now - since >= PARTING_S}
    for ends in due:
        del parting[ends]
    if parting:
        loop.call_later(PARTING_S, _look, loop)
    for there, connection in connections():
        if there in due and _waits(connection):
            connection.shutdown(socket.SHUT_RDWR)


def _waits(connection: socket.socket) -> bool:
    """Whether there is something that the other end has not taken."""
    try:
        from fcntl import ioctl
        from termios import TIOCOUTQ
    except ImportError:  # not on Windows
        return False
    (waiting,) = struct.unpack("i", ioctl(connection, TIOCOUTQ, b"\0" * 4))
    return bool(waiting > 0)
