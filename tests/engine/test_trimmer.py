"""The retention is applied in the background: no publisher waits for it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Event, threads
from penstock.engine import notices
from penstock.engine import trimmer as trimmer_module
from penstock.engine.trimmer import Trimmer
from penstock.log.base import Retention
from penstock.log.sqlite import SQLiteLog
from tests.support import sqlite
from tests.support.wait import wait_for

KEEP = Retention(None, 10, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(file: Path) -> Iterator[SQLiteLog]:
    log = SQLiteLog(file, busy_timeout_s=60.0)
    log.append([Event("a", str(number)) for number in range(50)])
    yield log
    log.close()


@pytest.fixture
def trimmer(log: SQLiteLog) -> Iterator[Trimmer]:
    trimmer = Trimmer(log, KEEP)
    yield trimmer
    trimmer.close(60.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is time with each event."""
    monkeypatch.setattr(trimmer_module, "INTERVAL_EVENTS", 1)


def trimming() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "penstock-trim"]


def test_nothing_is_done_before_it_is_time(trimmer: Trimmer, log: SQLiteLog) -> None:
    trimmer.tick(trimmer_module.INTERVAL_EVENTS - 1)
    assert trimming() == []
    assert log.bounds().first == 1


def test_a_flood_is_trimmed_sooner(trimmer: Trimmer, log: SQLiteLog) -> None:
    for _ in range(trimmer_module.INTERVAL_EVENTS // 100):
        trimmer.tick(100)
    wait_for(lambda: log.bounds().first == 41)


def test_where_no_thread_can_be_started_it_is_done_later(
    trimmer: Trimmer, log: SQLiteLog, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(thread: threads.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threads.Thread, "start", none)
        trimmer.tick(1)  # whose event is stored
    trimmer.tick(1)
    wait_for(lambda: log.bounds().first == 41)


def test_what_is_old_is_trimmed_without_a_publisher(log: SQLiteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimmer_module, "INTERVAL_S", 0.0)
    trimmer = Trimmer(log, KEEP)
    trimmer.tick()
    wait_for(lambda: log.bounds().first == 41)
    trimmer.close(5.0)


@pytest.mark.usefixtures("soon")
def test_whoever_notices_that_it_is_time_does_not_wait(trimmer: Trimmer, log: SQLiteLog, file: Path) -> None:
    with sqlite.locked(file):  # so that trimming takes its time
        trimmer.tick(1)
        assert len(trimming()) == 1, "it is at work, and nobody waits for it"
        trimmer.tick(1)
        assert len(trimming()) == 1, "one at a time"
        assert log.bounds().first == 1
    wait_for(lambda: log.bounds().first == 41)
    wait_for(lambda: trimming() == [], what="no thread stays when there is nothing to do")


@pytest.mark.usefixtures("soon")
def test_a_log_that_is_away_is_told_once_and_trimmed_later(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_last", {})
    log = SQLiteLog(file, busy_timeout_s=0.01)
    log.append([Event("a", str(number)) for number in range(50)])
    trimmer = Trimmer(log, KEEP)
    with sqlite.locked(file), caplog.at_level(logging.WARNING):
        for _ in range(3):
            trimmer.tick(1)
            wait_for(lambda: trimming() == [])
    assert ["could not trim the log" in record.getMessage() for record in caplog.records] == [True]
    trimmer.tick(1)
    wait_for(lambda: log.bounds().first == 41)
    trimmer.close(5.0)
    log.close()


@pytest.mark.usefixtures("soon")
def test_closing_waits_for_the_work_and_starts_no_more(log: SQLiteLog, file: Path) -> None:
    trimmer = Trimmer(log, KEEP)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        trimmer.tick(1)
        release = threading.Timer(0.1, other.execute, ["ROLLBACK"])
        release.start()
        trimmer.close(60.0)
        release.join()
    assert trimming() == []
    assert log.bounds().first == 41
    log.append([Event("a", "x")])
    trimmer.tick(1)
    assert trimming() == []
    assert log.bounds().first == 41
