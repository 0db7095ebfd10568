"""How the command reaches a log: by its URL, without making one by mistake, and without trimming it.

A mistyped name must not make an empty log that looks like the right one: only ``publish`` may begin a log.
And what an app keeps is the app's to say: no command applies a retention that it was not given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock import Gap, GapReason, Penstock, Position, Record
from penstock.core.channel import Subscription
from penstock.core.position import find_gap
from penstock.errors import ConfigError, LogUnavailable
from penstock.log import open_log
from penstock.log.base import Findable, Log, latest

READ_EVENTS = 500  # a step of reading what is stored


def named_log(url: str) -> Log:
    """The log that a URL names, not opened yet."""
    log = open_log(url)
    if not log.shared:
        raise ConfigError(f"{log.url} is in the memory of one process: no command can reach it")
    return log


@contextlib.contextmanager
def opened_log(url: str) -> Iterator[Log]:
    """The log that a URL names, which must be there."""
    log = named_log(url)
    if is_missing(log):
        raise LogUnavailable(f"there is no log {log.url}; is the name right? Nothing was created")
    try:
        log.open()
        yield log
    finally:
        log.close()


def bus_of(url: str, **options: Any) -> Penstock:
    """A bus that trims nothing."""
    return Penstock(url, max_age=None, max_events=None, max_bytes=None, **options)


def file_of(log: Log) -> Path | None:
    """The file that a log is, if it is one."""
    path = getattr(log, "path", None)
    return path if isinstance(path, Path) else None


def is_missing(log: Log) -> bool:
    """Whether to open the log would begin it."""
    return isinstance(log, Findable) and not log.exists()


def time_of(log: Log, seq: int) -> float | None:
    """The time of a record, or of the next that there is."""
    return next((record.time for record in log.read(seq - 1, 1)), None)


def stored(
    log: Log,
    wanted: Subscription,
    after: Position | str | None,
    last: int | None,
    tell: Callable[[Gap], None],
) -> Iterator[Record]:
    """What a log holds now of a subscription, and no more.

    Args:
        log: the log.
        wanted: the subscription.
        after: begin after this position; ``earliest`` or None for the first record that there is.
        last: begin with the last so many instead.
        tell: is told of events that are gone.
    """
    epoch, first, head = bounds = log.bounds()
    seq = first - 1
    if last is not None:
        newest = latest(log, wanted, last, ends=False)
        seq = newest[0].seq - 1 if newest else head
    elif isinstance(after, Position):
        gap = find_gap(after, bounds)
        if gap is not None:
            tell(gap)
        seq = gap.resumes.seq if gap is not None else after.seq
    while seq < head:
        records = log.read(seq, READ_EVENTS)
        if records and records[0].epoch != epoch:
            now = log.bounds()
            tell(Gap(GapReason.EPOCH, f"{epoch}:{seq}", Position(now.epoch, now.first - 1)))
            return
        following = records[0].seq if records else head + 1
        if following > seq + 1:  # trimmed meanwhile
            tell(Gap(GapReason.EXPIRED, f"{epoch}:{seq}", Position(epoch, following - 1)))
        yield from (record for record in records if record.seq <= head and wanted.covers(record.channel))
        seq = records[-1].seq if records else head
