# ruff: noqa: D103  a check's name is its docstring
"""The contract of a log as checks: what is appended, and what is read.

Each check takes ``fresh`` (see ``penstock.testing.check_log``), uses nothing but the contract, and
raises AssertionError where it is broken. Its name is the fact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import overload

from penstock.core.event import Event
from penstock.core.position import Position
from penstock.log.base import READ_BYTES, Log, Retention
from penstock.testing.storage import (
    ALL,
    Check,
    Fresh,
    everything,
    expected_records,
    holds,
    logs,
    numbers,
    same,
    some,
)

# Appending


def a_new_log_is_empty(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        epoch, first, head = log.bounds()
        same((first, head), (1, 0), "first and head of a new log")
        same(Position(epoch, head).epoch, epoch, "an epoch that can stand in a position")
        same(log.read(0, 10), [], "what is read from a new log")
        same(log.trim(Retention()), 0, "what is trimmed from a new log")


def each_storage_has_an_epoch_of_its_own(fresh: Fresh) -> None:
    with logs(fresh()) as [one], logs(fresh()) as [other]:
        one.append(some(1))
        same(other.bounds().head, 0, "the head of another storage")
        holds(one.bounds().epoch != other.bounds().epoch, "a log that was made anew has a new epoch")


def what_is_called_first_opens_the_log(fresh: Fresh) -> None:
    firsts: list[Callable[[Log], object]] = [
        lambda log: log.append(some(1)),
        lambda log: log.read(0, 1),
        lambda log: log.bounds(),
        lambda log: log.wait(0),
        lambda log: log.trim(Retention()),
    ]
    for first in firsts:
        log = fresh()()
        try:
            first(log)
            log.append(some(1))
        finally:
            log.close()


def seq_counts_from_one_without_holes(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [one, other]:
        seq = 0
        for count in (1, 3, 1, 2, 40):
            for log in (one, other):
                appended = log.append(some(count))
                same(appended.first, seq + 1, "first")
                same(list(appended.seqs), list(range(seq + 1, seq + count + 1)), "seqs")
                seq += count
        same(one.bounds()[1:], (1, seq), "first and head")
        same(numbers(everything(other)), list(range(1, seq + 1)), "the seqs that are read")


def an_append_of_nothing_stores_nothing(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        log.append(some(2))
        appended = log.append([])
        same((appended.first, list(appended.seqs)), (3, []), "first and seqs of an empty append")
        same(log.bounds().head, 2, "the head after an empty append")
        same(log.append(some(1)).first, 3, "the next seq")


class _Torn(Sequence[Event]):
    """Events, the last of which cannot be had."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events) + 1

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if isinstance(index, int) and index >= len(self._events):
            raise _TornError
        return self._events[index]


class _TornError(Exception):
    pass


def an_append_that_fails_stores_nothing(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        kept = log.append(some(2))
        with contextlib.suppress(_TornError):
            log.append(_Torn([Event("check", "lost", key="lost"), *some(3)]))
            raise AssertionError("an append whose events cannot be had did not fail")
        for each in (log, other):
            same(each.bounds()[1:], (1, 2), "first and head after an append that failed")
            same(everything(each), expected_records(some(2), kept), "records after it")
        appended = log.append([Event("check", "found", key="lost")])
        same((appended.first, list(appended.seqs)), (3, [3]), "the seq after it")
        same(everything(other)[-1].data, "found", "an event with a key that was not stored")


# Values

NASTY_TEXTS = [
    "", " ", "  two  ", "\t", "\0", "a\0b\0", "\r", "\n", "\r\n", "a\rb\nc\r\nd\n", "\n\n", "data: x",
    "\u2028\u2029\u0085\v\f\x1c", "\ufeff", "\ufffd", "\uffff", "\U0001f4a7", "\U0010ffff", "é", "e\u0301",
    "007", "1e3", "0.0", "NULL", "null", "'", '"', "\\", "\\x00", "%s %(x)s ? :x $1 {}", "';--", "\x7f\x01",
    "ß" * 1000, "x" * 200_000, "\0" * 5000, "\U0001f4a7" * 60_000,
]  # fmt: skip
_NASTY_LINES = [text for text in NASTY_TEXTS if 0 < len(text) <= 200 and not set(text) & set("\r\n\0")]


def values_come_back_as_they_went_in(fresh: Fresh) -> None:
    events = [Event("check", text) for text in NASTY_TEXTS]
    events += [Event("check", "typed", event=text) for text in _NASTY_LINES]
    events += [Event("check", "keyed", key=text) for text in _NASTY_LINES]
    events += [Event("check", "retry", retry=retry) for retry in (0, 1, 3000, 86_400_000)]
    events += [Event(name, "channel") for name in ("é", "e\u0301", "CHECK", "\U0001f4a7/b'", "%/?/1")]
    events += [Event("check", "", end=True), Event("check", "all", "type", 1, "key")]
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        appended = log.append(events)
        expected = expected_records(events, appended)
        for each in (log, other):
            for found, wanted in zip(everything(each), expected, strict=True):
                same(found, wanted, "a record")
                same([*map(type, found)], [*map(type, wanted)], "the types of its values")
    with logs(opener) as [log]:
        same(everything(log), expected, "the records after all logs were closed")


def times_are_told_when_stored(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        first, second = log.append(some(2)), log.append(some(1))
        times = [record.time for record in log.read(0, ALL)]
        same(times, [first.time, first.time, second.time], "times")
        holds(all(type(time) is float for time in times), "a time is a float")


# Reading


def read_gives_what_follows_up_to_the_limit(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        log.append(some(30))
        for each in (log, other):
            for after in (0, 1, 17, 29, 30, 31, 1000):
                for limit in (0, 1, 2, 13, 30, 31, 1000):
                    found = numbers(each.read(after, limit))
                    wanted = list(range(after + 1, min(after + limit, 30) + 1))
                    same(found, wanted, f"seqs of read({after}, {limit}) in a log of 30")


def read_gives_the_same_again(fresh: Fresh) -> None:
    opener = fresh()
    with logs(opener, 2) as [log, other]:
        log.append(some(20))
        before = log.read(0, 20)
        log.append(some(20, "later"))
        same(log.read(0, 20), before, "the same read after more was appended")
        same(other.read(0, 20), before, "the same read through another log")
        log.trim(Retention(None, 35, None))
        for each in (log, other):
            same(each.read(0, 15), before[5:], "the same read after its first 5 were trimmed")


def one_read_holds_no_more_than_read_bytes(fresh: Fresh) -> None:
    sizes = [READ_BYTES // 3] * 5 + [10] * 5 + [READ_BYTES + 10_000] + [10] * 5
    with logs(fresh()) as [log]:
        for size in sizes:
            log.append([Event("check", "x" * size)])
        after, reads = 0, 0
        while records := log.read(after, ALL):
            size = sum(len(record.data) for record in records)
            holds(size <= READ_BYTES or len(records) == 1, f"READ_BYTES; one read gave {size}")
            wanted = list(range(after + 1, after + len(records) + 1))
            same(numbers(records), wanted, f"seqs of read({after}, …)")
            after, reads = records[-1].seq, reads + 1
        same(after, len(sizes), "the last seq that was read")
        holds(reads < len(sizes), "small records are read many at a time")


# Keys


def a_key_is_stored_once(fresh: Fresh) -> None:
    def event(key: str | None, channel: str = "check") -> Event:
        return Event(channel, f"{channel} {key}", key=key)

    opener = fresh()
    with logs(opener, 2) as [log, other]:
        steps: list[tuple[list[Event], int, list[int]]] = [
            ([event("a"), event("b")], 1, [1, 2]),
            ([event("a")], 3, [1]),  # in a later batch
            ([event("c"), event("c"), event("d"), event("c")], 3, [3, 3, 4, 3]),  # within a batch
            ([event("a", "other")], 5, [5]),  # on another channel
            ([event(None), event(None)], 6, [6, 7]),  # no key is no key
            ([event("e"), event("a"), event("f"), event("e")], 8, [8, 1, 9, 8]),  # all of it
            ([event("A"), event("a ")], 10, [10, 11]),  # another key
        ]
        for index, (events, first, seqs) in enumerate(steps):
            appended = (log, other)[index % 2].append(events)
            what = [(each.channel, each.key) for each in events]
            same((appended.first, list(appended.seqs)), (first, seqs), f"first and seqs of {what}")
        same(log.bounds()[1:], (1, 11), "first and head")
        same([record.key for record in everything(log)], [*"abcda", None, None, *"ef", "A", "a "], "keys")
    with logs(opener) as [log]:
        same(list(log.append([event("b")]).seqs), [2], "a key after all logs were closed")


def a_key_may_come_again_once_its_record_was_trimmed(fresh: Fresh) -> None:
    with logs(fresh()) as [log]:
        log.append([Event("check", "1", key="a"), Event("check", "2", key="b")])
        log.trim(Retention(None, 1, None))
        appended = log.append([Event("check", "3", key="a"), Event("check", "4", key="b")])
        same((appended.first, list(appended.seqs)), (3, [3, 2]), "first and seqs")
        same([record.data for record in everything(log)], ["2", "3"], "data")


CHECKS: Sequence[Check] = (
    a_new_log_is_empty,
    each_storage_has_an_epoch_of_its_own,
    what_is_called_first_opens_the_log,
    seq_counts_from_one_without_holes,
    an_append_of_nothing_stores_nothing,
    an_append_that_fails_stores_nothing,
    values_come_back_as_they_went_in,
    times_are_told_when_stored,
    read_gives_what_follows_up_to_the_limit,
    read_gives_the_same_again,
    one_read_holds_no_more_than_read_bytes,
    a_key_is_stored_once,
    a_key_may_come_again_once_its_record_was_trimmed,
)
