"""Thousands of streams of one server, read by one thread of the test.

with Crowd(server, "/events?channel=chat") as crowd:
    crowd.open(10_000)
    ...
    crowd.wait_for(b"data: the last\\n")
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import Self

from tests.support.processes import Server
from tests.support.wait import DEADLINE_S

_AT_ONCE = 100  # connections that are being opened at a time: fewer than a listener keeps waiting
_GREETED = b"event: penstock.position\ndata: \n\n"


class Crowd:
    """Streams of one path, and what each of them was sent: its bytes as they came, head and framing too."""

    def __init__(self, server: Server, path: str) -> None:
        self._address = ("127.0.0.1", server.port)
        self._request = f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n".encode()
        self._selector = selectors.DefaultSelector()
        self.streams: dict[socket.socket, bytearray] = {}
        self.closed = 0

    def open(self, count: int, deadline_s: float = 300.0) -> None:
        """Open so many more, until each has had its first bytes."""
        deadline = time.monotonic() + deadline_s
        goal = len(self.streams) + count
        waiting: set[socket.socket] = set()
        while len(self.streams) < goal or waiting:
            while len(self.streams) < goal and len(waiting) < _AT_ONCE:
                stream = socket.create_connection(self._address, timeout=DEADLINE_S)
                stream.sendall(self._request)
                stream.setblocking(False)
                self._selector.register(stream, selectors.EVENT_READ)
                self.streams[stream] = bytearray()
                waiting.add(stream)
            self._read(0.1)
            waiting = {stream for stream in waiting if _GREETED not in self.streams[stream]}
            assert not self.closed, f"{self.closed} streams were closed"
            assert time.monotonic() < deadline, f"{len(waiting)} of {len(self.streams)} had no first bytes"

    def wait_for(self, marker: bytes, deadline_s: float = DEADLINE_S) -> None:
        """Wait until each stream has been sent this."""
        deadline = time.monotonic() + deadline_s
        lacking = set(self.streams)
        while lacking := {stream for stream in lacking if marker not in self.streams[stream]}:
            assert time.monotonic() < deadline, f"{len(lacking)} of {len(self.streams)} lack {marker!r}"
            self._read(0.1)

    def drop(self) -> None:
        """All clients leave."""
        for stream in self.streams:
            stream.close()
        self.streams.clear()
        self._selector.close()

    def _read(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            stream = key.fileobj
            assert isinstance(stream, socket.socket)
            with contextlib.suppress(BlockingIOError):
                data = stream.recv(65_536)
                self.streams[stream] += data
                if not data:
                    self.closed += 1
                    self._selector.unregister(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()
