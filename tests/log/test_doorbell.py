"""The bell between processes: heard at once, never in the way, and nothing of it stays."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from pathlib import Path

import pytest

from penstock.core.event import Event
from penstock.log.base import WAIT_S
from penstock.log.sqlite import SQLiteLog
from penstock.log.sqlite.doorbell import POLL_S, Doorbell
from tests.log.children import NOBODY, Child
from tests.support.times import assert_at_once
from tests.support.wait import wait_for


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    path.touch()
    return path


def bells_of(file: Path) -> Path:
    return Path(f"{file}-bells")


def hung(file: Path) -> Doorbell:
    """A bell that hangs: the first wait hangs it up and does not wait."""
    bell = Doorbell(file)
    bell.wait(60)
    assert bells_of(file).exists()
    return bell


def time_of_wait(bell: Doorbell, timeout_s: float) -> float:
    began = time.monotonic()
    bell.wait(timeout_s)
    return time.monotonic() - began


def test_a_ring_is_heard_also_if_it_came_before_the_wait(file: Path) -> None:
    one, other = hung(file), Doorbell(file)
    other.ring()
    assert time_of_wait(one, 60) < 30
    assert time_of_wait(one, 0.05) >= 0.04, "once"
    one.close()
    other.close()


def test_many_rings_are_one_and_never_block(file: Path) -> None:
    one, other = hung(file), Doorbell(file)
    for _ in range(2000):
        other.ring()
    assert time_of_wait(one, 60) < 30
    assert time_of_wait(one, 0.05) >= 0.04
    one.close()
    other.close()


def test_own_rings_are_heard_only_if_asked_for(file: Path) -> None:
    bell = hung(file)
    bell.ring()
    assert time_of_wait(bell, 0.05) >= 0.04
    bell.ring(own=True)
    assert time_of_wait(bell, 60) < 30
    bell.close()


def test_a_bell_that_was_just_hung_up_is_rung(file: Path) -> None:
    """Though the folder's time of change may not show it."""
    ringer = Doorbell(file)
    bells = []
    for _ in range(50):
        bells.append(hung(file))
        ringer.ring()
        for bell in bells:
            assert time_of_wait(bell, 60) < 30
    for bell in [*bells, ringer]:
        bell.close()


def test_a_bell_that_was_hung_up_within_the_same_tick_is_rung(file: Path) -> None:
    """As the clocks of many file systems see it: then the folder's time of change is the same."""
    tick = time.time_ns() + 3_600_000_000_000  # far off: else a busy machine lets it settle
    first, ringer = hung(file), Doorbell(file)
    os.utime(bells_of(file), ns=(tick, tick))
    ringer.ring()
    second = hung(file)
    os.utime(bells_of(file), ns=(tick, tick))
    ringer.ring()
    assert time_of_wait(second, 60) < 30
    for bell in (first, second, ringer):
        bell.close()


def test_nothing_is_left_once_all_are_closed(file: Path) -> None:
    bells = [hung(file) for _ in range(3)]
    bells[0].ring()
    for bell in bells:
        assert bells_of(file).exists()
        bell.close()
        bell.close()
    assert not bells_of(file).exists()
    assert list(file.parent.iterdir()) == [file]


def test_who_never_waited_leaves_nothing_and_needs_no_folder(file: Path) -> None:
    bell = Doorbell(file)
    bell.ring(own=True)
    bell.close()
    assert list(file.parent.iterdir()) == [file]


def test_close_ends_a_wait_and_the_sockets(file: Path) -> None:
    bell, other = hung(file), Doorbell(file)
    gc.collect()  # what others left open shall not be closed meanwhile
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    other.ring()
    took: list[float] = []
    threads = [threading.Thread(target=lambda: took.append(time_of_wait(bell, 30))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: took, what="one has heard the ring")  # if both looked at once, both have
    bell.close()
    for thread in threads:
        thread.join(30)
    assert len(took) == 2
    assert max(took) < 25
    other.close()
    if before:  # all but the bell, which was open before
        wait_for(lambda: len(os.listdir("/proc/self/fd")) == before - 1, what="the sockets are closed")
    assert time_of_wait(bell, 60) < 30, "after it there is nothing to wait for"


def test_the_bells_of_killed_processes_are_taken_down_by_the_next_ring(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with Child("stay", path) as one, Child("stay", path) as other:
        one.line(), other.line()
        assert len(list(bells_of(path).iterdir())) == 2
        one.kill(), other.kill()
    assert len(list(bells_of(path).iterdir())) == 2
    log = SQLiteLog(path)
    log.append([Event("check", "")])
    assert list(bells_of(path).iterdir()) == []
    log.wait(0)
    log.close()
    assert not bells_of(path).exists()


def test_a_bell_that_somebody_removed_is_hung_up_again(file: Path) -> None:
    one, other = hung(file), Doorbell(file)
    for bell in bells_of(file).iterdir():
        bell.unlink()
    bells_of(file).rmdir()
    one.wait(0.01)  # in vain; it notices
    one.wait(60)  # hangs it up
    other.ring()
    assert time_of_wait(one, 60) < 30
    one.close()
    other.close()
    assert not bells_of(file).exists()


def test_a_bell_is_hung_up_while_another_takes_the_folder_away(file: Path) -> None:
    over = threading.Event()
    errors = []

    def come_and_go() -> None:
        while not over.is_set():
            bell = Doorbell(file)
            bell.wait(60)
            if bell._own is None:
                errors.append("it polls")
            bell.close()

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    over.wait(0.5)
    over.set()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert not bells_of(file).exists()


def test_it_polls_where_no_bell_can_be_hung_up(file: Path) -> None:
    bells_of(file).touch()  # what should be a folder is none
    bell = Doorbell(file)
    assert POLL_S / 2 < time_of_wait(bell, 60) < 30
    assert time_of_wait(bell, 60) < 30
    bell.ring(own=True)
    bells_of(file).unlink()
    bell.close()


@pytest.fixture
def long_path(tmp_path: Path) -> Path:
    """Far over the 108 bytes of a socket's address, and near what SQLite takes."""
    folder = tmp_path
    while len(str(folder)) < 380:
        folder /= "a-folder-with-a-rather-long-name"
    folder.mkdir(parents=True)
    return folder / "log.db"


def test_a_very_long_path_works(long_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux has another name for it; elsewhere followers poll")
    with Child("publish_times", long_path, 15) as publisher:
        publisher.line()
        assert median_delay(long_path, publisher, 15) < WAIT_S / 2
    assert not bells_of(long_path).exists()


def test_a_long_path_is_found_again_when_its_folder_was_made_anew(long_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux has another name for it; elsewhere followers poll")
    long_path.touch()
    ringer = Doorbell(long_path)
    for _ in range(3):
        bell = hung(long_path)
        ringer.ring()
        assert time_of_wait(bell, 60) < 30
        bell.close()
    ringer.close()


def median_delay(path: Path, publisher: Child, times: int) -> float:
    """From a publish in the child to its record in this process's hands."""
    log = SQLiteLog(path)
    after = log.bounds().head
    log.wait(after)
    delays: list[float] = []
    deadline = time.monotonic() + 60
    while len(delays) < times and time.monotonic() < deadline:
        publisher.tell()
        while not (records := log.read(after, 10)) and time.monotonic() < deadline:
            log.wait(after)
        delays += [time.monotonic() - float(record.data) for record in records]
        after += len(records)
    publisher.finish()
    log.close()
    assert len(delays) == times
    return statistics.median(delays)


def test_published_in_one_process_heard_in_another_within_5_ms(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    def delay() -> float:
        with Child("publish_times", path, 60) as publisher:
            publisher.line()
            return median_delay(path, publisher, 60)

    assert_at_once(delay, 0.005, hops=1)


def test_an_idle_follower_takes_no_time(tmp_path: Path) -> None:
    log = SQLiteLog(tmp_path / "log.db")
    log.append([Event("check", "")])
    log.wait(1)

    def share() -> float:
        """Of a core."""
        began, used = time.monotonic(), time.thread_time()
        while time.monotonic() - began < 1.5:
            assert log.read(1, 10) == []
            log.bounds()
            log.wait(1)
        return (time.thread_time() - used) / (time.monotonic() - began)

    assert any(share() < 0.005 for _ in range(4)), "a busy machine makes it dearer now and then"
    log.close()


def test_another_user_rings_and_is_rung(open_folder: Path) -> None:
    path = open_folder / "log.db"
    log = SQLiteLog(path)
    log.append([Event("check", "0")])
    for file in open_folder.iterdir():
        file.chmod(0o666)
    with Child("publish_times", path, 15, uid=NOBODY) as publisher:
        publisher.line()
        assert median_delay(path, publisher, 15) < WAIT_S / 4
    with Child("follow", path, uid=NOBODY) as follower:
        assert follower.line() == "listening"
        delays = []
        for _ in range(15):
            log.append([Event("check", repr(time.monotonic()))])
            delays.append(follower.line())
        assert statistics.median(delays) < WAIT_S / 4
        mode = {path.stat().st_mode & 0o777 for path in bells_of(path).iterdir()}
        assert mode == {0o666}
    log.close()


def test_bells_belong_to_whom_the_file_belongs(open_folder: Path) -> None:
    """So a worker of root's does not shut out the user of the file."""
    path = open_folder / "log.db"
    path.touch()
    path.chmod(0o640)
    os.chown(path, NOBODY, NOBODY)
    bell = hung(path)
    folder = bells_of(path).stat()
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o777) == (NOBODY, NOBODY, 0o750)
    [name] = bells_of(path).iterdir()
    assert (name.stat().st_uid, name.stat().st_gid) == (NOBODY, NOBODY)
    bell.close()


def test_what_is_no_bell_does_no_harm(file: Path) -> None:
    bell, ringer = hung(file), Doorbell(file)
    (bells_of(file) / "folder").mkdir()
    ringer.ring()
    assert time_of_wait(bell, 60) < 30
    bell.close()
    ringer.close()
    assert bells_of(file).exists(), "it is not ours alone"
