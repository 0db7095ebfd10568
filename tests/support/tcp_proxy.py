"""A TCP proxy of a test's own, which stands for the network: it can be cut, slow, or deaf.

with TcpProxy(server.port) as network:
    connect("127.0.0.1", network.port)
    network.cut()      # every connection breaks, and new ones are refused
    network.mend()
    network.deafen()   # connections stay, and nothing passes
    network.delay_s = 0.05  # each way
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.ports import free_port
from tests.support.wait import DEADLINE_S

_T = TypeVar("_T")
_CHUNK = 65_536


class TcpProxy:
    """Forwards what comes to ``port`` of 127.0.0.1 to another port there, and back.

    Attributes:
        port: where it listens; stays the same however often it is cut.
        target: where to; may be changed, new connections go there.
        delay_s: how long each piece is on its way, in each direction.
        accepted: how many connections were made through it so far.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self.delay_s = 0.0
        self.accepted = 0
        self._to_server, self._to_client = asyncio.Event(), asyncio.Event()  # set: what comes passes
        # Not an asyncio.Server: one that is closed leaves open what it had just accepted.
        self._listener: socket.socket | None = None
        self._fresh: set[socket.socket] = set()  # accepted just now
        self._open: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")

    @property
    def connections(self) -> int:
        """How many pass through it now."""
        return len(self._forwarding)

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until ``mend``."""
        self._run(self._cut())

    def drop(self) -> None:
        """Reset every connection; new ones are taken."""
        self._run(self._drop())

    def deafen(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing pass that way until ``mend``, while connections stay open.

        With ``to_client`` alone requests arrive and are obeyed, and no answer comes.
        """
        self._loop.call_soon_threadsafe(self._close_ways, to_server, to_client)
        self._run(asyncio.sleep(0))

    def mend(self) -> None:
        """Let all pass again; what waited comes first."""
        self._run(self._mend())

    async def _mend(self) -> None:
        self._to_server.set()
        self._to_client.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _close_ways(self, to_server: bool, to_client: bool) -> None:
        if to_server:
            self._to_server.clear()
        if to_client:
            self._to_client.clear()

    async def _cut(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._drop()

    async def _drop(self) -> None:
        for writer in self._open:
            _reset(writer)
        self._open.clear()
        for accepted in self._fresh:
            accepted.close()
        self._fresh.clear()
        tasks = list(self._forwarding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:  # it has gone again
            return
        accepted.setblocking(False)
        self.accepted += 1
        self._fresh.add(accepted)
        task = self._loop.create_task(self._forward(accepted))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _forward(self, accepted: socket.socket) -> None:
        self._fresh.discard(accepted)
        reader, writer = await asyncio.open_connection(sock=accepted)
        self._open.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._open.discard(writer)
            _reset(writer)
            return
        self._open.add(server_writer)
        async with asyncio.TaskGroup() as ways:
            ways.create_task(self._pipe(reader, server_writer, self._to_server))
            ways.create_task(self._pipe(server_reader, writer, self._to_client))
        self._open -= {writer, server_writer}

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: asyncio.Event
    ) -> None:
        """One direction. Pieces follow one another, so a delay is a lower bound of the real one."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await way.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            await way.wait()
            writer.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._mend())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, as a machine does that knows nothing of the connection."""
    with contextlib.suppress(OSError):
        plain: socket.socket = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
