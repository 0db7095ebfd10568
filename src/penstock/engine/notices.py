"""Log lines for operators, each kind at most once a minute: a flood hides what it tells."""

from __future__ import annotations

import logging
import time

INTERVAL_S = 60.0

# No lock: a line told twice does less harm than a lock that a fork copies while it is held.
_last: dict[tuple[str, str], float] = {}


def warn(logger: logging.Logger, message: str, *args: object, about: str = "") -> None:
    """Log a warning, unless the same was logged within the last minute.

    Args:
        logger: where to.
        message: the message's format, which is also its kind.
        args: what it is formatted with.
        about: tells apart what is to be told separately: a log's URL.
    """
    kind = (message, about)
    now = time.monotonic()
    if now - _last.get(kind, -INTERVAL_S) < INTERVAL_S:
        return
    _last[kind] = now
    logger.warning(message, *args)
