"""The tail follows the log whatever becomes of it: nothing ends it but ``close``."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock import Event, Position, Record
from penstock.core.position import Bounds
from penstock.engine import notices
from penstock.engine import tail as tail_module
from penstock.engine.inbox import Moved, News
from penstock.engine.ring import Ring
from penstock.engine.tail import Tail
from penstock.errors import LogDenied
from penstock.log.base import Log, Retention
from penstock.log.memory import MemoryLog, MemoryStore
from penstock.log.sqlite import SQLiteLog
from tests.support import sqlite
from tests.support.wait import wait_for


class Follower:
    """A tail, and a ring that takes what it brings, as the engine's loop would."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.ring = Ring(100_000, 1 << 30)
        self.records: list[Record] = []
        self.moves: list[Moved] = []
        self.changes: list[str] = []
        self.tail = Tail(log, self.ring, self.take, self.changed)

    def __enter__(self) -> Follower:
        self.tail.start()
        wait_for(self.tail.looked.is_set)
        return self

    def __exit__(self, *exc: object) -> None:
        self.tail.stop()
        self.log.close()
        self.tail.join(30.0)
        assert self.tail.state == "stopped"
        assert not self.tail._thread.is_alive()

    def take(self, news: News) -> None:
        if isinstance(news, Moved):
            self.moves.append(news)
            self.ring.move(*news)
        else:
            assert news[0].seq == self.ring.head + 1, "it directly follows"
            self.ring.append(news)
            self.records += news

    def changed(self) -> None:
        self.changes.append(self.tail.state)

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.records) == count


@pytest.fixture(autouse=True)
def as_if_nothing_was_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_last", {})
    monkeypatch.setattr(tail_module, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def other(file: Path) -> Iterator[SQLiteLog]:
    """The log as another process has it."""
    log = SQLiteLog(file)
    log.open()
    yield log
    log.close()


def some(count: int, size: int = 1) -> list[Event]:
    return [Event("a", "x" * size) for _ in range(count)]


def test_it_begins_at_the_head_and_follows_whoever_wrote(file: Path, other: SQLiteLog) -> None:
    other.append(some(5))
    with Follower(SQLiteLog(file)) as follower:
        assert follower.tail.state == "following"
        assert [(move.bounds.first, move.head) for move in follower.moves] == [(1, 5)]
        other.append(some(2))
        wait_for(follower.has(2))
        follower.log.append(some(2))
        other.append(some(1))
        wait_for(follower.has(5))
        assert [record.seq for record in follower.records] == [6, 7, 8, 9, 10]
        assert follower.changes == ["following"]


def test_a_backlog_of_large_events_is_read_without_a_pause() -> None:
    store = MemoryStore()
    other = MemoryLog(store)
    with Follower(MemoryLog(store)) as follower:
        started = time.monotonic()
        other.append(some(96, 500_000))  # two of them in a read: 48 pauses would be 24 s
        wait_for(follower.has(96))
        assert time.monotonic() - started < 15.0
    other.close()


def test_a_log_that_is_away_at_the_start_is_found_when_it_is_there(
    file: Path, other: SQLiteLog, caplog: pytest.LogCaptureFixture
) -> None:
    epoch = other.bounds().epoch
    other.close()
    with caplog.at_level(logging.WARNING), sqlite.moved_away(file):
        follower = Follower(SQLiteLog(file)).__enter__()
        assert follower.tail.state == "away"
        assert isinstance(follower.tail.error, LogDenied)
        assert follower.moves == []
    wait_for(lambda: follower.tail.state == "following")
    assert [move.bounds.epoch for move in follower.moves] == [epoch]
    assert follower.changes == ["away", "following"]
    follower.__exit__()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "cannot follow the log" in messages[0]
    assert "Streams stay open" in messages[0]
    assert messages[1].endswith("is back")


def test_a_log_that_goes_away_and_comes_back_is_followed_from_where_it_was(
    file: Path, other: SQLiteLog, caplog: pytest.LogCaptureFixture
) -> None:
    with Follower(SQLiteLog(file)) as follower, caplog.at_level(logging.WARNING):
        other.append(some(3))
        wait_for(follower.has(3))
        for _ in range(3):
            with sqlite.unreadable(file):
                other._bell.ring()
                wait_for(lambda: follower.tail.state == "away")
            wait_for(lambda: follower.tail.state == "following")
        other.append(some(2))
        wait_for(follower.has(5))
        assert [record.seq for record in follower.records] == [1, 2, 3, 4, 5]
        assert len(follower.moves) == 1
        assert follower.changes == ["following"] + ["away", "following"] * 3
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "cannot follow" in line]) == 1, "once a minute"


def test_an_error_that_nobody_foresaw_is_logged_whole_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(MemoryLog):
        faulty = True

        def read(self, after: int, limit: int) -> list[Record]:
            if self.faulty:
                raise ZeroDivisionError("not foreseen")
            return super().read(after, limit)

    store = MemoryStore()
    other = MemoryLog(store)
    log = Faulty(store)
    with caplog.at_level(logging.ERROR), Follower(log) as follower:
        wait_for(lambda: caplog.records)
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[0] is ZeroDivisionError
        other.append(some(2))
        log.faulty = False
        wait_for(follower.has(2))
    other.close()


# What the log lost


def test_what_was_trimmed_before_it_was_read_is_jumped(file: Path, other: SQLiteLog) -> None:
    log = SQLiteLog(file)
    follower = Follower(log)
    blocked, go_on = threading.Event(), threading.Event()

    def take_slowly(news: News) -> None:
        Follower.take(follower, news)
        if follower.ring.head == 1:
            blocked.set()
            assert go_on.wait(30)

    follower.tail._deliver = take_slowly
    with follower:
        other.append(some(1))
        assert blocked.wait(30)
        other.append(some(9))
        other.trim(Retention(None, 4, None))
        go_on.set()
        wait_for(lambda: follower.ring.head == 10)
        assert [record.seq for record in follower.records] == [1, 7, 8, 9, 10]
        assert [(move.bounds.first, move.head) for move in follower.moves][1:] == [(7, 6)]


def test_it_is_noticed_that_all_was_trimmed_though_nothing_follows_yet(file: Path, other: SQLiteLog) -> None:
    with Follower(SQLiteLog(file)) as follower:
        with sqlite.unreadable(file):
            other._bell.ring()
            wait_for(lambda: follower.tail.state == "away")
            sqlite.execute(file, "UPDATE log SET trimmed = 5")  # as if five had come and gone
        wait_for(lambda: follower.ring.bounds == Bounds(other.bounds().epoch, 6, 5))
        other.append(some(1))
        wait_for(follower.has(1))
        assert [record.seq for record in follower.records] == [6]


def restore(file: Path, backup: Path) -> None:
    """Play an older copy into the file, as an operator would while the app runs."""
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(file)) as target:
        source.backup(target)


def test_a_log_that_lost_its_newest_records_begins_a_new_epoch(
    file: Path, other: SQLiteLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backup = tmp_path / "backup.db"
    other.append(some(3))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    epoch = other.bounds().epoch
    with caplog.at_level(logging.WARNING), Follower(SQLiteLog(file)) as follower:
        other.append(some(4))
        wait_for(follower.has(4))
        restore(file, backup)
        wait_for(lambda: len(follower.moves) == 2)
        new = other.bounds()
        assert new.epoch != epoch
        assert (new.first, new.head) == (1, 3), "what the backup has stays"
        assert follower.moves[1] == Moved(new, 3)
        other.append(some(1))
        wait_for(follower.has(5))
        assert follower.records[-1].position == Position(new.epoch, 4)
    assert any("its head went from 7 back to 3" in record.getMessage() for record in caplog.records)


def test_several_that_notice_the_loss_begin_one_epoch(file: Path, other: SQLiteLog, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    other.append(some(3))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    followers = [Follower(SQLiteLog(file)).__enter__() for _ in range(4)]
    other.append(some(2))
    for follower in followers:
        wait_for(follower.has(2))
    restore(file, backup)
    for follower in followers:
        wait_for(lambda follower=follower: len(follower.moves) >= 2)  # type: ignore[misc]
    other.append(some(1))
    for follower in followers:
        wait_for(follower.has(3))
    assert len({follower.ring.epoch for follower in followers}) == 1
    for follower in followers:
        follower.__exit__()


def test_a_log_that_was_replaced_by_another_is_followed_in_its_epoch(
    file: Path, other: SQLiteLog, tmp_path: Path
) -> None:
    with Follower(SQLiteLog(file)) as follower:
        other.append(some(3))
        wait_for(follower.has(3))
        another = SQLiteLog(tmp_path / "another.db")
        another.append(some(7))
        epoch = another.bounds().epoch
        another.close()
        os.replace(tmp_path / "another.db", file)
        wait_for(lambda: follower.ring.epoch == epoch)
        assert follower.moves[-1] == Moved(Bounds(epoch, 1, 7), 7)
        other.append(some(1))
        wait_for(follower.has(4))
        assert follower.records[-1].position == Position(epoch, 8)


def test_a_log_that_was_deleted_is_made_anew(file: Path, other: SQLiteLog) -> None:
    with Follower(SQLiteLog(file)) as follower:
        other.append(some(3))
        wait_for(follower.has(3))
        epoch = other.bounds().epoch
        for end in ("", "-wal", "-shm"):
            Path(f"{file}{end}").unlink(missing_ok=True)
        wait_for(lambda: follower.ring.epoch != epoch)
        other.append(some(2))
        wait_for(follower.has(5))
        assert follower.ring.epoch == other.bounds().epoch


def test_what_this_process_appends_while_the_log_is_looked_at_is_no_loss() -> None:
    """The head that the log told is then older than the ring's: that is no log that went back."""

    class Busy(MemoryLog):
        def bounds(self) -> Bounds:
            bounds = super().bounds()
            if follower.moves:
                follower.take(self.read(self.append(some(3)).first - 1, 3))  # as the loop would
            return bounds

    follower = Follower(Busy())
    follower.tail._find()
    follower.tail._find()  # as when it has come back
    assert follower.ring.head == 3
    assert (len(follower.moves), follower.ring.epoch) == (1, follower.moves[0].bounds.epoch)


def test_closing_ends_it_at_once(file: Path) -> None:
    took = []
    for _ in range(5):  # the machine may be busy at one of them
        follower = Follower(SQLiteLog(file)).__enter__()
        started = time.monotonic()
        follower.__exit__()
        took.append(time.monotonic() - started)
    assert min(took) < 0.1, "not only after the longest wait"


def test_closing_ends_it_while_the_log_is_away(
    file: Path, other: SQLiteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.close()
    monkeypatch.setattr(tail_module, "FIRST_PAUSE_S", 60.0)
    with sqlite.moved_away(file):
        follower = Follower(SQLiteLog(file)).__enter__()
        assert follower.tail.state == "away"
        started = time.monotonic()
        follower.__exit__()
        assert time.monotonic() - started < 20.0
