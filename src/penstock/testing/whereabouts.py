"""Where an app is that does not come back: what a failed test shows of it."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

_SHOWN = 5  # the innermost lines
_NOT_TOLD = (str(Path(__file__).parent), threading.__file__)


def of_thread(thread: threading.Thread) -> str:
    """The lines of code where a thread is, for the end of a message; empty if it is over."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return ""
    return _told(traceback.extract_stack(frame))


def of_task(task: asyncio.Task[Any]) -> str:
    """The same for a task that is suspended; what its own tasks do is not seen."""
    found: list[tuple[FrameType, int]] = []
    step: object = task.get_coro()
    while step is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(step, f"{kind}_frame", None)
            if isinstance(frame, FrameType):
                found.append((frame, frame.f_lineno))
                break
        step = (
            getattr(step, "cr_await", None)
            or getattr(step, "gi_yieldfrom", None)
            or getattr(step, "ag_await", None)
        )
    return _told(list(traceback.StackSummary.extract(iter(found))))


def _told(stack: list[traceback.FrameSummary]) -> str:
    theirs = [line for line in stack if not line.filename.startswith(_NOT_TOLD)]
    if not theirs:
        return ""
    lines = "".join(traceback.format_list(theirs[-_SHOWN:]))
    return f"\nthe app is here:\n{lines}".rstrip()
