"""The engine's event loop, which only watches descriptors and keeps time.

It is asyncio's, whichever loop the server runs on.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys

from penstock import threads
from penstock.errors import ConfigError
from penstock.loops import Selector, UnpatchedLoop


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that is to run in a thread of ``penstock.threads``."""
    if socket.socket is threads.Socket and selectors.DefaultSelector is Selector:
        return asyncio.SelectorEventLoop()
    return UnpatchedLoop()


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
