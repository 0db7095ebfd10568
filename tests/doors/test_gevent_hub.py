"""Greenlets wait on their hub: whatever blocks, the others of their thread go on.

Nothing is patched here. Each test has a thread with a hub of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import pytest
from gevent.event import Event as GeventEvent
from gevent.exceptions import LoopExit

from penstock import Event, Penstock, Record, greenlets, threads
from penstock.core.channel import Subscription
from penstock.doors.ask import Ask
from penstock.doors.wsgi import Answer, Door
from penstock.engine.origin import Wish
from penstock.log.base import Appended
from penstock.log.memory import MemoryLog
from tests.support.wait import DEADLINE_S

WAITING, ROUNDS = 50, 20
CHAT = Subscription(["chat"])
ENVIRON = {"REQUEST_METHOD": "GET", "SERVER_SOFTWARE": "a test", "wsgi.multithread": True}


def in_greenlet(act: Callable[[], object]) -> None:
    """Do something in a greenlet of a new thread, to its end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            gevent.spawn(act).get()
        except BaseException as error:
            errors.append(error)
        finally:
            gevent.get_hub().destroy()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(2 * DEADLINE_S)
    assert not thread.is_alive(), "it waits for ever"
    for error in errors:
        raise error


class Slow(MemoryLog):
    """A log that does one thing only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = ""
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def _hold(self, what: str) -> None:
        if what == self.slow:
            self.reached.set()
            assert self.go_on.wait(DEADLINE_S / 2), f"nobody else went on while it was slow to {what}"

    def open(self, *, renew: str | None = None) -> None:
        self._hold("open")
        super().open(renew=renew)

    def append(self, events: Sequence[Event]) -> Appended:
        self._hold("append")
        return super().append(events)

    def read(self, after: int, limit: int) -> list[Record]:
        self._hold(f"read after {after}")
        return super().read(after, limit)

    def close(self) -> None:
        self._hold("close")
        super().close()


@pytest.fixture
def log() -> Slow:
    return Slow()


@pytest.fixture
def bus(log: Slow) -> Iterator[Penstock]:
    with Penstock(lambda: log, max_streams=1) as bus:
        yield bus


def others_go_on(log: Slow, ask: Callable[[], Any]) -> Any:
    """What is answered, though another greenlet must first let the log go on."""
    asking = gevent.spawn(ask)
    while not log.reached.is_set():
        gevent.sleep(0.001)
    assert not asking.ready()
    log.go_on.set()
    return asking.get()


def test_others_go_on_while_one_publishes(bus: Penstock, log: Slow) -> None:
    log.slow = "append"
    in_greenlet(lambda: others_go_on(log, lambda: bus.publish("chat", "hi")))
    assert bus.stats().published == 1


def test_others_go_on_while_one_begins_to_follow(bus: Penstock, log: Slow) -> None:
    log.slow = "open"
    in_greenlet(lambda: others_go_on(log, lambda: bus.subscribe("chat")).close())


def test_others_go_on_while_one_reads_in_the_log(bus: Penstock, log: Slow) -> None:
    bus.publish("chat", "hi")
    log.slow = "read after 0"
    records = bus.subscribe("chat", after="earliest")
    in_greenlet(lambda: others_go_on(log, lambda: next(records)))


def test_others_go_on_while_one_closes(bus: Penstock, log: Slow) -> None:
    bus.subscribe("chat").close()
    log.slow = "close"
    in_greenlet(lambda: others_go_on(log, bus.close))


def test_what_fails_in_the_thread_fails_in_the_greenlet(bus: Penstock, log: Slow) -> None:
    def fail() -> None:
        raise KeyError("of a test")

    def act() -> None:
        with pytest.raises(KeyError, match="of a test"):
            bus.engine.apart(fail)

    in_greenlet(act)


def test_a_request_that_is_given_up_while_it_waits_takes_no_place(bus: Penstock, log: Slow) -> None:
    door = Door(lambda: bus.engine)

    def ask() -> Answer:
        return door.answer(ENVIRON, Ask(CHAT))

    def act() -> None:
        log.slow = "open"
        given_up = gevent.spawn(ask)
        while not log.reached.is_set():
            gevent.sleep(0.001)
        given_up.kill()
        log.go_on.set()
        bus.engine.find_origin(CHAT, Wish())
        body = ask().body
        assert bus.stats().polls == 0, "there was a place"
        body.close()  # type: ignore[union-attr]

    in_greenlet(act)


# Events


def test_who_waits_is_a_greenlet_or_a_thread_whichever_made_the_event() -> None:
    of_thread = greenlets.new_event()
    of_greenlet: list[greenlets.Event] = []
    waits = threading.Event()

    def act() -> None:
        of_greenlet.append(greenlets.new_event())
        gevent.spawn_later(0.001, waits.set)  # only if its hub goes on
        of_thread.wait()

    thread = threading.Thread(target=in_greenlet, args=[act], daemon=True)
    thread.start()
    assert waits.wait(DEADLINE_S)
    of_thread.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()

    setter = threading.Thread(target=of_greenlet[0].set)
    setter.start()
    of_greenlet[0].wait()
    setter.join()


def test_no_setting_of_an_event_is_missed_by_any_greenlet() -> None:
    """Each greenlet is woken so often by threads, and alone knows when it may be again."""
    events = [greenlets.new_event() for _ in range(WAITING)]
    ready = threads.Queue()
    woken = [0] * WAITING

    def follow(number: int) -> None:
        for _ in range(ROUNDS):
            ready.put(number)
            events[number].wait()
            events[number].clear()
            woken[number] += 1

    def wake() -> None:
        while (number := ready.get()) is not None:
            events[number].set()

    def follow_all() -> None:
        gevent.joinall([gevent.spawn(follow, number) for number in range(WAITING)], raise_error=True)

    setters = [threading.Thread(target=wake) for _ in range(3)]
    for setter in setters:
        setter.start()
    try:
        in_greenlet(
            lambda: gevent.joinall([gevent.spawn(follow, n) for n in range(WAITING)], raise_error=True)
        )
    finally:
        for _ in setters:
            ready.put(None)
    for setter in setters:
        setter.join()
    assert woken == [ROUNDS] * WAITING


def test_an_event_that_is_set_often_is_one_task_of_the_hub() -> None:
    event = greenlets.new_event()

    def act() -> None:
        waiting = gevent.spawn(event.wait)
        gevent.idle()
        for _ in range(1_000):
            event.set()
        assert event._bell is not None
        assert len(event._bell.wakeups._due) == 1
        waiting.get()

    in_greenlet(act)


def test_gevent_takes_no_greenlet_for_lost_that_a_thread_will_wake_and_finds_those_that_are() -> None:
    event, waits = greenlets.new_event(), threads.Event()
    woken: list[bool] = []

    def wake() -> None:
        waits.wait(DEADLINE_S)
        event.set()

    def act() -> None:
        gevent.get_hub().loop.run_callback(waits.set)  # the last that its hub has to do
        event.wait()
        woken.append(True)
        GeventEvent().wait()

    waker = threading.Thread(target=wake)
    waker.start()
    with pytest.raises(LoopExit):
        in_greenlet(act)
    waker.join()
    assert woken


def test_an_event_waits_on_the_hub_that_is_there() -> None:
    event = greenlets.new_event()
    for _ in range(2):  # each time with another hub
        waited = threading.Event()

        def act(waited: threading.Event = waited) -> None:
            gevent.spawn_later(0.001, waited.set)
            event.wait()
            event.clear()

        thread = threading.Thread(target=in_greenlet, args=[act], daemon=True)
        thread.start()
        assert waited.wait(DEADLINE_S)
        event.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
