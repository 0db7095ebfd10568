"""The engine's event loop, which only watches descriptors and keeps time.

It is asyncio's, whichever loop the server runs on. Where gevent has patched selectors and sockets, asyncio
would take those; this one is made of what they were before.
"""

from __future__ import annotations

import _socket
import asyncio
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any

from penstock import threads
from penstock.errors import ConfigError

_Selector: Callable[[], selectors.BaseSelector] = threads.unpatched("selectors", "DefaultSelector")


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that is to run in a thread of ``penstock.threads``."""
    if socket.socket is threads.Socket and selectors.DefaultSelector is _Selector:
        return asyncio.SelectorEventLoop()
    return _Unpatched(_Selector())


def refuse_eventlet() -> None:
    """Refuse a process that eventlet has patched: loop and tail would stop all its greenlets.

    Raises:
        ConfigError: if this is one.
    """
    ask = getattr(sys.modules.get("eventlet.patcher"), "is_monkey_patched", None)
    if ask is not None and ask("thread"):
        raise ConfigError(
            "streams do not work where eventlet has patched the threads: serve with gevent, or with real "
            "threads, as gunicorn --worker-class gthread --threads 64. Publishing works here too"
        )


class _Unpatched(asyncio.SelectorEventLoop):
    """Of an unpatched selector, with a pair of unpatched sockets to wake it by."""

    def _make_self_pipe(self: Any) -> None:
        pair = [threads.Socket(fileno=end.detach()) for end in _socket.socketpair()]
        for end in pair:
            end.setblocking(False)
        self._ssock, self._csock = pair
        self._internal_fds += 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)
