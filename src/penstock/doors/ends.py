"""The connections of a process whose server does not show them, known by the addresses of their two ends.

ASGI tells a request's addresses and nothing more of its connection; the operating system has the rest.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

DESCRIPTORS = "/dev/fd"  # those of the process, by number

End = tuple[str, int]
Ends = tuple[End, int]  # theirs; of ours the port, since some servers tell no more than where they listen


def ends_of(client: Sequence[Any] | None, server: Sequence[Any] | None) -> Ends | None:
    """Both ends of a request's connection.

    Args:
        client: host and port of the client, as ASGI tells them.
        server: host and port of our end.

    Returns:
        None if it has none, as one of a Unix socket.
    """
    theirs, ours = _end(client), _end(server)
    return (theirs, ours[1]) if theirs is not None and ours is not None else None


def connections() -> Iterator[tuple[Ends, socket.socket]]:
    """The process's connections, each borrowed for as long as it is looked at."""
    for name in os.listdir(DESCRIPTORS) if os.path.isdir(DESCRIPTORS) else ():
        with contextlib.suppress(OSError), _borrowed(int(name)) as connection:
            ends = ends_of(connection.getpeername(), connection.getsockname())
            if ends is not None:
                yield ends, connection


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """Somebody else's descriptor, as a socket.

    Not a duplicate: to close one would, if it were a file's, drop the locks that SQLite holds on it.

    Raises:
        OSError: if it is no socket.
    """
    connection = socket.socket(fileno=fd)
    try:
        yield connection
    finally:
        connection.detach()


def _end(address: Any) -> End | None:
    """Host and port, of whichever family; None for what has none."""
    if not address or isinstance(address, str | bytes) or len(address) < 2 or address[1] is None:
        return None
    return str(address[0]), int(address[1])
