"""Applies the retention now and then, off the publish path.

There is no thread while there is nothing to do: whoever notices that it is time, a publisher or the
engine's sweep, starts one that trims and ends.
"""

from __future__ import annotations

import logging
import time

from penstock import threads
from penstock.engine.notices import warn
from penstock.errors import PenstockError
from penstock.log.base import Log, Retention

logger = logging.getLogger("penstock.trim")

INTERVAL_S = 30.0
INTERVAL_EVENTS = 10_000  # of this process: a flood is trimmed sooner


class Trimmer:
    """Trims a log in the background.

    Args:
        log: the log.
        retention: what it keeps.
    """

    def __init__(self, log: Log, retention: Retention) -> None:
        self._log = log
        self._retention = retention
        self._mutex = threads.Lock()
        self._thread: threads.Thread | None = None
        self._due_at = time.monotonic() + INTERVAL_S
        self._events = 0
        self._closed = False

    def tick(self, events: int = 0) -> None:
        """Trim if it is time. Returns at once.

        Args:
            events: how many were stored since the last call.
        """
        self._events += events  # a lost count between threads only delays
        if self._events < INTERVAL_EVENTS and time.monotonic() < self._due_at:
            return
        with self._mutex:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._events = 0
            self._due_at = time.monotonic() + INTERVAL_S
            thread = threads.Thread(self._trim, "penstock-trim")
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had now; what was stored is stored all the same
                return
            self._thread = thread

    def close(self, timeout_s: float) -> None:
        """Start no more, and wait for the one that is at work."""
        with self._mutex:
            self._closed = True
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _trim(self) -> None:
        try:
            removed = self._log.trim(self._retention)
        except PenstockError as error:
            if not self._closed:
                warn(logger, "could not trim the log: %s", error, about=self._log.url)
        else:
            if removed:
                logger.debug("trimmed %d records of %s", removed, self._log.url)
