"""Hangs up on a client whose connection belongs to a server that would wait for it for ever.

A server that ends waits until its clients have taken what is on its way to them, and a client that takes
nothing would keep the process alive. ASGI has no way to cut a connection; the operating system has.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

DESCRIPTORS = "/dev/fd"  # those of the process, by number


def hang_up(client: Sequence[Any] | None, server: Sequence[Any] | None) -> bool:
    """Shut down the connection between two addresses. The server's descriptor of it stays open.

    Args:
        client: host and port of the client.
        server: host and port of our end.

    Returns:
        Whether there was one: behind a proxy that tells its clients' addresses, there is none.
    """
    if not client or not server or not os.path.isdir(DESCRIPTORS):
        return False
    ends = _end(client), _end(server)
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError), _borrowed(int(name)) as connection:
            if (_end(connection.getpeername()), _end(connection.getsockname())) == ends:
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False


@contextlib.contextmanager
def _borrowed(fd: int) -> Any:
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


def _end(address: Any) -> tuple[str, int] | None:
    """Host and port, of whichever family; None for what has none."""
    if isinstance(address, str | bytes) or len(address) < 2:
        return None
    return str(address[0]), int(address[1])
