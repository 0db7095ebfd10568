"""Drains streams on the signal that ends the server.

Servers wait for open connections before they tell the app that they stop, and a stream is an open
connection: so both would wait for each other. Others cut all connections at once. So the streams get the
signal first, and the handler that was there when they are over: a few milliseconds later, as a rule.

Servers that hear of signals through their loop's own pipe do so as before, and at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any
from weakref import WeakSet

from penstock.engine.engine import Engine

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE_S = 1.0  # a client that takes nothing does not keep the signal from the server for longer
LOOK_S = 0.01
REMEMBERED = 2  # handlers: who put his own in the place of ours may call ours, and that the one before

_engines: WeakSet[Engine] = WeakSet()
_process: int | None = None  # whose engines they are
_before: dict[int, list[Any]] = {}  # the handlers that ours took the place of, the newest last
_active: dict[int, int] = dict.fromkeys(SIGNALS, 0)  # how many of those are just being called
_kept_back: set[int] = set()  # signals that came, and that they have not got yet


def drain_on_signal(engine: Engine) -> bool:
    """Drain an engine's streams when the process is told to end.

    Returns:
        False where it cannot be: outside the main thread Python sets no handlers. Whoever runs a server
        in another thread calls ``drain()`` when it stops.
    """
    global _process
    if threading.current_thread() is not threading.main_thread():
        return False
    if _process != os.getpid():  # in a child process the engines are the parent's
        _process = os.getpid()
        _engines.clear()
        _kept_back.clear()
    _engines.add(engine)
    for number in SIGNALS:
        _take_over(number)
    return True


def _take_over(number: int) -> None:
    there = signal.getsignal(number)
    if there in (_on_signal, signal.SIG_IGN, None):  # the last was not set by Python, and cannot be called
        return
    handlers = _before.setdefault(number, [])
    if there in handlers:
        handlers.remove(there)
    handlers.append(there)
    del handlers[:-REMEMBERED]
    signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    engines = list(_engines) if _process == os.getpid() else []
    for engine in engines:
        engine.begin_drain()
    loop: asyncio.AbstractEventLoop | None = None
    with contextlib.suppress(RuntimeError):
        loop = asyncio.get_running_loop()
    impatient = number in _kept_back  # whoever says it twice means it
    if loop is None or impatient or _active[number] or not any(engine.has_clients for engine in engines):
        _pass_on(number, frame)
    else:
        _kept_back.add(number)
        loop.call_soon_threadsafe(_look, loop, engines, number, time.monotonic() + PATIENCE_S)


def _look(loop: asyncio.AbstractEventLoop, engines: list[Engine], number: int, deadline: float) -> None:
    if any(engine.has_clients for engine in engines) and time.monotonic() < deadline:
        loop.call_later(LOOK_S, _look, loop, engines, number, deadline)
    else:
        loop.call_later(LOOK_S, _pass_on_late, number)  # the server has still to write the last bytes


def _pass_on_late(number: int) -> None:
    if number in _kept_back:
        _pass_on(number, None)


def _pass_on(number: int, frame: FrameType | None) -> None:
    _kept_back.discard(number)
    handlers = _before[number][: len(_before[number]) - _active[number]]
    if not handlers:
        return
    _active[number] += 1
    try:
        if callable(handlers[-1]):
            handlers[-1](number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    finally:
        _active[number] -= 1
