"""The event loop that a log runs its driver on, in a native thread of its own.

Callers block in threads of theirs. Where gevent has patched sockets, selectors and threads, this loop is
made of what they were before: nothing here waits for a hub.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import os
import selectors
import socket
import ssl
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from penstock import threads
from penstock.errors import Closed, LogUnavailable

T = TypeVar("T")
_Selector: Callable[[], selectors.BaseSelector] = threads.unpatched("selectors", "DefaultSelector")

# What is written is handed on at once: a publish that waited in a buffer might leave after it was given up.
_WRITE_BUFFER_BYTES = 256 * 1024 * 1024


class LoopThread:
    """A loop in a thread: started by the first call, ended by ``close``.

    Args:
        name: the thread's name.
        closed: what to say after ``close``.
    """

    def __init__(self, name: str, closed: str) -> None:
        self._name = name
        self._closed_text = closed
        self._mutex = threads.Lock()  # guards all that follows
        self._thread: threads.Thread | None = None
        self._calls: set[_Call[Any]] = set()
        self._closed = False
        self.loop: Loop | None = None

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop, and wait for its end.

        Raises:
            Closed: if the loop was closed, or is meanwhile.
        """
        call = _Call(work)
        with self._mutex:
            self._check_open()
            loop = self.loop or self._start()
            self._calls.add(call)
            loop.call_soon_threadsafe(call.begin, loop)
        try:
            call.over.acquire()
        except BaseException:  # KeyboardInterrupt: nobody waits for it any more
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(call.cancel)
            raise
        finally:
            with self._mutex:
                self._calls.discard(call)
        if call.cancelled:
            raise Closed(self._closed_text)
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None  # or the traceback would keep itself alive
        return call.result  # type: ignore[return-value]

    def _start(self) -> Loop:
        loop = self.loop = Loop()
        self._thread = threads.Thread(self._run, self._name)
        try:
            self._thread.start()
        except RuntimeError as error:
            self.loop = self._thread = None
            loop.close()
            raise LogUnavailable(
                f"no thread is to be had for the log ({error}); nothing was stored"
            ) from error
        return loop

    def check_open(self) -> None:
        """Raise ``Closed`` if it was closed."""
        with self._mutex:
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(self._closed_text)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End what is at work, and the thread. May be called twice.

        Args:
            last: what to do on the loop in the end.
        """
        with self._mutex:
            first, self._closed = not self._closed, True
            loop, thread = self.loop, self._thread
            if loop is not None and first:
                self._last = last
                loop.call_soon_threadsafe(loop.stop)
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        assert self.loop is not None
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._end())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            with self._mutex:
                left = list(self._calls)
            for call in left:  # what was asked for too late to begin
                call.finish_cancelled()

    async def _end(self) -> None:
        own = asyncio.current_task()
        with self._mutex:
            calls = list(self._calls)
        await _cancel([call.task for call in calls if call.task is not None])
        with contextlib.suppress(Exception):
            await self._last()
        await _cancel([task for task in asyncio.all_tasks() if task is not own])


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Call(Generic[T]):
    """A coroutine that a thread waits for."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self.task: asyncio.Task[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.over = threads.Lock()
        self.over.acquire()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._work())
        self.task.add_done_callback(self._finish)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def finish_cancelled(self) -> None:
        if self.over.locked():
            self.cancelled = True
            self.over.release()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.cancelled = True
        elif (error := task.exception()) is not None:
            self.error = error
        else:
            self.result = task.result()
        self.over.release()


class Loop(asyncio.SelectorEventLoop):
    """A loop whose sockets are unpatched.

    Attributes:
        transport: the one that was made last.
        must_be_secured: whether nothing may be sent before TLS is begun.
        secured: whether it is.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.must_be_secured = False
        self.secured = False
        super().__init__(_Selector())

    def _make_self_pipe(self: Any) -> None:
        pair = [threads.Socket(fileno=end.detach()) for end in _socket.socketpair()]
        for end in pair:
            end.setblocking(False)
        self._ssock, self._csock = pair
        self._internal_fds += 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **more: Any
    ) -> Any:
        """As asyncio's, for a host and a port."""
        self.transport, self.secured = None, False
        error: OSError | None = None
        for family, kind, protocol, _, address in await self._addresses(host, port):
            sock = threads.Socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                await self.sock_connect(sock, address)
            except OSError as failed:
                error = failed
                sock.close()
                continue
            except BaseException:
                sock.close()
                raise
            _protect(sock)
            transport, client = await super().create_connection(factory, sock=sock, **more)
            transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
            if self.must_be_secured:
                transport.write = self._guarded(transport.write)  # type: ignore[method-assign,assignment]
            self.transport = transport
            return transport, client
        raise error or OSError(f"{host} has no address")

    async def start_tls(self, *args: Any, **more: Any) -> Any:
        """As asyncio's."""
        self.secured = True
        return await super().start_tls(*args, **more)

    def _guarded(self, write: Callable[[Any], None]) -> Callable[[Any], None]:
        def write_if_secured(data: Any) -> None:
            if not self.secured:
                raise ssl.SSLError("the server has no TLS, which tls=yes demands: nothing was said to it")
            write(data)

        return write_if_secured

    async def _addresses(self, host: str, port: int) -> list[Any]:
        """Numbers are no question; a name is asked for in a thread, for that may take its time."""

        def ask(flags: int = 0) -> list[Any]:
            return _socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)

        with contextlib.suppress(OSError):
            return ask(socket.AI_NUMERICHOST)
        pool = threads.Pool(1, "penstock-nats-name")
        try:
            return await pool.submit_for(self, ask)
        finally:
            pool.close()


# Forks

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_registered = False


def _protect(sock: socket.socket) -> None:
    """Let no child of this process close, shut down or write to its connection."""
    global _registered
    _sockets.add(sock)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """In a child: whatever destructors do to the parent's sockets, they do to nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for sock in list(_sockets):
        if sock.fileno() >= 0:
            os.dup2(nothing, sock.fileno(), inheritable=False)
    os.close(nothing)
    _sockets.clear()
