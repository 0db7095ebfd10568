"""Following a log in Python, with a thread (``for``) or a coroutine (``async for``)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from penstock import greenlets
from penstock.core.channel import Subscription
from penstock.core.position import Gap
from penstock.core.record import Record
from penstock.core.stream import Closing
from penstock.core.wire import Block, Entry
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Origin, Wish
from penstock.engine.wakeups import wakeups
from penstock.errors import GapError

OnGap = Callable[[Gap], None]


class Subscriber:
    """An iterator of records, which follows from the moment it is made until it is closed.

    Args:
        engine: whose log is followed; it is started.
        subscription: what is followed.
        wish: where it begins.
        on_gap: is told of events that are gone; without it they are an error.
    """

    def __init__(self, engine: Engine, subscription: Subscription, wish: Wish, on_gap: OnGap | None) -> None:
        engine.start("subscribe()")
        origin = engine.find_origin(subscription, wish)
        self._engine = engine
        self._on_gap = on_gap
        self._woken = greenlets.new_event()
        self._items: deque[Entry | Gap] = _first(origin)
        self._pull = engine.open(subscription, origin, self._woken.set, client=False)
        self._open = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        while self._open:
            while self._items:
                item = self._items.popleft()
                if isinstance(item, Entry):
                    return item.record
                _tell(item, self._on_gap)
            self._woken.clear()
            step = self._pull.poll()
            if step is Next.WAIT:
                self._woken.wait()
            elif step is Next.CLOSED:
                self.close()
            else:
                _keep(self._engine.apart(self._pull.read) if step is Next.READ else step, self._items)
        raise StopIteration

    def close(self) -> None:
        """Stop following, from any thread; whoever waits for a record is let go.

        Also happens at the end of a ``with`` block, and of the object itself.
        """
        if self._open:
            self._open = False
            self._pull.close(Closing.LEFT)
            self._engine.leave(self._pull)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()


async def follow(
    engine: Engine, subscription: Subscription, wish: Wish, on_gap: OnGap | None
) -> AsyncIterator[Record]:
    """As ``Subscriber``, for coroutines; it begins with the first record that is asked for."""
    woken = asyncio.Event()

    def begin() -> Origin:
        engine.start("asubscribe()")
        return engine.find_origin(subscription, wish)

    origin = await asyncio.to_thread(begin)
    items = _first(origin)
    pull = engine.open(subscription, origin, wakeups().of(woken), client=False)
    try:
        while True:
            while items:
                item = items.popleft()
                if isinstance(item, Entry):
                    yield item.record
                else:
                    _tell(item, on_gap)
            woken.clear()
            step = pull.poll()
            if step is Next.WAIT:
                await woken.wait()
            elif step is Next.CLOSED:
                return
            else:
                _keep(await asyncio.to_thread(pull.read) if step is Next.READ else step, items)
    finally:
        engine.leave(pull)


def _first(origin: Origin) -> deque[Entry | Gap]:
    return deque([origin.gap] if origin.gap is not None else [])


def _keep(block: Block | Next | None, items: deque[Entry | Gap]) -> None:
    if isinstance(block, Block):
        items.extend(item for item in block.items if isinstance(item, Entry | Gap))


def _tell(gap: Gap, on_gap: OnGap | None) -> None:
    if on_gap is None:
        raise GapError(gap)
    on_gap(gap)
