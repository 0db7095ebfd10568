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
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._making: set[asyncio.Task[None]] = set()  # connections that have no other end yet
        self._pipes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")

    @property
    def connections(self) -> int:
        """How many pass through it now."""
        return len(self._open) // 2

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

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=512)

    async def _mend(self) -> None:
        self._to_server.set()
        self._to_client.set()
        if self._server is None:
            await self._listen()

    def _close_ways(self, to_server: bool, to_client: bool) -> None:
        if to_server:
            self._to_server.clear()
        if to_client:
            self._to_client.clear()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        for writer in list(self._open):
            _reset(writer)
        await _cancel(self._pipes | self._making)

    async def _end(self) -> None:
        await self._cut()
        await _cancel(asyncio.all_tasks() - {asyncio.current_task()})  # what was just being accepted

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._making.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            return
        finally:
            self._making.discard(task)
        self._open |= {writer, server_writer}
        pipes = {
            asyncio.create_task(self._pipe(reader, server_writer, self._to_server)),
            asyncio.create_task(self._pipe(server_reader, writer, self._to_client)),
        }
        self._pipes |= pipes
        try:
            await asyncio.wait(pipes)
        finally:
            self._pipes -= pipes
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
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, as a machine does that knows nothing of the connection."""
    with contextlib.suppress(OSError):
        plain: socket.socket = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
