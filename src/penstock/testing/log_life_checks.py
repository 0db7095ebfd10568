# ruff: noqa: D103  a check's name is its docstring
"""The contract of a log as checks: opening, epochs, waiting, closing.

See ``log_checks``.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from penstock.core.event import Event
from penstock.core.position import Position
from penstock.errors import Closed
from penstock.log.base import WAIT_S, Log, Retention
from penstock.testing.storage import (
    ALL,
    DEADLINE_S,
    Check,
    Fresh,
    everything,
    expected_records,
    holds,
    join,
    logs,
    same,
    some,
    threads,
    until_there_are,
)

_AT_ONCE_S = WAIT_S / 2  # what takes longer was not woken but timed out
_TRIES = 3  # the machine may be busy at one of them

# Epochs


def opening_again_changes_nothing(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        appended = log.append(some(3))
        before = log.bounds()
        same(before.epoch, appended.epoch, "the epoch that an append tells")
        log.open()
        other.open()
        for each in (log, other):
            same(each.bounds(), before, "bounds after opening it again")
            same(everything(each), expected_records(some(3), appended), "records after it")


def what_is_stored_is_there_for_the_next_log(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener) as [log]:
        appended = log.append(some(3))
        before = log.bounds()
    with logs(opener) as [log]:
        same(log.bounds(), before, "bounds after all logs were closed")
        same(everything(log), expected_records(some(3), appended), "records after it")


def renewing_keeps_the_records_under_a_new_epoch(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        log.append([*some(4), Event("check", "with a key", key="key")])
        log.trim(Retention(None, 3, None))
        before = log.read(0, ALL)
        old = log.bounds()
        log.open(renew=old.epoch)
        new = log.bounds()
        holds(new.epoch != old.epoch, "the epoch is another")
        same(Position(new.epoch, 0).epoch, new.epoch, "an epoch that can stand in a position")
        wanted = [record._replace(epoch=new.epoch) for record in before]
        for each in (log, other):
            same(each.bounds(), old._replace(epoch=new.epoch), "bounds under the new epoch")
            same(everything(each), wanted, "records under the new epoch")
        appended = other.append([Event("check", "again", key="key"), *some(1)])
        same((appended.epoch, list(appended.seqs)), (new.epoch, [5, 6]), "an append under it")
    with logs(opener) as [log]:
        same(log.bounds().epoch, new.epoch, "the epoch after all logs were closed")


def only_the_present_epoch_is_renewed(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        first = log.bounds().epoch
        log.open(renew="nosuchepoch")
        same(log.bounds().epoch, first, "the epoch after another was to be renewed")
        log.open(renew=first)
        second = log.bounds().epoch
        other.open(renew=first)
        same(log.bounds().epoch, second, "the epoch after the one before was to be renewed again")


def of_many_that_renew_one_does(fresh: Fresh) -> None:
    opener = fresh()
    begin = threading.Barrier(6)
    seen: list[str] = []

    def renew(log: Log, old: str) -> None:
        begin.wait(DEADLINE_S)
        log.open(renew=old)
        seen.append(log.bounds().epoch)

    with logs(opener, begin.parties) as made:
        made[0].append(some(3))
        for _ in range(5):
            old = made[0].bounds().epoch
            seen.clear()
            join(*(partial(renew, log, old) for log in made))
            epoch = made[0].bounds().epoch
            same(set(seen), {epoch}, "the epochs that those saw who renewed")
            made[-1].open(renew=old)
            same(made[0].bounds().epoch, epoch, "the epoch after one more, who came late")
            holds(old not in seen, "the epoch is another")


# Waiting


def wait_ends_soon_when_another_appended(fresh: Fresh) -> None:
    opener = fresh()
    told: list[float] = []
    heard: list[float] = []
    with logs(opener, 2) as [follower, writer]:

        def follow() -> None:
            after, deadline = 0, time.monotonic() + DEADLINE_S
            while after < 5 and time.monotonic() < deadline:
                if records := follower.read(after, ALL):
                    after = records[-1].seq
                    heard.append(time.monotonic())
                else:
                    follower.wait(after)

        with threads(follow):
            for number in range(1, 6):
                time.sleep(0.02)  # it waits by now; if it does not, it must not miss what comes
                told.append(time.monotonic())
                writer.append(some(1))
                until_there_are(heard, number, "an append is heard")
        delay = statistics.median(b - a for a, b in zip(told, heard, strict=True))
        holds(delay < _AT_ONCE_S, f"an append ends wait(); a follower had it after {delay:.3f} s")


def wait_does_not_miss_what_came_before_it(fresh: Fresh) -> None:
    opener = fresh()
    delays = []
    with logs(opener, 2) as [follower, writer]:
        for number in range(_TRIES):
            _wait_out(follower, number)
            same(follower.read(number, ALL), [], "records that follow the head")
            writer.append(some(1))
            began = time.monotonic()
            follower.wait(number)
            delays.append(time.monotonic() - began)
            if number and delays[-1] < _AT_ONCE_S:
                break
    holds(min(delays) < _AT_ONCE_S, f"what came after read() ends wait(); it took {delays} s")


def _wait_out(log: Log, after: int) -> None:
    """Wait until there is nothing more to be heard of."""
    for _ in range(3):
        began = time.monotonic()
        log.wait(after)
        if time.monotonic() - began > 0.01:
            return


def wait_for_nothing_takes_its_time_and_ends(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        log.append(some(3))
        turns, began = 0, time.monotonic()
        took: list[float] = []
        while time.monotonic() - began < 0.6 or (min(took) >= WAIT_S + 2.0 and turns < _TRIES):
            turns += 1
            one = time.monotonic()
            log.wait(3)
            took.append(time.monotonic() - one)
        holds(min(took) < WAIT_S + 2.0, f"wait() ends after about WAIT_S; it took {min(took):.1f} s")
        holds(turns <= 120, f"wait() waits; it ended {turns} times in 0.6 s")


def close_ends_wait(fresh: Fresh) -> None:
    begun = threading.Event()
    ended: list[float] = []

    def wait(log: Log) -> None:
        begun.set()
        with contextlib.suppress(Closed):
            log.wait(1)
        ended.append(time.monotonic())

    delays: list[float] = []
    while len(delays) < _TRIES and min(delays, default=_AT_ONCE_S) >= _AT_ONCE_S:
        begun.clear()
        with logs(fresh()) as [log]:
            log.append(some(1))
            log.wait(1)  # the first may end at once
            with threads(partial(wait, log)):
                begun.wait(DEADLINE_S)
                time.sleep(0.05)
                began = time.monotonic()
                log.close()
            delays.append(max(0.0, ended[-1] - began))
    holds(min(delays) < _AT_ONCE_S, f"close() ends wait(); it took {min(delays):.3f} s and more")


# The end


def a_closed_log_says_so(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        appended = log.append(some(2))
        log.close()
        log.close()
        uses: dict[str, Callable[[], object]] = {
            "open": log.open,
            "append": lambda: log.append(some(1)),
            "read": lambda: log.read(0, 1),
            "bounds": log.bounds,
            "wait": lambda: log.wait(0),
            "trim": lambda: log.trim(Retention(None, 0, None)),
        }
        for name, use in uses.items():
            try:
                use()
            except Closed:
                continue
            raise AssertionError(f"broken: {name}() after close() raises Closed")
        same(everything(other), expected_records(some(2), appended), "what another log reads")
        same(other.append(some(1)).first, 3, "its next seq")


def a_log_that_was_never_opened_can_be_closed(fresh: Fresh) -> None:
    log = fresh()()
    log.close()
    log.close()


CHECKS: Sequence[Check] = (
    opening_again_changes_nothing,
    what_is_stored_is_there_for_the_next_log,
    renewing_keeps_the_records_under_a_new_epoch,
    only_the_present_epoch_is_renewed,
    of_many_that_renew_one_does,
    wait_ends_soon_when_another_appended,
    wait_does_not_miss_what_came_before_it,
    wait_for_nothing_takes_its_time_and_ends,
    close_ends_wait,
    a_closed_log_says_so,
    a_log_that_was_never_opened_can_be_closed,
)
