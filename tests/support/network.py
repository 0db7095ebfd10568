"""Another machine on a network of its own, which may vanish without a word.

with Network() as network:
    connection = network.connect(server.port)  # to a server of this machine, which listens everywhere
    network.cut()  # nothing that it says arrives any more: no acknowledgement, no farewell
"""

from __future__ import annotations

import ctypes
import os
import random
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

from tests.support.wait import DEADLINE_S, wait_for

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of <sched.h>
_random = random.SystemRandom()  # pytest-randomly seeds the other one the same in every run


class Network:
    """A namespace with one link to this one. It lasts no longer than the process of the test.

    Its addresses are some of those for measuring devices (RFC 2544).
    """

    def __init__(self) -> None:
        net = f"198.{_random.choice((18, 19))}.{_random.randrange(256)}."
        low = _random.randrange(0, 256, 4)
        self.here, self.there = f"{net}{low + 1}", f"{net}{low + 2}"
        # Whoever looks at its standard input ends with it, and takes the namespace along.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self._space = Path(f"/proc/{self._holder.pid}/ns/net")
        wait_for(lambda: self._inode() not in (None, _inode_of("self")), what="the namespace is there")
        link, holder = f"pstk{self._holder.pid}", str(self._holder.pid)
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", holder)
        for run, name, address in ((_run, link, self.here), (self._run_there, "eth0", self.there)):
            run("ip", "address", "add", f"{address}/30", "dev", name)
            run("ip", "link", "set", name, "up")

    def connect(self, port: int, *, receive_bytes: int | None = None) -> socket.socket:
        """Connect from there to a port of here.

        Args:
            port: the port.
            receive_bytes: what the client's end holds for it; None for what is usual.
        """
        connection = self._new_socket()
        connection.settimeout(DEADLINE_S)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect((self.here, port))
        return connection

    def cut(self) -> None:
        """Let nothing through any more that is said there."""
        self._run_there("ip", "route", "add", "blackhole", self.here)

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(DEADLINE_S)

    def _new_socket(self) -> socket.socket:
        """One that is there: a socket stays in the namespace that its thread was in."""
        made: list[socket.socket] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with self._space.open() as space:
                if libc.setns(space.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def _run_there(self, *command: str) -> None:
        _run("nsenter", f"--net={self._space}", *command)

    def _inode(self) -> str | None:
        return _inode_of(str(self._holder.pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _inode_of(process: str) -> str | None:
    """The name of a process's network namespace; None while it is not to be had."""
    try:
        return os.readlink(f"/proc/{process}/ns/net")
    except OSError:
        return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S)
