"""Wakes the coroutines of a foreign event loop, however many, with one call to it.

A call to another thread's loop costs a system call; an event for a thousand coroutines must not cost a
thousand of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary, ref


class Wakeups:
    """Sets events of one loop from any thread.

    Args:
        loop: the loop whose coroutines wait. It is not kept alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._due: deque[asyncio.Event] = deque()
        self._called = False

    def of(self, event: asyncio.Event) -> Callable[[], None]:
        """What sets an event of the loop, from any thread."""

        def wake() -> None:
            self._due.append(event)
            if not self._called:
                self._called = True
                self._call()

        return wake

    def _call(self) -> None:
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._set)
                return
        self._called = False
        self._due.clear()  # nobody waits any more

    def _set(self) -> None:
        self._called = False  # first: what comes from now on calls again
        while self._due:
            self._due.popleft().set()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Wakeups] = WeakKeyDictionary()


def wakeups() -> Wakeups:
    """Those of the running loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Wakeups(loop)
    return found
