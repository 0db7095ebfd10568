"""Waiting for a fact, with a deadline: the only place of the tests that may sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0  # what has not happened by then on a busy machine does not happen
_STEP_S = 0.005


def wait_for(
    condition: Callable[[], T],
    deadline_s: float = DEADLINE_S,
    what: str | Callable[[], str] = "the condition",
) -> T:
    """Ask again and again until the answer is true, and give that answer.

    ``what`` names the fact in the error; a callable may also tell how far things came.
    """
    deadline = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            name = what if isinstance(what, str) else what()
            raise AssertionError(f"did not happen within {deadline_s:g} s: {name}")
        time.sleep(_STEP_S)
    return answer
