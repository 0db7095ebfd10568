"""Threads that are threads wherever gevent has been, and what they wait with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from penstock import threads
from tests.support.processes import environment
from tests.support.wait import DEADLINE_S, wait_for

ROUNDS = 2_000
TOO_LARGE = 1 << 46  # bytes of a stack, which no machine has: no thread can be started


@contextmanager
def no_more_threads() -> Iterator[None]:
    before = threading.stack_size(TOO_LARGE)
    try:
        yield
    finally:
        threading.stack_size(before)


def run_all(*calls: Callable[[], object]) -> None:
    """Each in a thread of its own, to its end."""
    running = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "it waits for ever"


# Events


def test_no_setting_of_an_event_is_missed() -> None:
    ping, pong = threads.Event(), threads.Event()

    def play(mine: threads.Event, other: threads.Event) -> None:
        for _ in range(ROUNDS):
            assert mine.wait(DEADLINE_S)
            mine.clear()
            other.set()

    ping.set()
    run_all(lambda: play(ping, pong), lambda: play(pong, ping))


def test_an_event_lets_all_go_who_wait() -> None:
    event = threads.Event()
    let_go: list[bool] = []
    waiting = [lambda: let_go.append(event.wait(DEADLINE_S)) for _ in range(8)]
    run_all(*waiting, event.set)
    assert let_go == [True] * 8
    assert event.wait(0)


def test_an_event_that_is_not_set_is_waited_for_no_longer_than_said() -> None:
    event = threads.Event()
    assert not event.wait(0.001)
    assert not event.wait(-1)
    assert not event._waiting, "who gave up is forgotten"
    event.set()
    assert event.wait(-1)


def test_an_event_may_be_set_at_any_step_of_who_waits_by_a_signals_handler_too() -> None:
    """That runs in the thread itself, which goes on only when it returns."""

    def wait(set_at: int) -> bool:
        event, steps = threads.Event(), iter(range(100))

        def step(frame: FrameType, what: str, argument: Any) -> Any:
            if what == "line" and next(steps) == set_at:
                event.set()
            return step

        def begin(frame: FrameType, what: str, argument: Any) -> Any:
            return step if frame.f_code is threads.Event.wait.__code__ else None

        sys.settrace(begin)
        try:
            return event.wait(0.001)
        finally:
            sys.settrace(None)

    let_go: list[bool] = []
    run_all(lambda: let_go.extend(map(wait, range(10))))
    assert let_go == sorted(let_go, reverse=True), "only the last steps come too late"
    assert True in let_go[3:]


# Conditions


def test_a_condition_lets_its_lock_go_while_it_waits_and_holds_it_after() -> None:
    condition = threads.Condition()
    items: list[int] = []
    taken: list[int] = []

    def take() -> None:
        for _ in range(ROUNDS):
            with condition:
                assert condition.wait_for(lambda: bool(items), DEADLINE_S)
                assert not condition.acquire(blocking=False)
                taken.append(items.pop())
                condition.notify_all()

    def give() -> None:
        for number in range(2 * ROUNDS):
            with condition:
                assert condition.wait_for(lambda: not items, DEADLINE_S)
                items.append(number)
                condition.notify_all()

    run_all(take, take, give)
    assert sorted(taken) == list(range(2 * ROUNDS))


def test_a_condition_lets_all_go_who_wait_for_it() -> None:
    condition = threads.Condition()
    let_go: list[bool] = []
    waiting: list[int] = []
    is_true = False

    def wait() -> None:
        with condition:
            waiting.append(1)
            let_go.append(condition.wait_for(lambda: is_true, DEADLINE_S / 2))

    def notify() -> None:
        nonlocal is_true
        wait_for(lambda: len(waiting) == 8, what="all have the lock, or have let it go to wait")
        with condition:
            is_true = True
            condition.notify_all()
            assert not condition._waiting
        wait_for(lambda: len(let_go) == 8, what="all are let go")

    run_all(*[wait] * 8, notify)
    assert let_go == [True] * 8


def test_a_condition_that_stays_false_is_told_so_in_time() -> None:
    condition = threads.Condition()
    with condition:
        assert condition.wait_for(lambda: False, 0.001) is False
        assert not condition._waiting, "who gave up is forgotten"
        condition.notify_all()


# Threads


def test_a_thread_is_alive_from_its_start_to_its_end() -> None:
    go_on = threads.Event()
    seen: list[bool] = []

    def target() -> None:
        go_on.wait(DEADLINE_S)
        thread.join()  # nobody waits for himself
        seen.append(threads.is_ours())

    thread = threads.Thread(target, "penstock-of-a-test")
    assert not thread.is_alive()
    thread.join()
    thread.start()
    assert thread.is_alive()
    assert "penstock-of-a-test" in {each.name for each in threading.enumerate() if each.daemon}
    thread.join(0.001)
    go_on.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert seen == [True]
    assert not threads.is_ours()


def test_a_thread_that_could_not_start_is_not_alive() -> None:
    thread = threads.Thread(lambda: None, "penstock-of-a-test")
    with no_more_threads(), pytest.raises(RuntimeError):
        thread.start()
    assert not thread.is_alive()
    thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_over() -> None:
    def fail() -> None:
        raise ValueError("of a test")

    thread = threads.Thread(fail, "penstock-of-a-test")
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


# Pools


def test_a_pool_starts_a_thread_when_all_before_it_are_busy_up_to_its_size() -> None:
    pool = threads.Pool(2, "penstock-of-a-test")
    go_on = threads.Event()
    at_work: set[int] = set()
    done: list[int] = []

    def work(number: int) -> None:
        at_work.add(threading.get_ident())
        go_on.wait(DEADLINE_S)
        done.append(number)

    for number in range(5):
        assert pool.submit(partial(work, number))
    wait_for(lambda: len(at_work) == 2, what="two are at work")
    pool.close()
    assert not pool.submit(lambda: work(5))
    go_on.set()
    wait_for(lambda: len(done) == 5, what="what was given before is done")
    assert len(at_work) == 2


def test_a_pool_whose_thread_is_free_starts_no_other() -> None:
    pool = threads.Pool(2, "penstock-of-a-test")
    by: set[int] = set()
    for _ in range(5):
        assert pool.submit(lambda: by.add(threading.get_ident()))
        wait_for(lambda: not pool._unfinished, what="its thread is free")
    assert len(by) == 1
    pool.close()


def test_a_pool_without_threads_says_that_it_does_nothing() -> None:
    pool = threads.Pool(2, "penstock-of-a-test")
    with no_more_threads():
        assert not pool.submit(lambda: None)
    done = threads.Event()
    assert pool.submit(done.set)
    assert done.wait(DEADLINE_S)
    pool.close()


def test_a_pool_answers_a_loop() -> None:
    pool = threads.Pool(2, "penstock-of-a-test")

    def fail() -> None:
        raise KeyError("of a test")

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        assert await pool.submit_for(loop, lambda: "answer") == "answer"
        with pytest.raises(KeyError, match="of a test"):
            await pool.submit_for(loop, fail)
        pool.close()
        assert pool.submit_for(loop, lambda: "answer").cancelled()

    asyncio.run(ask())


# Where gevent has been

_PROGRAM = """
import os, sys, threading
{first}
from penstock import Penstock
{second}
bus = Penstock(sys.argv[1])
records = bus.subscribe("chat", after="earliest")
bus.publish("chat", "0")
got = [next(records).data]
{third}
import gevent

ours, ticks = [], []
bus.engine.loop.call_soon_threadsafe(lambda: ours.append(threading.get_native_id()))

def follow():
    for record in records:
        got.append(record.data)

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)

following, ticking = gevent.spawn(follow), gevent.spawn(tick)
for number in range(1, 5):
    before = len(ticks)
    while len(ticks) < before + 5:  # the others go on while one waits for records
        gevent.sleep(0.001)
    bus.publish("chat", str(number))
while len(got) < 5:
    gevent.sleep(0.001)
assert ours != [threading.get_native_id()], "the loop has a thread of its own"
{end}
print(got)
"""
_PATCH = "from gevent import monkey; monkey.patch_all()"
_CLOSE = "bus.close(); following.join(30); assert following.dead"


def run(program: str, folder: Path, **lines: str) -> tuple[str, str, int]:
    whole = program.format(**{"first": "", "second": "", "third": "", "end": "", **lines})
    command = [sys.executable, "-c", whole, f"sqlite:///{folder}/log.db"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("when", ["first", "second", "never"])
def test_greenlets_follow_and_publish_wherever_gevent_patches(tmp_path: Path, when: str) -> None:
    """The iterator was made before there was a hub, and is waited at by a greenlet."""
    patched = {when: _PATCH} if when != "never" else {}
    assert run(_PROGRAM, tmp_path, end=_CLOSE, **patched) == ("['0', '1', '2', '3', '4']\n", "", 0)


def test_threads_that_ran_before_gevent_patched_them_do_their_work_and_are_waited_for(tmp_path: Path) -> None:
    """gevent says not to; what Python prints when such a thread ends is no matter of ours."""
    out, _, code = run(_PROGRAM, tmp_path, third=_PATCH, end=_CLOSE)
    assert (out, code) == ("['0', '1', '2', '3', '4']\n", 0)


def test_a_script_of_greenlets_that_closes_nothing_ends_cleanly(tmp_path: Path) -> None:
    assert run(_PROGRAM, tmp_path, first=_PATCH) == ("['0', '1', '2', '3', '4']\n", "", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["log.db"], "nothing is left hanging about"
