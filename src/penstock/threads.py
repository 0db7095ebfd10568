"""Threads that are threads, where gevent has patched them too.

gevent's patches make greenlets of threads, and let locks, queues, sockets and selectors wait on the hub of
the greenlets. The engine must run beside the hub, not on it: its threads are real ones, and so is what they
wait with. What the standard library has of that in C is taken as it was before it was patched, whenever
that was; what it builds of it in Python (events, conditions, pools) would be built of the patched parts,
and so is built here once more, in the same way for all.

**A lock of this module is held for a moment only**, and never while something is called that may wait for
a greenlet: a log line, a function of the user's. Two greenlets of one thread would stop it for ever.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import importlib
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def unpatched(module: str, name: str) -> Any:
    """What a module of the standard library has under a name, whoever patched it meanwhile."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        with contextlib.suppress(AttributeError):
            return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name, None)


Lock: Callable[[], threading.Lock] = unpatched("_thread", "allocate_lock")
Local: Callable[[], Any] = unpatched("_thread", "_local")
Queue: Callable[[], Any] = unpatched("queue", "SimpleQueue")
Socket: Callable[..., socket.socket] = unpatched("socket", "socket")
Poll: Callable[[], select.poll] = unpatched("select", "poll")
sleep: Callable[[float], None] = unpatched("time", "sleep")
_start_new_thread: Callable[[Callable[[], None], tuple[()]], int] = unpatched("_thread", "start_new_thread")

_of_this_thread = Local()


def _is_patched() -> bool:
    return _thread.start_new_thread is not _start_new_thread


def is_ours() -> bool:
    """Whether this is a thread that was started here."""
    return hasattr(_of_this_thread, "ours")


class Condition:
    """As ``threading.Condition``, of a lock that its own thread cannot take twice."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[threading.Lock] = deque()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Let the lock go until somebody notifies and the condition is true; give its last answer."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            left_s = -1.0 if deadline is None else deadline - time.monotonic()
            if deadline is not None and left_s <= 0:
                return False
            turnstile = Lock()
            turnstile.acquire()
            self._waiting.append(turnstile)
            self._lock.release()
            try:
                turnstile.acquire(timeout=left_s)
            finally:
                self._lock.acquire()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turnstile)
        return True

    def notify_all(self) -> None:
        """Let all look at their conditions; the lock is held."""
        while self._waiting:
            self._waiting.pop().release()


class Event:
    """As ``threading.Event``, but without a lock: a signal's handler may set it."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: deque[threading.Lock] = deque()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let go whoever waits."""
        self._is_set = True
        with contextlib.suppress(IndexError):  # all are let go
            while True:
                self._waiting.pop().release()

    def clear(self) -> None:
        """Let those wait who come from now on."""
        self._is_set = False

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is set; tell whether it was."""
        turnstile = Lock()
        turnstile.acquire()
        self._waiting.append(turnstile)
        try:  # who waits before it looks is either seen by ``set``, or sees that it is set
            return self._is_set or turnstile.acquire(timeout=-1 if timeout_s is None else max(0, timeout_s))
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turnstile)


class Thread:
    """A thread that the end of the process does not wait for.

    Args:
        target: what it does.
        name: its name.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._over = Event()
        self._started = False
        self._known: threading.Thread | None = None  # as Python knows it, where it may

    def start(self) -> None:
        """Begin."""
        if _is_patched():
            _start_new_thread(self._run, ())
        else:
            self._known = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._known.start()
        self._started = True

    def is_alive(self) -> bool:
        """Whether it was started and is not over."""
        return self._started and not self._over.is_set()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end. In the thread itself this does nothing."""
        if not self._started or getattr(_of_this_thread, "ours", None) is self:
            return
        if self._known is None or _is_patched():
            self._over.wait(timeout_s)
        else:
            self._known.join(timeout_s)

    def _run(self) -> None:
        _of_this_thread.ours = self
        try:
            self._target()
        finally:
            self._over.set()


class Pool:
    """A few threads for what blocks, each started when all before it are busy.

    Args:
        size: the most threads.
        name: their name.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._mutex = Lock()
        self._queue: Any = Queue()
        self._threads = 0
        self._unfinished = 0
        self._closed = False

    def submit(self, call: Callable[[], None]) -> bool:
        """Let a thread call something, which must not raise. False if there is none to do it."""
        with self._mutex:
            if self._closed:
                return False
            if self._unfinished >= self._threads and self._threads < self._size:
                try:
                    Thread(self._work, self._name).start()
                    self._threads += 1
                except RuntimeError:  # no more threads, or the end of the process
                    if not self._threads:
                        return False
            self._unfinished += 1
            self._queue.put(call)
            return True

    def submit_for(self, loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> asyncio.Future[T]:
        """Let a thread call something for a loop.

        Returns:
            A future of the loop, cancelled if there is no thread to do it.
        """
        future: asyncio.Future[T] = loop.create_future()

        def answer(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(answer, result, error)

        if not self.submit(work):
            future.cancel()
        return future

    def close(self) -> None:
        """Take nothing more; the threads end when they have done what there is."""
        with self._mutex:
            self._closed = True
            for _ in range(self._threads):
                self._queue.put(None)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            finally:
                del call  # a thread that waits must not keep what the last one read
                with self._mutex:
                    self._unfinished -= 1
