"""Follows the log, whoever wrote: one thread per process, supervised.

It hands what it reads to the engine's loop and waits until that has taken it, so it never runs ahead.
When the log is away it tries again with back-off and jitter and goes on from where the ring is; nothing
that happens ends it but ``close``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from penstock import threads
from penstock.engine.inbox import Moved, News
from penstock.engine.notices import warn
from penstock.engine.ring import Ring
from penstock.errors import LogError, PenstockError
from penstock.log.base import READ_BYTES, Log

logger = logging.getLogger("penstock.tail")

READ_EVENTS = 1_000  # at most so many in one turn of the loop
MUCH_BYTES = READ_BYTES // 4  # a read that holds as much may have been cut short
# A flood is read in fewer, larger pieces: so many at a time come only with thousands in a second.
BUSY_EVENTS, BUSY_PAUSE_S = 50, 0.002
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between tries while the log is away


class Tail:
    """The follower of a log.

    Args:
        log: the log.
        ring: tells what is known already; written by the loop alone.
        deliver: hands news to the loop, and returns once it has been taken.
        changed: is told when the log went away or came back.
    """

    def __init__(
        self,
        log: Log,
        ring: Ring,
        deliver: Callable[[News], None],
        changed: Callable[[], None],
    ) -> None:
        self._log = log
        self._ring = ring
        self._deliver = deliver
        self._changed = changed
        self._stop = threads.Event()
        self._thread = threads.Thread(self._run, "penstock-tail")
        self.looked = threads.Event()  # set once the log was found, or was found to be away
        self.error: BaseException | None = None

    @property
    def state(self) -> str:
        """``following``, ``away``, or ``starting``, or ``stopped``."""
        if self._stop.is_set():
            return "stopped"
        if self.error is not None:
            return "away"
        return "following" if self.looked.is_set() else "starting"

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following. The log must be closed for the thread to notice at once."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                self._log.open()
                self._find()
                pause_s = FIRST_PAUSE_S
                while not self._stop.is_set():
                    if not self._read_on():  # what came since the read ends the wait at once
                        self._log.wait(self._ring.head)
            except Exception as error:
                if self._stop.is_set():
                    break
                self._went_away(error)
            self._stop.wait(pause_s * random.uniform(0.7, 1.3))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self.looked.set()

    def _find(self) -> None:
        """See where the log is, and whether it can be followed from where the ring is."""
        head = self._ring.head  # before the log is asked: this process may append in between
        bounds = self._log.bounds()
        if bounds.epoch != self._ring.epoch:
            if self._ring.epoch is not None:
                warn(logger, "%s has a new epoch; its streams are told", self._log.url)
            self._deliver(Moved(bounds, bounds.head))
        elif bounds.head < head:
            warn(
                logger,
                "%s lost what it had: its head went from %d back to %d. A new epoch begins",
                self._log.url, head, bounds.head,
            )  # fmt: skip
            self._log.open(renew=bounds.epoch)
            bounds = self._log.bounds()
            self._deliver(Moved(bounds, bounds.head))
        if self.error is not None:
            warn(logger, "%s is back", self._log.url, about=self._log.url)
        self.error = None
        self.looked.set()
        self._changed()

    def _read_on(self) -> bool:
        """Hand on what there is. Whether there may be more already."""
        head = self._ring.head
        records = self._log.read(head, READ_EVENTS)
        if records and records[0].epoch == self._ring.epoch:
            if records[0].seq > head + 1:  # trimmed before this process came to read it
                self._deliver(Moved(self._log.bounds(), records[0].seq - 1))
            self._deliver(records)
            if len(records) == READ_EVENTS or sum([len(one.data) for one in records]) >= MUCH_BYTES:
                return True
            if len(records) >= BUSY_EVENTS:
                self._stop.wait(BUSY_PAUSE_S)
            return False
        bounds = self._log.bounds()
        if bounds.epoch != self._ring.epoch or bounds.head < head:
            self._find()
            return True
        if bounds.first > head + 1:  # trimmed, and nothing came after it yet
            self._deliver(Moved(bounds, bounds.first - 1))
            return True
        return False

    def _went_away(self, error: Exception) -> None:
        first = self.error is None
        self.error = error
        if isinstance(error, LogError):
            warn(
                logger,
                "cannot follow the log: %s. Streams stay open; trying again",
                error,
                about=self._log.url,
            )
        elif first or not isinstance(error, PenstockError):
            logger.error("following %s failed; trying again", self._log.url, exc_info=error)
        self.looked.set()
        if first:
            self._changed()
