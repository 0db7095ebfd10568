"""Group commit: many callers, few appends, and to each its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock import Event, LogUnavailable, Position, Record
from penstock.engine import appender as appender_module
from penstock.engine.appender import Appender
from penstock.errors import Closed, LogFull
from penstock.log.base import Log
from penstock.log.memory import MemoryLog
from penstock.log.sqlite import SQLiteLog
from tests.support import sqlite
from tests.support.wait import DEADLINE_S, wait_for


class Stored:
    """What the appender told of new records."""

    def __init__(self) -> None:
        self.groups: list[list[Record]] = []

    def __call__(self, records: list[Record]) -> None:
        self.groups.append(records)

    @property
    def records(self) -> list[Record]:
        return [record for group in self.groups for record in group]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(file: Path) -> Iterator[SQLiteLog]:
    log = SQLiteLog(file, busy_timeout_s=60.0)
    log.open()
    yield log
    log.close()


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def appender(log: SQLiteLog, stored: Stored) -> Iterator[Appender]:
    appender = Appender(log, stored, patience_s=60.0)
    yield appender
    appender.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def waiting(appender: Appender, count: int) -> Callable[[], bool]:
    """Whether so many callers wait behind the one that appends."""
    return lambda: (
        appender._appending.locked() and sum(len(group.tickets) for group in appender._groups) == count
    )


def read_all(log: Log) -> list[Record]:
    return log.read(0, 1_000_000)


def append_in(threads: ThreadPoolExecutor, appender: Appender, *events: Event) -> Future[list[Position]]:
    return threads.submit(appender.append, events)


def test_a_lone_caller_needs_no_thread(appender: Appender, stored: Stored, log: SQLiteLog) -> None:
    before = set(threading.enumerate())
    positions = appender.append([Event("a", "1"), Event("a", "2")])
    assert [position.seq for position in positions] == [1, 2]
    assert set(threading.enumerate()) <= before
    assert stored.groups == [read_all(log)]
    assert appender.published == 2


def test_those_who_come_meanwhile_share_one_append(
    appender: Appender, stored: Stored, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    with sqlite.locked(file):
        calls = [append_in(threads, appender, Event("a", "leader"))]
        wait_for(waiting(appender, 0))
        for number in range(40):
            calls.append(append_in(threads, appender, Event("a", str(number)), Event("b", str(number))))
        wait_for(waiting(appender, 40))
    answers = [call.result() for call in calls]
    records = read_all(log)
    assert len({record.time for record in records}) == 2, "two appends for 41 callers"
    assert [len(group) for group in stored.groups] == [1, 80]
    assert stored.records == records
    for number, positions in enumerate(answers[1:]):
        own = [records[position.seq - 1] for position in positions]
        assert [(record.channel, record.data) for record in own] == [("a", str(number)), ("b", str(number))]
        assert positions[1].seq == positions[0].seq + 1, "what belongs together stays together"


def test_many_threads_get_each_its_own_position(
    appender: Appender, stored: Stored, log: SQLiteLog, threads: ThreadPoolExecutor
) -> None:
    def publish(name: str) -> list[tuple[Position, str]]:
        told = []
        for number in range(40):
            events = [Event(name, f"{number}.{part}") for part in range(number % 3 + 1)]
            positions = appender.append(events)
            told += [(position, event.data) for position, event in zip(positions, events, strict=True)]
        return told

    names = [f"t{number}" for number in range(16)]
    answers = dict(zip(names, threads.map(publish, names), strict=True))
    records = read_all(log)
    assert stored.records == records, "told in the order of the log"
    assert [record.seq for record in records] == list(range(1, appender.published + 1))
    for name, told in answers.items():
        assert told == [(record.position, record.data) for record in records if record.channel == name]


@pytest.mark.parametrize("limit", ["MAX_GROUP_EVENTS", "MAX_GROUP_CHARS"])
def test_a_group_has_a_largest_size(
    appender: Appender,
    stored: Stored,
    file: Path,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    monkeypatch.setattr(appender_module, limit, 10)
    with sqlite.locked(file):
        calls = [append_in(threads, appender, Event("a", "x"))]
        wait_for(waiting(appender, 0))
        calls += [append_in(threads, appender, Event("a", "x")) for _ in range(25)]
        calls += [append_in(threads, appender, *[Event("a", "x")] * 12)]  # larger by itself: it goes alone
        wait_for(waiting(appender, 26))
    assert len({position for call in calls for position in call.result()}) == 38
    sizes = [len(group) for group in stored.groups]
    assert sum(sizes) == 38
    assert sorted(sizes)[-2:] == [10, 12]


def test_a_key_is_stored_once_and_told_once(appender: Appender, stored: Stored) -> None:
    events = [Event("a", "1", key="k"), Event("a", "2", key="k"), Event("a", "3")]
    assert [position.seq for position in appender.append(events)] == [1, 1, 2]
    assert [position.seq for position in appender.append(events[:1])] == [1]
    assert [record.data for record in stored.records] == ["1", "3"]
    assert appender.published == 2


# Errors


def unstorable() -> Event:
    """An event that SQLite cannot bind. No such event can be made; here is one all the same."""
    event = Event("a", "unstorable", retry=1)
    object.__setattr__(event, "retry", 2**70)
    return event


def test_one_bad_event_is_an_error_of_its_own_caller_alone(
    appender: Appender, stored: Stored, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    with sqlite.locked(file):
        first = append_in(threads, appender, Event("a", "leader"))
        wait_for(waiting(appender, 0))
        good = [append_in(threads, appender, Event("a", f"good {number}")) for number in range(5)]
        bad = append_in(threads, appender, Event("a", "not stored either"), unstorable())
        good += [append_in(threads, appender, Event("a", f"good {number}")) for number in range(5, 10)]
        wait_for(waiting(appender, 11))
    with pytest.raises(OverflowError):
        bad.result()
    seqs = {call.result()[0].seq for call in [first, *good]}
    assert seqs == set(range(1, 12))
    assert {record.data for record in read_all(log)} == {"leader", *(f"good {n}" for n in range(10))}
    assert stored.records == read_all(log), "each once"


def fill(log: SQLiteLog, file: Path) -> None:
    """Leave room in the file for small events only. The limit is one of the writer's connection."""
    with contextlib.closing(sqlite3.connect(file)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    with log._file.writing("limit the file") as connection:
        connection.execute(f"PRAGMA max_page_count = {pages + 10}")


def test_a_full_disk_is_an_error_of_those_that_need_the_room(
    appender: Appender, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    fill(log, file)
    with sqlite.locked(file):
        first = append_in(threads, appender, Event("a", "leader"))
        wait_for(waiting(appender, 0))
        small = [append_in(threads, appender, Event("a", "small")) for _ in range(3)]
        large = append_in(threads, appender, Event("a", "x" * 200_000))
        small += [append_in(threads, appender, Event("a", "small")) for _ in range(3)]
        wait_for(waiting(appender, 7))
    started = time.monotonic()
    with pytest.raises(LogFull):
        large.result()
    assert time.monotonic() - started < 10.0, "no trying again: it does not mend by itself"
    assert {call.result()[0].seq for call in [first, *small]} == set(range(1, 8))


def test_a_full_disk_is_an_error_of_those_coroutines_that_need_the_room(
    appender: Appender, log: SQLiteLog, file: Path
) -> None:
    fill(log, file)

    async def publish_all() -> list[list[Position] | BaseException]:
        with sqlite.locked(file):
            sizes = [10, 10, 200_000, 10]
            calls = [asyncio.ensure_future(appender.append_async([Event("a", "x" * size)])) for size in sizes]
            await asyncio.sleep(0)
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(publish_all())
    assert [isinstance(answer, LogFull) for answer in answers] == [False, False, True, False]


def test_a_caller_waits_for_a_log_that_comes_back(file: Path, stored: Stored) -> None:
    log = SQLiteLog(file, busy_timeout_s=0.01)
    log.open()
    appender = Appender(log, stored, patience_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        with sqlite.locked(file):
            call = pool.submit(appender.append, [Event("a", "x")])
            with pytest.raises(LogUnavailable):
                log.append([Event("a", "no patience")])
            assert not call.done()
        assert call.result(DEADLINE_S)[0].seq == 1
    log.close()


def test_a_callers_patience_has_an_end_and_nothing_is_stored(file: Path, stored: Stored) -> None:
    log = SQLiteLog(file, busy_timeout_s=0.01)
    log.open()
    appender = Appender(log, stored, patience_s=0.2)
    with sqlite.locked(file):
        started = time.monotonic()
        with pytest.raises(LogUnavailable, match="nothing was stored"):
            appender.append([Event("a", "x")])
        assert 0.1 < time.monotonic() - started < DEADLINE_S
    assert read_all(log) == stored.records == []
    assert appender.append([Event("a", "y")])[0].seq == 1
    log.close()


def test_what_was_stored_is_not_stored_again_when_its_listener_fails(
    log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    def fail(records: list[Record]) -> None:
        raise RuntimeError("the listener failed")

    appender = Appender(log, fail, patience_s=60.0)
    with sqlite.locked(file):
        calls = [append_in(threads, appender, Event("a", "leader"))]
        wait_for(waiting(appender, 0))
        calls += [append_in(threads, appender, Event("a", str(number))) for number in range(3)]
        wait_for(waiting(appender, 3))
    errors = [call.exception(DEADLINE_S) for call in calls]
    assert [type(error) for error in errors].count(RuntimeError) == 2, "those that led are told"
    assert len(read_all(log)) == 4


# Interrupts


def interrupt_main_thread_when(condition: Callable[[], bool], *, asleep_in: str) -> threading.Thread:
    """Send SIGINT once the condition holds and the main thread sleeps in that function."""
    main = threading.main_thread().ident
    assert main is not None
    seen: list[tuple[str, int]] = []

    def sleeps() -> bool:
        """Whether it was at the same place at three looks."""
        frame = sys._current_frames()[main]
        seen.append((frame.f_code.co_name, frame.f_lasti))
        return seen[-1][0] == asleep_in and seen[-3:] == seen[-1:] * 3

    def run() -> None:
        wait_for(condition)
        wait_for(sleeps)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_in_a_caller_that_waits_does_not_block_those_behind_it(
    appender: Appender, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    behind: list[Future[list[Position]]] = []

    def come_behind() -> bool:
        if waiting(appender, 1)() and not behind:
            behind.append(append_in(threads, appender, Event("a", "behind")))
        return waiting(appender, 2)()

    with sqlite.locked(file):
        before = append_in(threads, appender, Event("a", "leader"))
        wait_for(waiting(appender, 0))
        interrupter = interrupt_main_thread_when(come_behind, asleep_in="_lead")
        with pytest.raises(KeyboardInterrupt):
            appender.append([Event("a", "interrupted")])
    interrupter.join()
    assert before.result(DEADLINE_S)[0].seq == 1
    assert behind[0].result(DEADLINE_S)[0].seq == 2
    assert [record.data for record in read_all(log)] == ["leader", "behind"]
    assert appender._groups == [], "nobody joins a group that has lost its leader"
    assert appender.append([Event("a", "next")])[0].seq == 3


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_in_a_caller_that_another_leads_takes_back_its_event_alone(
    appender: Appender, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    with sqlite.locked(file):
        calls = [append_in(threads, appender, Event("a", "first"))]
        wait_for(waiting(appender, 0))
        calls += [append_in(threads, appender, Event("a", "leader"))]
        wait_for(waiting(appender, 1))
        interrupter = interrupt_main_thread_when(waiting(appender, 2), asleep_in="_wait")
        with pytest.raises(KeyboardInterrupt):
            appender.append([Event("a", "interrupted")])
        calls += [append_in(threads, appender, Event("a", "follower"))]
        wait_for(waiting(appender, 2))
    interrupter.join()
    assert [call.result(DEADLINE_S)[0].seq for call in calls] == [1, 2, 3]
    assert [record.data for record in read_all(log)] == ["first", "leader", "follower"]


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_in_the_caller_that_appends_leaves_the_lead_to_the_next(
    appender: Appender, log: SQLiteLog, file: Path, threads: ThreadPoolExecutor
) -> None:
    behind: list[Future[list[Position]]] = []
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def come_behind() -> bool:
        if waiting(appender, 0)() and not behind:
            behind.append(append_in(threads, appender, Event("a", "behind")))
        return waiting(appender, 1)()

    interrupter = interrupt_main_thread_when(come_behind, asleep_in="transaction")

    # A signal is not seen before the wait for the lock, which is SQLite's, is over.
    def release() -> None:
        interrupter.join()
        holder.execute("ROLLBACK")

    releaser = threading.Thread(target=release)
    releaser.start()
    with pytest.raises(KeyboardInterrupt):
        appender.append([Event("a", "interrupted")])
    releaser.join()
    holder.close()
    assert behind[0].result(DEADLINE_S)
    assert appender.append([Event("a", "next")])
    assert [record.data for record in read_all(log)][-2:] == ["behind", "next"]


# Coroutines


def test_coroutines_of_many_loops_share_one_thread(
    appender: Appender, stored: Stored, log: SQLiteLog, threads: ThreadPoolExecutor
) -> None:
    before = set(threading.enumerate())
    started: set[threading.Thread] = set()

    async def publish(name: str, number: int) -> tuple[Position, str]:
        (position,) = await appender.append_async([Event(name, str(number))])
        return position, str(number)

    async def publish_many(name: str) -> list[tuple[Position, str]]:
        told = await asyncio.gather(*[publish(name, number) for number in range(100)])
        started.update(set(threading.enumerate()) - before)
        return told

    names = [f"loop{number}" for number in range(6)]
    answers = dict(zip(names, threads.map(lambda name: asyncio.run(publish_many(name)), names), strict=True))
    assert len([thread for thread in started if thread.name == "penstock-append"]) == 1
    assert len(started) <= len(names) + 1
    records = read_all(log)
    assert stored.records == records
    assert len(records) == 600
    assert len(stored.groups) < 300, "many share an append"
    for name, told in answers.items():
        assert told == [(record.position, record.data) for record in records if record.channel == name]


def test_a_coroutine_that_is_cancelled_harms_no_other(
    appender: Appender, log: SQLiteLog, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[list[Position]]:
        with sqlite.locked(file):
            calls = [
                asyncio.ensure_future(appender.append_async([Event("a", str(number))]))
                for number in range(10)
            ]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
        return await asyncio.gather(*calls[1::2])

    with caplog.at_level(logging.WARNING):
        answers = asyncio.run(main())
    records = read_all(log)
    assert [records[position.seq - 1].data for (position,) in answers] == ["1", "3", "5", "7", "9"]
    wait_for(lambda: len(read_all(log)) == 10, what="what was under way is stored all the same")
    assert caplog.records == []


def test_a_loop_that_is_closed_meanwhile_harms_no_other(
    appender: Appender, log: SQLiteLog, file: Path
) -> None:
    loop = asyncio.new_event_loop()
    with sqlite.locked(file):
        task = loop.create_task(appender.append_async([Event("a", "left alone")]))
        loop.call_soon(loop.stop)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    assert asyncio.run(appender.append_async([Event("a", "after")]))
    assert [record.data for record in read_all(log)] == ["left alone", "after"]


def test_one_bad_event_is_an_error_of_its_own_coroutine_alone(
    appender: Appender, log: SQLiteLog, file: Path
) -> None:
    async def main() -> list[list[Position] | BaseException]:
        with sqlite.locked(file):
            events = [Event("a", "1"), unstorable(), Event("a", "2")]
            calls = [asyncio.ensure_future(appender.append_async([event])) for event in events]
            await asyncio.sleep(0)
        return await asyncio.gather(*calls, return_exceptions=True)

    one, bad, other = asyncio.run(main())
    assert isinstance(bad, OverflowError)
    assert not isinstance(one, BaseException)
    assert not isinstance(other, BaseException)
    assert [record.data for record in read_all(log)] == ["1", "2"]


def test_after_close_coroutines_are_told_so_and_the_thread_ends(stored: Stored) -> None:
    log = MemoryLog()
    appender = Appender(log, stored, patience_s=1.0)
    assert asyncio.run(appender.append_async([Event("a", "x")]))
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "penstock-append"]
    appender.close()
    with pytest.raises(Closed, match="not stored"):
        asyncio.run(appender.append_async([Event("a", "y")]))
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert len(read_all(log)) == 1
