"""The event loop that a log runs its driver on, in a native thread of its own.

Callers block in threads of theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from penstock import threads
from penstock.errors import Closed, LogUnavailable
from penstock.log.nats.sockets import Loop

T = TypeVar("T")


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
