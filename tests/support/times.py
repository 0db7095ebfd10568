"""Promises that are times, on a machine that may be busy with other things.

A time that is missed is measured again. If it is missed each time, it is held against what the machine
itself needs meanwhile to hand a byte to another process and back: a promise of 5 ms cannot be kept
where each change of process takes as long.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

_TRIES = 5
_MOST = 10  # times what is promised: beyond it no machine is an excuse
_ECHO = "import os\nwhile byte := os.read(0, 1): os.write(1, byte)"


def assert_at_once(measure: Callable[[], float], promised_s: float, *, hops: int) -> None:
    """Assert that a time is kept in one of several measurements, as far as the machine lets it.

    Args:
        measure: measures it, as a median of many.
        promised_s: the time.
        hops: how often on its way it waits for a process or thread to be woken.
    """
    found: list[float] = []
    while len(found) < _TRIES and sum(one > _MOST * promised_s for one in found) < 2:
        found.append(measure())
        allowed_s = promised_s if found[-1] < promised_s else max(promised_s, 2 * hops * hop_s())
        if found[-1] < min(allowed_s, _MOST * promised_s):
            return
    times = ", ".join(f"{one * 1e3:.1f}" for one in found)
    raise AssertionError(f"{times} ms, promised {promised_s * 1e3:g} ms, here {allowed_s * 1e3:.1f} ms")


def hop_s() -> float:
    """How long the machine takes now to wake a process that sleeps: the median."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        times = []
        for _ in range(50):
            time.sleep(0.005)
            began = time.monotonic()
            echo.stdin.write(b"!")
            echo.stdout.read(1)
            times.append((time.monotonic() - began) / 2)
        echo.stdin.close()
    return statistics.median(times)
