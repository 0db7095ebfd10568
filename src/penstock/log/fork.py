"""What must not be at work while the process forks: it is held before, and goes on after.

A child has the parent's memory but none of its threads: what one of them had in its hands stays as it was
at that moment, for ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from penstock import threads


class Holdable(Protocol):
    """What takes part."""

    def hold(self) -> bool:
        """Come to rest, and let nobody begin. False if that cannot be."""
        ...

    def go_on(self) -> None:
        """Called after the fork if it was held; in the child too."""
        ...


_all: weakref.WeakSet[Holdable] = weakref.WeakSet()
_held: list[Holdable] = []
_forking = threads.Lock()
_registered = False


def hold_in_forks(holdable: Holdable) -> None:
    """Hold it during every fork from now on, for as long as it lives."""
    global _registered
    _all.add(holdable)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)


def _before() -> None:
    _forking.acquire()  # two threads that fork at once would each hold what the other waits for
    _held.extend(holdable for holdable in list(_all) if holdable.hold())


def _after() -> None:
    while _held:
        _held.pop().go_on()
    _forking.release()
