"""Gets to know the connections of streams that are tasks, so that a client that vanished is noticed.

The server alone could tell, and only when the kernel gives the connection up, a quarter of an hour later. So
the connection is looked for among the process's own, and its client is asked after as every other is. One
search serves all streams that began meanwhile: there may be thousands, and as many descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from penstock import threads
from penstock.doors.ends import Ends, connections, ends_of
from penstock.engine.engine import Engine
from penstock.engine.patience import Patience

SEARCH_S = 0.5  # after the first stream that is not known yet

_all: WeakKeyDictionary[Engine, _Acquaintances] = WeakKeyDictionary()


def get_to_know(engine: Engine, scope: MutableMapping[str, Any]) -> Callable[[], None]:
    """Have a client given up if it vanishes. To be called once the stream is open, on the server's loop.

    Behind a proxy that tells its clients' addresses no such connection is found: the proxy is asked after
    by nobody, and stays.

    Args:
        engine: whose stream it is.
        scope: the ASGI connection scope of its request.

    Returns:
        What is to be called when the stream is over.
    """
    ends = ends_of(scope.get("client"), scope.get("server"))
    loop = engine.loop
    if ends is None or loop is None:
        return _nothing
    known = _all.get(engine)
    if known is None:
        known = _all.setdefault(engine, _Acquaintances(loop, engine.patience))
    _on(loop, known.add, ends)
    return lambda: _on(loop, known.forget, ends)


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[Ends], None], ends: Ends) -> None:
    with contextlib.suppress(RuntimeError):  # the engine is closed, and so are its streams
        loop.call_soon_threadsafe(call, ends)


def _nothing() -> None:
    pass


class _Acquaintances:
    """The connections of one engine's streams. All but the search happens on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: Patience) -> None:
        self._loop = loop
        self._patience = patience
        self._strangers: set[Ends] = set()
        self._searching = False
        self._known: dict[Ends, int] = {}  # their descriptors

    def add(self, ends: Ends) -> None:
        self._strangers.add(ends)
        if not self._searching:
            self._searching = True
            self._loop.call_later(SEARCH_S, self._search)

    def forget(self, ends: Ends) -> None:
        self._strangers.discard(ends)
        fd = self._known.pop(ends, None)
        if fd is not None:
            self._patience.forget(fd, ends[0])

    def _search(self) -> None:
        wanted = frozenset(self._strangers)
        with contextlib.suppress(RuntimeError):  # no thread is to be had now: the next finds these too
            threads.Thread(lambda: self._find(wanted), "penstock-search").start()
            return
        self._searching = False

    def _find(self, wanted: frozenset[Ends]) -> None:
        found = {ends: connection.fileno() for ends, connection in connections() if ends in wanted}
        with contextlib.suppress(RuntimeError):  # the engine is closed
            self._loop.call_soon_threadsafe(self._meet, wanted, found)

    def _meet(self, wanted: frozenset[Ends], found: dict[Ends, int]) -> None:
        for ends, fd in found.items():
            if ends in self._strangers:  # else it has left meanwhile
                self._known[ends] = fd
                self._patience.look_after(fd, ends[0])
        self._strangers -= wanted  # who was not found now will not be
        self._searching = False
        if self._strangers:
            self.add(self._strangers.pop())
