"""News of many threads reaches the loop in order, whole, and many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from penstock import Record
from penstock.engine import inbox
from penstock.engine.inbox import Inbox, News
from tests.support.strategies import record
from tests.support.wait import wait_for


class Loop:
    """A loop in a thread, as the engine has one, and an inbox for it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.turns: list[list[News]] = []
        self.fails = False
        self.inbox = Inbox(self.call, self.take)
        self.thread = threading.Thread(target=self.loop.run_forever)

    def call(self, call: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(call)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Let the loop do nothing else meanwhile."""
        begun, go_on = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            go_on.wait(30)

        self.call(work)
        assert begun.wait(30)
        try:
            yield
        finally:
            go_on.set()

    def take(self, queued: list[News]) -> None:
        self.turns.append(queued)
        if self.fails:
            raise RuntimeError("could not be taken")

    @property
    def taken(self) -> list[Record]:
        return [one for turn in self.turns for news in turn if isinstance(news, list) for one in news]


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.thread.start()
    yield loop
    loop.call(loop.loop.stop)
    loop.thread.join()
    loop.loop.close()


def test_what_is_queued_while_the_loop_is_busy_is_taken_in_one_turn(loop: Loop) -> None:
    with loop.busy():
        for seq in range(1, 101):
            loop.inbox.put([record(seq)])
    wait_for(lambda: loop.turns)
    assert len(loop.turns) == 1
    assert [one.seq for one in loop.taken] == list(range(1, 101))


def test_nothing_of_many_threads_is_lost(loop: Loop) -> None:
    def put(channel: str) -> None:
        for seq in range(1, 501):
            if seq % 50:
                loop.inbox.put([record(seq, channel)])
            else:
                loop.inbox.put_and_wait([record(seq, channel)])
                assert any(one.seq == seq and one.channel == channel for one in loop.taken)

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "abcd":
        assert [one.seq for one in loop.taken if one.channel == name] == list(range(1, 501))


def test_whoever_waits_is_let_go_when_nobody_takes_any_more(loop: Loop) -> None:
    stuck = Inbox(lambda call: None, loop.take)  # its loop does nothing any more
    waiter = threading.Thread(target=stuck.put_and_wait, args=([record(1)],))
    waiter.start()
    stuck.close()
    waiter.join(30.0)
    assert not waiter.is_alive()


def test_whoever_waits_is_let_go_when_taking_fails(loop: Loop) -> None:
    told: list[str] = []
    loop.loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    loop.fails = True
    loop.inbox.put_and_wait([record(1)])
    wait_for(lambda: told == ["could not be taken"])
    loop.fails = False
    loop.inbox.put_and_wait([record(2)])
    assert [one.seq for one in loop.taken] == [1, 2]


def test_publishers_that_outrun_the_loop_fill_no_memory(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_QUEUED_EVENTS", 10)
    with loop.busy():
        for seq in range(1, 101):
            loop.inbox.put([record(seq)])
    wait_for(lambda: loop.taken, what="a turn")
    assert [one.seq for one in loop.taken] == list(range(1, 11))
    loop.inbox.put([record(seq) for seq in range(101, 201)])  # alone there is room for any batch
    wait_for(lambda: len(loop.taken) == 110, what="the next turn")
