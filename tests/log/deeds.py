"""What ``Child`` processes do. Each deed tells what it did as lines of JSON, at once.

python -m tests.log.deeds DEED ARGUMENTS
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial

from penstock import Penstock
from penstock.core.event import Event
from penstock.errors import PenstockError
from penstock.log.base import Log
from penstock.log.sqlite import SQLiteLog
from tests.log.children import Child

_ = fcntl  # the log imports it when it is needed; a child that became another user may not read it then


def tell(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def wait_to_be_told() -> None:
    os.read(0, 1)


def append(path: str, name: str, times: int, size: int = 10) -> None:
    """Append batches, tell the seqs of each; all of a batch has the same data."""
    dice = random.Random(name)
    log = SQLiteLog(path)
    for turn in range(times):
        data = f"{name} {turn} " + "x" * size
        tell([data, *log.append([Event(name, data)] * dice.randint(1, 4)).seqs])
    log.close()


def read_all(path: str) -> None:
    """Tell the data of all records."""
    log = SQLiteLog(path)
    tell([record.data for record in log.read(0, 100_000)])
    log.close()


def open_and_close(path: str) -> None:
    log = SQLiteLog(path)
    log.append([Event("check", "from a process that went")])
    log.close()


def follow(path: str) -> None:
    """Tell for each record how long ago its data says that it was published, in seconds."""
    log = SQLiteLog(path)
    after = log.bounds().head
    log.wait(after)
    tell("listening")
    while True:
        records = log.read(after, 100)
        now = time.monotonic()
        for record in records:
            after = record.seq
            tell(now - float(record.data))
        if not records:
            log.wait(after)


def publish_times(path: str, times: int) -> None:
    """Append the time, as often as told to."""
    log = SQLiteLog(path)
    log.open()
    tell("open")
    for _ in range(times):
        wait_to_be_told()
        log.append([Event("check", repr(time.monotonic()))])
    log.close()


def stay(path: str, do: str = "listen") -> None:
    """Have the log open and listen, until killed."""
    log = SQLiteLog(path)
    log.append([Event("check", "from one that stays")])
    log.wait(0)
    tell(log.bounds())
    while True:
        wait_to_be_told()
        appended = log.append([Event("check", "more from one that stays")])
        tell([appended.epoch, *appended.seqs])


def lock(path: str) -> None:
    """Hold the write lock until told."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    tell("locked")
    wait_to_be_told()
    connection.execute("ROLLBACK")
    connection.close()


def try_to(what: str, path: str) -> None:
    """Tell which error there was."""
    log: Log = SQLiteLog(path)
    try:
        if what == "open":
            log.open()
        else:
            log.append([Event("check", "tried")])
    except PenstockError as error:
        tell([type(error).__name__, str(error)])
    else:
        tell(None)
    log.close()


def write_past_a_limit(path: str) -> None:
    """A limit of the system on a file's size makes a commit fail in its midst."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = SQLiteLog(path)
    log.append([Event("check", "before")])
    wal = os.stat(f"{path}-wal").st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 10_000, resource.RLIM_INFINITY))
    try:
        log.append([Event("check", "lost", key="lost"), Event("check", "x" * 100_000)])
    except PenstockError as error:
        tell(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    tell(log.append([Event("check", "found", key="lost")]).seqs)
    tell([record.data for record in log.read(0, 100)])
    log.close()


def fork(url: str) -> None:
    """A bus that publishes and follows, in the parent and in the child."""
    bus = Penstock(url)
    records = bus.subscribe("check", after="earliest")
    bus.publish("check", "parent 1")
    assert next(records).data == "parent 1"
    go, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        end_as_a_worker_does(lambda: publish_and_follow_in_the_child(bus, go[0], told[1]))
    assert os.read(told[0], 1) == b"1"
    assert next(records).data == "child 1"
    bus.publish("check", "parent 2")
    assert next(records).data == "parent 2"
    bus.close()  # the child must not lose its log by that
    os.write(go[1], b"2")
    assert os.read(told[0], 1) == b"2"
    with Child("open_and_close", url.removeprefix("sqlite:///")) as other:
        other.finish()
    os.write(go[1], b"3")
    _, status = os.waitpid(pid, 0)
    assert status == 0, status


def publish_and_follow_in_the_child(bus: Penstock, go: int, told: int) -> None:
    records = bus.subscribe("check", after="earliest")
    assert next(records).data == "parent 1"
    bus.publish("check", "child 1")
    assert next(records).data == "child 1"
    os.write(told, b"1")
    assert next(records).data == "parent 2"
    assert os.read(go, 1) == b"2"
    bus.publish("check", "child 2")
    os.write(told, b"2")
    assert os.read(go, 1) == b"3"
    bus.publish("check", "child 3")
    assert next(records).data == "child 2"
    assert next(records).data == "from a process that went"
    assert next(records).data == "child 3"
    bus.close()


def end_as_a_worker_does(work: Callable[[], object]) -> None:
    """In a child: with all that an interpreter does at its end."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)


def fork_amid_publishing(url: str, children: int) -> None:
    """Threads publish and follow while children are forked, which publish as well and end."""
    bus = Penstock(url)
    acked: list[str] = []
    over = threading.Event()

    def publish(name: str, times: int | None = None) -> None:
        for turn in itertools.count() if times is None else range(times):
            if over.is_set():
                break
            bus.publish("check", f"{name} {turn}")
            acked.append(f"{name} {turn}")

    threads = [threading.Thread(target=publish, args=(f"thread {n}",)) for n in range(3)]
    follower = bus.subscribe("check")
    for thread in threads:
        thread.start()
    for number in range(children):
        pid = os.fork()
        if pid == 0:
            end_as_a_worker_does(partial(publish, f"child {number}", 5))
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        acked += [f"child {number} {turn}" for turn in range(5)]
    over.set()
    for thread in threads:
        thread.join()
    seqs = [next(follower).seq for _ in acked]
    assert seqs == list(range(1, len(acked) + 1))
    bus.close()
    tell(acked)


def main() -> None:
    deed, *arguments = sys.argv[1:]
    if uid := os.environ["DEEDS_UID"]:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    # That a fork while threads run is a danger is what is tested.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    globals()[deed](*(int(text) if text.isdigit() else text for text in arguments))


if __name__ == "__main__":
    main()
