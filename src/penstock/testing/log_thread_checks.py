# ruff: noqa: D103  a check's name is its docstring
"""The contract of a log as checks: what holds while many use it at once.

See ``log_checks``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from functools import partial

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.errors import Closed
from penstock.log.base import Appended, Log, Retention
from penstock.testing.storage import (
    Check,
    Fresh,
    everything,
    expected_records,
    holds,
    join,
    logs,
    numbers,
    same,
    some,
    threads,
    until_there_are,
)

_APPENDS = 25  # of each thread


def concurrent_appends_are_dense_and_in_order(fresh: Fresh) -> None:
    """Whoever looks meanwhile sees whole appends, and nothing before what precedes it."""
    opener = fresh()
    done: list[tuple[list[Event], Appended]] = []
    over = threading.Event()
    with logs(opener, 4) as writers, logs(opener, 2) as [reader, watcher]:

        def write(log: Log, name: str) -> None:
            last = 0
            for turn in range(_APPENDS):
                events = [Event(name, f"{turn} {part}") for part in range(1 + turn % 4)]
                appended = log.append(events)
                done.append((events, appended))
                holds(appended.first > last, "seqs of one thread rise")
                last = appended.seqs[-1]

        def write_all() -> None:
            try:
                join(*(partial(write, log, f"writer/{n}") for n, log in enumerate([*writers] * 2)))
            finally:
                over.set()

        def read() -> None:
            after, last = 0, False
            records: list[Record] = []
            while records or not last:
                last = over.is_set()
                records = reader.read(after, 7)
                wanted = list(range(after + 1, after + len(records) + 1))
                same(numbers(records), wanted, "seqs that are read while others append")
                after += len(records)

        def watch() -> None:
            heads = {0}
            while not over.is_set():
                heads.add(head := watcher.bounds().head)
                if head:
                    same(numbers(watcher.read(head - 1, 1)), [head], "the record at the head")
            ends = {0, *(appended.seqs[-1] for _, appended in done)}
            holds(heads <= ends, "nobody sees a part of an append")

        join(write_all, read, watch)
        done.sort(key=lambda each: each[1].first)
        wanted = [record for each in done for record in expected_records(*each)]
        same(numbers(wanted), list(range(1, len(wanted) + 1)), "the seqs that the appends told")
        same(everything(reader), wanted, "the records, against what the appends told")


def one_log_serves_many_threads(fresh: Fresh) -> None:
    over = threading.Event()
    with logs(fresh()) as [log]:

        def write() -> None:
            for _ in range(_APPENDS):
                log.append(some(4))

        def write_all() -> None:
            try:
                join(write, write)
            finally:
                over.set()

        def read() -> None:
            after, last = 0, False
            records: list[Record] = []
            while records or not last:
                last = over.is_set()
                if records := log.read(after, 50):
                    first = records[0].seq
                    holds(first > after, "what is read follows")
                    same(numbers(records), list(range(first, first + len(records))), "seqs")
                    after = records[-1].seq

        def trim() -> None:
            for _ in range(_APPENDS):
                log.trim(Retention(None, 50, None))
                _, first, head = log.bounds()
                holds(1 <= first <= head + 1, "bounds while others append and trim")

        join(write_all, read, read, trim)
        log.trim(Retention(None, 50, None))
        same(log.bounds()[1:], (8 * _APPENDS - 49, 8 * _APPENDS), "first and head in the end")
        same(len(everything(log)), 50, "how many are left")


def concurrent_appends_of_one_key_store_it_once(fresh: Fresh) -> None:
    opener = fresh()
    seqs: list[int] = []

    def write(log: Log) -> None:
        for turn in range(_APPENDS):
            seqs.extend(log.append([Event("check", "once", key=f"key {turn}")]).seqs)

    with logs(opener, 4) as made:
        join(*(partial(write, log) for log in [*made, *made]))
        same(made[0].bounds()[1:], (1, _APPENDS), "first and head")
        same(set(seqs), set(range(1, _APPENDS + 1)), "the seqs that the appends told")


def close_may_come_amid_everything(fresh: Fresh) -> None:
    """What is told as stored is stored; whoever is at work ends, by an answer or by Closed."""
    told: list[int] = []

    def append(log: Log) -> None:
        with contextlib.suppress(Closed):
            while True:
                told.extend(log.append(some(1)).seqs)

    def read(log: Log) -> None:
        with contextlib.suppress(Closed):
            while True:
                log.read(0, 10)
                log.bounds()

    for _ in range(5):
        opener = fresh()
        told.clear()
        with logs(opener) as [log], threads(*map(partial, [append, append, read, read], [log] * 4)):
            until_there_are(told, 5, "something is appended")
            log.close()
        with logs(opener) as [log]:
            holds({*told} <= {*numbers(everything(log))}, "what was told as stored is stored")


CHECKS: Sequence[Check] = (
    concurrent_appends_are_dense_and_in_order,
    one_log_serves_many_threads,
    concurrent_appends_of_one_key_store_it_once,
    close_may_come_amid_everything,
)
