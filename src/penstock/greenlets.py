"""How a greenlet waits for a thread: on its hub, so that the others of its thread go on meanwhile.

gevent is not imported here before somebody else has. A greenlet that would block hands the work to a thread
and waits for its answer; a thread that answers many greenlets wakes their hub once for all.

What is used of gevent's inside stands here and in ``doors/gevent.py``.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Generic, TypeVar

from penstock import threads

T = TypeVar("T")


def are_here() -> bool:
    """Whether other greenlets would stop while the caller blocks."""
    gevent = sys.modules.get("gevent._hub_local")
    if gevent is None or threads.is_ours():
        return False
    hub = gevent.get_hub_if_exists()
    return hub is not None and hub is not sys.modules["greenlet"].getcurrent()


def is_one() -> bool:
    """Whether the caller is a greenlet beside others, and not all that its thread does."""
    return are_here() and sys.modules["greenlet"].getcurrent().parent is not None


def main_frame() -> FrameType | None:
    """Where the first greenlet of this thread waits, which started all the others."""
    frame: FrameType | None = sys.modules["gevent"].get_hub().parent.gr_frame if are_here() else None
    return frame


class Event:
    """An event that a greenlet or a thread waits for, each in its own way, and any thread sets.

    Which of the two it is shows when it waits: who made the event may have been the other.
    """

    __slots__ = ("_bell", "_event")

    def __init__(self) -> None:
        self._event = threads.Event()
        self._bell: _Bell | None = None

    def set(self) -> None:
        """Set it; from any thread."""
        self._event.set()
        if self._bell is not None:
            self._bell.ring()

    def clear(self) -> None:
        """Let those wait who come from now on."""
        self._event.clear()

    def wait(self) -> None:
        """Wait until it is set. One waits at a time."""
        if not are_here():
            self._event.wait()
            return
        wakeups = _wakeups()
        if self._bell is None or self._bell.wakeups is not wakeups:
            self._bell = _Bell(wakeups)
        self._bell.wait_until(self._event.is_set)


def new_event() -> Event:
    """An event that the caller, a greenlet or a thread, may wait for."""
    return Event()


class Answer(Generic[T]):
    """What a greenlet waits for, and a thread gives."""

    __slots__ = ("_event", "_given")

    def __init__(self) -> None:
        self._event = Event()
        self._given: tuple[T | None, BaseException | None] | None = None

    def give(self, result: T | None, error: BaseException | None = None) -> None:
        """Give a result or an error; from any thread."""
        self._given = result, error
        self._event.set()

    def wait(self) -> T:
        """Wait for the result, or raise the error."""
        self._event.wait()
        assert self._given is not None
        result, error = self._given
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


def apart(pool: threads.Pool, call: Callable[[], T]) -> T:
    """Call what may block: here, or, if greenlets are here, in a thread while they go on."""
    if not are_here():
        return call()
    answer: Answer[T] = Answer()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:
            answer.give(None, error)
        else:
            answer.give(result)

    return answer.wait() if pool.submit(work) else call()


def at_home(call: Callable[[], None]) -> Callable[[], None]:
    """What any thread may call instead: where the caller is a greenlet, one of its hub does it."""
    if not are_here():
        return call
    from gevent import get_hub, spawn

    loop = get_hub().loop

    def send_home() -> None:
        with contextlib.suppress(AttributeError, ValueError):  # the hub is being destroyed
            loop.run_callback_threadsafe(spawn, call)

    return send_home


class _Wakeups:
    """Rings bells of one hub from any thread, however many at a time, with one call to it."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._due: deque[_Bell] = deque()
        self._called = False
        self._waiting = 0
        self._watcher = hub.loop.async_()
        self._watcher.start(self._ring)
        self._watcher.ref = False

    def call(self, bell: _Bell) -> None:
        """Let the hub ring a bell; from any thread."""
        self._due.append(bell)
        if not self._called and self.hub.loop is not None:
            self._called = True
            with contextlib.suppress(ValueError):  # the hub is being destroyed: nobody waits any more
                self._watcher.send()

    def wait(self, rung: Any) -> None:
        """Wait for a gevent event."""
        # Where nothing may wake its greenlets any more, gevent takes them for lost. Our thread may.
        self._waiting += 1
        self._watcher.ref = True
        self._ring()  # what called just before a fork will not call again
        try:
            rung.wait()
        finally:
            self._waiting -= 1
            self._watcher.ref = self._waiting > 0

    def _ring(self) -> None:
        self._called = False  # first: what comes from now on calls again
        while self._due:
            bell = self._due.popleft()
            bell.due = False  # before it rings, likewise
            bell.rung.set()


class _Bell:
    """How a greenlet of one hub is woken."""

    __slots__ = ("due", "rung", "wakeups")

    def __init__(self, wakeups: _Wakeups) -> None:
        from gevent.event import Event

        self.wakeups = wakeups
        self.rung = Event()
        self.due = False  # somebody rang, and the hub has not come to it

    def ring(self) -> None:
        """From any thread."""
        if not self.due:
            self.due = True
            self.wakeups.call(self)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until it rings and the condition is true."""
        while True:
            self.rung.clear()  # first: whoever changes the condition from now on rings
            if condition():
                return
            self.wakeups.wait(self.rung)


_of_this_thread = threads.Local()


def _wakeups() -> _Wakeups:
    """Those of this thread's hub."""
    from gevent import get_hub

    hub = get_hub()
    found: _Wakeups | None = getattr(_of_this_thread, "wakeups", None)
    if found is None or found.hub is not hub:
        found = _of_this_thread.wakeups = _Wakeups(hub)
    return found
