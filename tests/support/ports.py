"""Ports for servers.

They lie below the range from which the system gives ports to clients. A client that tries again
and again to reach a server that is down would else be given that very port some day, and be
connected to itself.
"""

from __future__ import annotations

import os
import random
import socket

_RANGE, _PARTS = range(20_000, 32_000), 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_PORTS = _RANGE[_worker::_PARTS]  # runs side by side must not take each other's
_random = random.SystemRandom()  # pytest-randomly seeds the other one the same in every run


def is_free(port: int) -> bool:
    """Whether a server could listen here now; connections that are being torn down do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    for _ in range(100):
        port = _random.choice(_PORTS)
        if is_free(port):
            return port
    raise AssertionError(f"no free port found in {_PORTS}")
