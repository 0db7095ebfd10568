"""What the SQLite log promises beyond the contract: between processes, after crashes, and in trouble."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from penstock.core.event import Event
from penstock.errors import (
    Closed,
    ConfigError,
    LogCorrupt,
    LogDenied,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    SchemaTooNew,
)
from penstock.log import open_log
from penstock.log.base import WAIT_S, Log, Retention
from penstock.log.sqlite import SQLiteLog
from penstock.log.sqlite.schema import prepare
from tests.log.children import NOBODY, Child, files_of
from tests.support.wait import wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SQLiteLog]:
    log = SQLiteLog(path, busy_timeout_s=0.2)
    yield log
    log.close()


def some(count: int, data: str = "data") -> list[Event]:
    return [Event("check", f"{data} {number}") for number in range(count)]


def data_of(log: Log) -> list[str]:
    found: list[str] = []
    after = 0
    while records := log.read(after, 1000):
        found += [record.data for record in records]
        after = records[-1].seq
    return found


def new_process_reads(path: Path) -> list[str]:
    """What there is for one that knows nothing of before."""
    with Child("read_all", path) as child:
        [found] = child.finish()
    assert isinstance(found, list)
    return found


def check_acked(path: Path, told: list[Any]) -> None:
    """Each acknowledged batch is there whole, at its seqs; and the log is sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(SQLiteLog(path)) as log:
        found = data_of(log)
        assert log.bounds()[1:] == (1, len(found))
    for data, *seqs in told:
        assert [found[seq - 1] for seq in seqs] == [data] * len(seqs)


# Between processes


def test_processes_append_at_once_and_each_acked_event_is_there(path: Path) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(Child("append", path, f"child-{number}", 60)) for number in range(4)]
        told = [line for child in children for line in child.finish()]
    check_acked(path, told)
    seqs = sorted(seq for _, *seqs in told for seq in seqs)
    assert seqs == list(range(1, len(seqs) + 1))


def test_killed_in_mid_append_the_log_is_good_and_acked_events_stay(path: Path) -> None:
    told: list[Any] = []
    dice = random.Random()
    witness = SQLiteLog(path)  # has it open all the time; in every second turn nobody has
    for turn in range(8):
        if turn % 2:
            witness.close()
            witness = SQLiteLog(path)
        else:
            witness.open()
        with Child("append", path, f"life-{turn}", 100_000, 20_000) as child:
            told += [child.line() for _ in range(dice.randrange(1, 40))]
            told += child.kill()
        check_acked(path, told)
    found = data_of(witness)
    for data in set(found):
        size = random.Random(data.split()[0])
        sizes = [size.randint(1, 4) for _ in range(int(data.split()[1]) + 1)]
        assert found.count(data) == sizes[-1], "a batch is there whole"
    witness.close()


def test_two_logs_of_one_process_do_not_take_each_others_locks(path: Path, log: SQLiteLog) -> None:
    """Else another process that ends takes the write-ahead log away under them."""
    log.append(some(1, "first"))
    for _ in range(2):
        other = SQLiteLog(path)
        other.open()
        with Child("open_and_close", path) as child:
            child.finish()
        other.append(some(1, "other"))
        other.close()
        with Child("open_and_close", path) as child:
            child.finish()
    log.append(some(1, "last"))
    gone = "from a process that went"
    expected = ["first 0", gone, "other 0", gone, gone, "other 0", gone, "last 0"]
    assert data_of(log) == expected
    assert new_process_reads(path) == expected


def test_opening_anew_amid_a_read_takes_no_locks(path: Path, log: SQLiteLog) -> None:
    """As after an error, when the writer begins anew while another thread still reads."""
    epoch = log.append(some(1, "first")).epoch
    with log._file.reading("be at work"):
        log._file._let_go()
        log.append(some(1, "second"))
        with Child("open_and_close", path) as child:
            child.finish()
        assert Path(f"{path}-wal").exists(), "the process that went was not the last"
        assert log.append(some(1, "third")).epoch == epoch
    assert new_process_reads(path) == ["first 0", "second 0", "from a process that went", "third 0"]


def test_the_app_may_look_at_the_file_with_sqlite_itself(path: Path, log: SQLiteLog) -> None:
    log.append(some(1, "first"))
    with closing(sqlite3.connect(path, isolation_level=None)) as own:
        assert own.execute("SELECT count(*) FROM record").fetchone() == (1,)
        log.close()
        with closing(SQLiteLog(path)) as other:
            other.append(some(1, "second"))
        with Child("open_and_close", path) as child:
            child.finish()
        assert Path(f"{path}-wal").exists(), "the process that went was not the last"
        assert own.execute("SELECT count(*) FROM record").fetchone() == (3,)
        own.execute("UPDATE log SET epoch = 'changed'")
    with closing(SQLiteLog(path)) as other:
        assert other.bounds() == ("changed", 1, 3)


def test_one_file_has_one_bell_by_whatever_path(path: Path, log: SQLiteLog, tmp_path: Path) -> None:
    log.open()
    link = tmp_path / "elsewhere"
    link.symlink_to(path)
    with Child("follow", link) as follower:
        assert follower.line() == "listening"
        for _ in range(3):
            log.append([Event("check", "0")])
            follower.line()
        assert not Path(f"{link}-bells").exists()


# Forks


def test_publishes_and_follows_on_both_sides_of_a_fork(path: Path) -> None:
    with Child("fork", f"sqlite:///{path}") as child:
        child.finish()
    expected = ["parent 1", "child 1", "parent 2", "child 2", "from a process that went", "child 3"]
    assert new_process_reads(path) == expected


def test_forks_amid_publishing_lose_nothing(path: Path) -> None:
    with Child("fork_amid_publishing", f"sqlite:///{path}", 10) as child:
        [acked] = child.finish()
    assert sorted(new_process_reads(path)) == sorted(acked)


# Files that are no log of ours, or not any more


def refused(path: Path, *, by: str = "open") -> LogUnusable:
    """The error; nothing in the folder was changed or made."""
    before = files_of(path.parent)
    log = SQLiteLog(path)
    with pytest.raises(LogUnusable) as caught:
        log.open() if by == "open" else data_of(log)
    with pytest.raises(LogUnusable):
        log.append(some(1))
    log.close()
    assert files_of(path.parent) == before
    assert str(path) in str(caught.value)
    return caught.value


# A file of one byte is an empty one to SQLite.
@pytest.mark.parametrize("text", ["xy", "notes of mine\n" * 10, "x" * 100_000, "SQLite format 3\0"])
def test_a_file_of_another_kind_is_refused_untouched(path: Path, text: str) -> None:
    path.write_text(text)
    assert isinstance(refused(path), NotALog)


@pytest.mark.parametrize(
    "made", ["CREATE TABLE mine (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 7"]
)
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_of_another_program_is_refused_untouched(path: Path, made: str, mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(made)
    error = refused(path)
    assert isinstance(error, NotALog)
    assert "another program" in str(error)


def test_a_newer_schema_is_refused_untouched(path: Path, log: SQLiteLog) -> None:
    log.append(some(3))
    log.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    error = refused(path)
    assert isinstance(error, SchemaTooNew)
    assert "upgrade" in str(error)


def a_log_of_many_pages(path: Path) -> bytearray:
    with closing(SQLiteLog(path)) as log:
        for _ in range(20):
            log.append(some(50, "x" * 100))
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("pages", [0.2, 1, 2, 20, -1])
def test_a_truncated_file_is_refused_untouched(path: Path, pages: float) -> None:
    content = a_log_of_many_pages(path)
    path.write_bytes(content[: int(pages * 4096)])
    assert isinstance(refused(path), LogCorrupt)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_file_is_refused_untouched(path: Path, seed: int) -> None:
    content = a_log_of_many_pages(path)
    dice = random.Random(seed)
    for page in range(1, len(content) // 4096):  # all but the first, which has the header
        content[page * 4096 : page * 4096 + 100] = dice.randbytes(100)
    path.write_bytes(content)
    assert isinstance(refused(path, by="reading"), LogCorrupt)


def test_damage_that_is_met_late_is_told_and_does_no_harm(path: Path) -> None:
    content = a_log_of_many_pages(path)
    middle = content.index(b"x" * 100, len(content) // 2) // 4096 * 4096
    content[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    log = SQLiteLog(path)
    with pytest.raises(LogCorrupt) as caught:
        data_of(log)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert log.read(0, 10), "what is sound can be read"
    assert log.read(0, 10)
    log.close()
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_log(path: Path, log: SQLiteLog) -> None:
    path.touch()
    log.append(some(2))
    assert data_of(log) == ["data 0", "data 1"]


def test_a_log_that_another_process_is_just_making_is_no_strangers_database(path: Path) -> None:
    """Of a file that is looked at, not one part is seen from before it was a log, and one from after."""
    others: list[SQLiteLog] = []

    def meanwhile(statement: str) -> None:
        if statement == "PRAGMA user_version" and not others:
            others.append(SQLiteLog(path, busy_timeout_s=0.01))
            with suppress(LogUnavailable):  # it has to wait
                others[0].open()

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_trace_callback(meanwhile)
        prepare(connection, path, "normal", 5.0)
    others[0].close()
    assert new_process_reads(path) == []


def test_a_missing_folder_is_told_and_not_made(tmp_path: Path) -> None:
    log = SQLiteLog(tmp_path / "missing" / "log.db")
    with pytest.raises(LogDenied, match="not there"):
        log.open()
    with pytest.raises(LogDenied, match="not there"):
        log.bounds()
    log.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "missing").mkdir()
    with pytest.raises(Closed):
        log.open()


def test_a_folder_in_place_of_the_file_is_refused(path: Path, log: SQLiteLog) -> None:
    path.mkdir()
    with pytest.raises(LogDenied):
        log.open()
    path.rmdir()
    log.open()


DENIED: dict[str, Callable[[Path], None]] = {
    "a folder that may not be written": lambda folder: folder.chmod(0o755),
    "a folder that may not be entered": lambda folder: folder.chmod(0o700),
    "a folder in one that may not be entered": lambda folder: folder.parent.chmod(0o700),
    "a file that may not be written": lambda folder: (folder / "log.db").chmod(0o644),
    "a file that may not be read": lambda folder: (folder / "log.db").chmod(0o600),
}


@pytest.mark.parametrize("what", DENIED)
@pytest.mark.parametrize("deed", ["open", "append"])
def test_what_may_not_be_used_is_told(open_folder: Path, what: str, deed: str) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    with closing(SQLiteLog(folder / "log.db")) as log:
        log.append(some(1))
    folder.chmod(0o777)
    (folder / "log.db").chmod(0o666)
    DENIED[what](folder)
    before = files_of(folder)
    with Child("try_to", deed, folder / "log.db", uid=NOBODY) as child:
        [told] = child.finish()
    assert told is not None
    assert told[0] == "LogDenied"
    assert str(folder) in told[1]
    assert files_of(folder) == before


# Deleted, replaced, moved


def deleted(path: Path) -> None:
    path.unlink()


def deleted_with_all_beside_it(path: Path) -> None:
    for one in path.parent.glob("log.db*"):
        shutil.rmtree(one) if one.is_dir() else one.unlink()


def replaced_by_another_log(path: Path) -> None:
    with closing(SQLiteLog(path.parent / "other.db")) as other:
        other.append(some(5, "other"))
    (path.parent / "other.db").replace(path)


def replaced_by_an_older_copy(path: Path) -> None:
    """A backup that was made when there were two records."""
    (path.parent / "backup.db").replace(path)


CHANGES: dict[Callable[[Path], None], list[str]] = {
    deleted: [],
    deleted_with_all_beside_it: [],
    replaced_by_another_log: [f"other {number}" for number in range(5)],
    replaced_by_an_older_copy: ["data 0", "data 1"],
}  # and what is there then


@pytest.fixture
def log_with_a_past(path: Path, log: SQLiteLog) -> SQLiteLog:
    """Of the first two records there is a backup."""
    log.append(some(2))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(path.parent / "backup.db"),))
    log.append(some(20, "x" * 1000))
    return log


@pytest.mark.parametrize("change", CHANGES)
def test_all_go_on_in_the_file_that_is_there_after_it_was(
    change: Callable[[Path], None], path: Path, log_with_a_past: SQLiteLog
) -> None:
    """Under a new epoch, and nothing that is acknowledged goes to where nobody sees it."""
    log, other = log_with_a_past, SQLiteLog(path)
    before = log.bounds().epoch
    other.append(some(1, "other"))
    with Child("stay", path) as child:
        child.line()
        change(path)
        epoch = log.append(some(1, "after")).epoch
        assert epoch != before
        expected = [*CHANGES[change], "after 0"]
        assert data_of(log) == data_of(other) == new_process_reads(path) == expected
        child.tell()
        assert child.line() == [epoch, len(expected) + 1]
        other.append(some(1, "last"))
        expected += ["more from one that stays", "last 0"]
        assert data_of(log) == data_of(other) == new_process_reads(path) == expected
        assert log.bounds() == other.bounds() == (epoch, 1, len(expected))
        log.close()
        other.close()
    assert new_process_reads(path) == expected


@pytest.mark.parametrize("change", CHANGES)
def test_who_only_reads_finds_the_file_that_is_there_after_it_was(
    change: Callable[[Path], None], path: Path, log_with_a_past: SQLiteLog
) -> None:
    before = log_with_a_past.bounds()
    change(path)
    assert data_of(log_with_a_past) == CHANGES[change]
    assert log_with_a_past.bounds().epoch != before.epoch


def test_a_new_file_is_made_beside_what_a_deleted_one_left_behind(path: Path) -> None:
    """By one who comes only now, while another process still has the deleted one open."""
    with Child("stay", path) as child:
        child.line()
        path.unlink()
        with closing(SQLiteLog(path)) as log:
            epoch = log.append(some(3)).epoch
            assert data_of(log) == new_process_reads(path) == ["data 0", "data 1", "data 2"]
            child.tell()
            assert child.line() == [epoch, 4]
            assert len(data_of(log)) == len(new_process_reads(path)) == 4


def test_a_reader_at_work_is_not_used_again_once_the_file_was_replaced(path: Path, log: SQLiteLog) -> None:
    log.append(some(1, "old"))
    with log._file.reading("be at work"):
        path.unlink()
        log.append(some(1, "new"))
    assert data_of(log) == ["new 0"]


def test_readers_at_work_do_not_keep_the_file_that_was_replaced(path: Path) -> None:
    """What they have in their hands is of the old file; they must not put it back for others."""
    log = SQLiteLog(path, busy_timeout_s=60.0)
    log.append(some(5))
    over = threading.Event()
    errors: list[str] = []

    def read() -> None:
        while not over.is_set():
            records = log.read(0, 100)
            bounds = log.bounds()
            later = log.read(0, 100)
            if records and later and records[0].epoch == later[0].epoch != bounds.epoch:
                errors.append("the old file again, after the new one was seen")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            path.unlink()
            epoch = log.append(some(1, f"file {number}")).epoch
            for _ in range(20):
                [record] = log.read(0, 100)
                assert (record.data, record.epoch) == (f"file {number} 0", epoch)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        log.close()
    assert not errors


def test_a_file_that_was_moved_is_whole_where_it_is(path: Path, log: SQLiteLog) -> None:
    """Though its write-ahead log was left behind."""
    log.append(some(3))
    moved = path.rename(path.parent / "moved.db")
    assert log.append(some(1, "new")).first == 1
    assert new_process_reads(moved) == ["data 0", "data 1", "data 2"]


def test_a_file_that_was_away_and_comes_back_is_the_same_log(path: Path, log: SQLiteLog) -> None:
    before = log.append(some(3))
    names = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
    for name in names:
        name.rename(f"{name}.away")
    path.mkdir()
    for _ in range(3):
        with pytest.raises(LogDenied):
            log.append(some(1, "lost"))
    path.rmdir()
    for name in names:
        Path(f"{name}.away").rename(name)
    after = log.append(some(1, "again"))
    assert (after.epoch, after.first) == (before.epoch, 4)
    assert new_process_reads(path) == ["data 0", "data 1", "data 2", "again 0"]


def test_a_folder_that_was_away_and_comes_back_holds_the_same_log(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with closing(SQLiteLog(folder / "log.db")) as log:
        before = log.append(some(3))
        folder.rename(tmp_path / "away")
        with pytest.raises(LogUnavailable):
            log.append(some(1, "lost"))
        with pytest.raises(LogUnavailable):
            log.read(0, 10)
        (tmp_path / "away").rename(folder)
        after = log.append(some(1, "again"))
        assert (after.epoch, after.first) == (before.epoch, 4)


# No room


def check_full(log: SQLiteLog, path: Path, make_room: Callable[[], object]) -> None:
    """Append until there is no room; then make some."""
    events = some(5, "x" * 8_000)
    appended = 0
    full = None
    while full is None:
        try:
            log.append(events)
        except LogFull as error:
            full = error
        else:
            appended += 5
    assert appended
    assert str(path) in str(full)
    for _ in range(3):
        with pytest.raises(LogFull):
            log.append([*some(1, "lost"), Event("check", "lost", key="lost"), *events * 10])
    assert log.bounds()[1:] == (1, appended)
    assert data_of(log) == [event.data for event in events] * (appended // 5)
    make_room()
    after = log.append([Event("check", "found", key="lost"), *events])
    assert after.first == appended + 1
    assert list(after.seqs) == list(range(appended + 1, appended + 7))
    assert len(data_of(log)) == appended + 6


def test_a_log_that_may_not_grow_says_so_and_goes_on_when_it_may(path: Path, log: SQLiteLog) -> None:
    def grow_to(pages: int) -> None:
        with log._file.writing("set a limit") as connection:
            connection.execute(f"PRAGMA max_page_count = {pages}")

    grow_to(100)
    check_full(log, path, lambda: grow_to(1000))


def test_a_full_disk_is_told_and_room_on_it_is_used(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount one; the cure: run the tests as root")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 300_000)
        with closing(SQLiteLog(disk / "log.db")) as log:
            check_full(log, disk / "log.db", ballast.unlink)
        check_acked(disk / "log.db", [])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_commit_that_fails_in_its_midst_is_not_told_as_stored(path: Path) -> None:
    """A limit of the system on the size of files stops it half-way."""
    with Child("write_past_a_limit", path) as child:
        error, seqs, found = child.finish()
    assert error in ("AppendUnsure", "LogUnavailable", "LogFull")
    assert found == ["before", "found"]
    assert seqs == [2]
    assert new_process_reads(path) == found


# In the way of each other


def test_a_lock_that_another_process_holds_too_long_is_told(path: Path, log: SQLiteLog) -> None:
    log.append(some(1))
    with Child("lock", path) as child:
        assert child.line() == "locked"
        with pytest.raises(LogUnavailable, match=r"held .* for 0\.2 s; nothing was stored") as caught:
            log.append(some(1, "lost"))
        assert not isinstance(caught.value, LogFull)
        with pytest.raises(LogUnavailable):
            log.trim(Retention(None, 0, None))
        with pytest.raises(LogUnavailable):
            log.open(renew=log.bounds().epoch)
        assert data_of(log) == ["data 0"], "readers never wait"
        child.tell()
        child.finish()
    assert log.append(some(1, "later")).first == 2
    assert data_of(log) == ["data 0", "later 0"]


def test_a_lock_that_is_held_for_a_while_is_waited_for(path: Path) -> None:
    with closing(SQLiteLog(path, busy_timeout_s=60.0)) as log, Child("lock", path) as child:
        log.open()
        assert child.line() == "locked"
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(log.append(some(1)).first))
        thread.start()
        thread.join(0.3)
        assert not done
        child.tell()
        thread.join(60)
        assert done == [1]


def test_followers_hear_of_a_new_epoch_at_once(path: Path, log: SQLiteLog) -> None:
    log.append(some(1))
    with closing(SQLiteLog(path)) as other:
        for follower in (log, other):
            delays: list[float] = []
            while len(delays) < 5 and min(delays, default=WAIT_S) >= WAIT_S / 2:
                follower.wait(0)  # hangs up the bell, or hears what was before
                old = follower.bounds().epoch
                began = time.monotonic()
                log.open(renew=old)
                follower.wait(0)
                delays.append(time.monotonic() - began)
                assert follower.bounds().epoch != old
            assert min(delays) < WAIT_S / 2


# Settings


@pytest.mark.parametrize(("query", "level"), [("", 1), ("?sync=normal", 1), ("?sync=full", 2)])
def test_sync_is_what_it_is_set_to(path: Path, query: str, level: int) -> None:
    log = open_log(f"sqlite:///{path}{query}")
    assert isinstance(log, SQLiteLog)
    with log._file.writing("look at the settings") as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    log.close()


@pytest.mark.parametrize("name", ["plain.db", "é ü.db", "50%.db", "a?b#c.db", "a%41.db", " x .db", "'\".db"])
def test_the_url_names_the_same_file_again(tmp_path: Path, name: str) -> None:
    with closing(SQLiteLog(tmp_path / name)) as log:
        log.append(some(1))
        with closing(open_log(log.url)) as again:
            assert data_of(again) == ["data 0"]
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_a_url_that_can_name_no_file_is_refused() -> None:
    for path in ("", "/", "/folder/", "/a%00b", "host/log.db"):
        with pytest.raises(ConfigError, match="names no file"):
            open_log(f"sqlite://{path}")


def test_nothing_is_left_open_after_close(path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files are counted in /proc, which this system does not have")
    gc.collect()  # what others left open shall not be closed meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    log, other = SQLiteLog(path), SQLiteLog(path)
    for each in (log, other):
        each.append(some(3))
        each.wait(0)
        each.read(0, 10)
    for each in (log, other):
        each.close()
    wait_for(lambda: sorted(os.listdir("/proc/self/fd")) == before, what="all is closed")
    assert [file.name for file in path.parent.iterdir()] == ["log.db"]


def test_trimmed_room_is_used_again(path: Path, log: SQLiteLog) -> None:
    """The file does not shrink, but it does not grow either."""
    sizes = []
    for _ in range(6):
        for _ in range(10):
            log.append(some(100, "x" * 200))
        log.trim(Retention(None, 1000, None))
        with closing(sqlite3.connect(path)) as connection:
            sizes.append(connection.execute("PRAGMA page_count").fetchone()[0])
    assert sizes[-1] <= sizes[1] * 1.1
