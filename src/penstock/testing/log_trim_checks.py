# ruff: noqa: D103  a check's name is its docstring
"""The contract of a log as checks: what is trimmed, and what positions mean then.

Each check takes ``fresh`` (see ``penstock.testing.check_log``), uses nothing but the contract, and
raises AssertionError where it is broken. Its name is the fact.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds, GapReason, Position, find_gap
from penstock.log.base import Retention, latest
from penstock.testing.storage import ALL, Check, Fresh, everything, holds, logs, numbers, same, some

# Trimming


def trim_keeps_the_newest_so_many(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        epoch = log.append(some(50)).epoch
        for kept, removed in ((100, 0), (50, 0), (45, 5), (45, 0), (1, 44)):
            same(log.trim(Retention(None, kept, None)), removed, f"removed by trim to {kept}")
            first = 51 - min(kept, 50)
            for each in (log, other):
                same(each.bounds(), Bounds(epoch, first, 50), f"bounds after trim to {kept}")
                same(numbers(everything(each)), list(range(first, 51)), "seqs that are left")
        same(log.append(some(1)).first, 51, "the seq after a trim")


def trim_without_limits_removes_nothing(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        log.append(some(10))
        same(log.trim(Retention(None, None, None)), 0, "removed")
        same(log.trim(Retention()), 0, "removed by the default retention")
        same(numbers(everything(log)), list(range(1, 11)), "seqs that are left")


def seq_goes_on_when_all_was_trimmed(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        epoch = log.append(some(7)).epoch
        same(log.trim(Retention(None, 0, None)), 7, "removed")
        for each in (log, other):
            same(each.bounds(), Bounds(epoch, 8, 7), "bounds of a log that was trimmed to nothing")
            same(each.read(0, ALL), [], "what is read from it")
    with logs(opener) as [log]:
        same(log.bounds(), Bounds(epoch, 8, 7), "its bounds after all logs were closed")
        same(log.append(some(2)).first, 8, "the next seq")
        same(log.bounds(), Bounds(epoch, 8, 9), "bounds after it")


def trim_removes_what_is_too_old(fresh: Fresh) -> None:
    for apart_s in (0.3, 1.0, 5.0):
        with logs(fresh()) as [log]:
            old = log.append(some(10)).time
            time.sleep(apart_s)
            new = log.append(some(10)).time
            holds(new > old, "time goes on")
            same(log.trim(Retention(3600, None, None)), 0, "removed by an age that none has")
            age_s = time.time() - (old + new) / 2
            removed = log.trim(Retention(age_s, None, None))
            if time.time() - age_s > new:  # a busy machine: meanwhile the others were too old as well
                continue
            same(removed, 10, "removed by age")
            same(numbers(everything(log)), list(range(11, 21)), "seqs that are left")
            return


def trim_keeps_to_the_bytes(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        for _ in range(20):  # 4 MB that no compression makes much smaller
            log.append([Event("check", random.randbytes(5_000).hex()) for _ in range(20)])
        same(log.trim(Retention(None, None, 1024**3)), 0, "removed by a limit that is not reached")
        removed = log.trim(Retention(None, None, 1_500_000))
        holds(0 < removed < 400, f"bytes: of 4 MB it keeps up to 1.5 MB; removed: {removed} of 400")
        same(numbers(everything(log)), list(range(removed + 1, 401)), "seqs that are left")
        same(log.trim(Retention(None, None, 1_500_000)), 0, "removed by the same trim again")


# Positions


def positions_are_told_apart(fresh: Fresh) -> None:
    def reason(epoch: str, seq: int) -> GapReason | None:
        gap = find_gap(Position(epoch, seq), log.bounds())
        return gap.reason if gap is not None else None

    with logs(fresh()) as [log]:
        epoch = log.bounds().epoch
        same(reason(epoch, 0), None, "the position 0 in a new log")
        same(reason(epoch, 1), GapReason.AHEAD, "the position 1 in a new log")
        log.append(some(10))
        same([reason(epoch, seq) for seq in (0, 5, 10)], [None] * 3, "positions that are known")
        same(reason(epoch, 11), GapReason.AHEAD, "the position beyond the head")
        log.trim(Retention(None, 4, None))
        same([reason(epoch, seq) for seq in (6, 10)], [None] * 2, "positions that are kept")
        same(reason(epoch, 5), GapReason.EXPIRED, "the position before what is kept")
        log.trim(Retention(None, 0, None))
        same(reason(epoch, 9), GapReason.EXPIRED, "a position in a log that was trimmed to nothing")
        same(reason(epoch, 10), None, "the head of a log that was trimmed to nothing")
        log.open(renew=epoch)
        same(reason(epoch, 10), GapReason.EPOCH, "a position of the epoch before")


# History


def latest_is_what_reading_backwards_finds(fresh: Fresh) -> None:
    names = ["a", "b", "room", "room/1", "room/2", "room/2/typing", "roomy", "é/1"]
    choose = random.Random(7)
    events = [
        Event(name, "", end=True) if choose.random() < 0.2 else Event(name, str(number))
        for number, name in enumerate(choose.choices(names, k=300))
    ]
    wanted = [["a"], ["none"], ["a", "room"], ["room/*"], ["room/**"], ["**"], ["*"], ["*/1", "b"]]
    with logs(fresh()) as [log]:
        log.append(events)
        for kept in (300, 120, 0):
            log.trim(Retention(None, kept, None))
            present = everything(log)
            for subscription in map(Subscription, wanted):
                for limit in (0, 1, 2, 10, 1000):
                    for ends in (True, False):
                        covered = [
                            record
                            for record in present
                            if subscription.covers(record.channel) and (ends or not record.end)
                        ]
                        found = latest(log, subscription, limit, ends=ends)
                        what = f"seqs of the {limit} latest of {subscription}, ends={ends}"
                        same(numbers(found), numbers(covered)[-limit:] if limit else [], what)
                        same(found, covered[-limit:] if limit else [], what)


CHECKS: Sequence[Check] = (
    trim_keeps_the_newest_so_many,
    trim_without_limits_removes_nothing,
    seq_goes_on_when_all_was_trimmed,
    trim_removes_what_is_too_old,
    trim_keeps_to_the_bytes,
    positions_are_told_apart,
    latest_is_what_reading_backwards_finds,
)
