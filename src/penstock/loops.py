"""An event loop for threads of ``penstock.threads``.

Where gevent has patched selectors and sockets, asyncio would take those, and wait for a hub that the thread
does not have. This one is made of what they were before.
"""

from __future__ import annotations

import _socket
import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from penstock import threads

Selector: Callable[[], selectors.BaseSelector] = threads.unpatched("selectors", "DefaultSelector")


class UnpatchedLoop(asyncio.SelectorEventLoop):
    """Of an unpatched selector, with a pair of unpatched sockets to wake it by."""

    def __init__(self) -> None:
        super().__init__(Selector())

    def _make_self_pipe(self: Any) -> None:
        pair = [threads.Socket(fileno=end.detach()) for end in _socket.socketpair()]
        for end in pair:
            end.setblocking(False)
        self._ssock, self._csock = pair
        self._internal_fds += 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)
