"""What happens when a stream is over: its place is given back, and whoever wants to know is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

from penstock import greenlets
from penstock.engine.engine import Engine
from penstock.errors import Closed

logger = logging.getLogger("penstock.streams")


class Once:
    """Calls something the first time that it is called."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        """Call it, or do nothing."""
        call, self._call = self._call, None
        if call is not None:
            call()


def over(
    engine: Engine, give_back: Callable[[], None] | None, on_close: Callable[[], object] | None
) -> Callable[[], None]:
    """What is to be called when an answer is over. To be made in the thread that handles the request.

    Args:
        engine: whose it is.
        give_back: gives its place back; None if it has none.
        on_close: the user's. It may block, so no loop calls it: a thread does, or a greenlet where the
            request is handled by one.
    """
    if on_close is None:
        return give_back or _nothing
    tell = greenlets.at_home(lambda: _tell(on_close))

    def end() -> None:
        if give_back is not None:
            give_back()
        engine.call_apart(tell)

    return Once(end)


def _nothing() -> None:
    pass


def _tell(on_close: Callable[[], object]) -> None:
    try:
        on_close()
    except Closed:
        pass  # the process is going, and publishes no more
    except Exception:
        logger.exception("what was to be done when a stream is over failed")
