"""The registry of streams: what was given is counted beyond a stream's end, and streams end in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from penstock import Event, Position
from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.core.rights import FREE, Rights
from penstock.core.stream import Closing, Stream
from penstock.core.wire import Block
from penstock.engine import streams as streams_module
from penstock.engine.fanout import Fanout
from penstock.engine.feed import Next
from penstock.engine.pull import Pull
from penstock.engine.ring import Ring
from penstock.engine.streams import Streams, Timer
from penstock.log.memory import MemoryLog


class Process:
    """What of a process the registry knows."""

    def __init__(self, lifetime_s: float | None = None) -> None:
        self.log = MemoryLog()
        self.ring = Ring(100, 1 << 20)
        epoch, first, head = self.log.bounds()
        self.ring.move(Bounds(epoch, first, head), head)
        self.fanout = Fanout(15.0)
        self.streams = Streams(self.fanout, self.ring, lifetime_s, self.call_later)
        self.woken = 0

    def join(self, *names: str, until: float | None = None) -> Pull:
        here = Position(self.log.bounds().epoch, self.ring.head)
        pull = Pull(self.log, self.ring, Stream(Subscription(names), here), self.wake)
        self.streams.join(pull, FREE if until is None else Rights(until=until))
        return pull

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        raise AssertionError("no right has an end here")

    def wake(self) -> None:
        self.woken += 1

    def publish(self, *channels: str) -> None:
        appended = self.log.append([Event(name, "x") for name in channels])
        before = self.ring.head
        entries = self.ring.append(self.log.read(appended.first - 1, 100))
        self.fanout.turn(entries, before, 0.0)


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.log.close()


def take_all(pull: Pull) -> None:
    while isinstance(block := pull.poll(), Block):
        pull.count_bytes(len(block.wire))


def test_what_streams_were_given_is_counted_beyond_their_end(process: Process) -> None:
    one, other = process.join("a"), process.join("a", "b")
    process.publish("a", "b", "a")
    take_all(one)
    take_all(other)
    assert process.streams.delivered == 2 + 3
    sent = process.streams.bytes
    assert sent == one.bytes + other.bytes > 0
    process.streams.part(one)
    process.streams.part(other)
    assert process.streams.open == []
    assert (process.streams.delivered, process.streams.bytes) == (5, sent)


def test_what_a_bounded_answer_was_given_counts_though_it_never_joined(process: Process) -> None:
    start = Position(process.log.bounds().epoch, 0)
    pull = Pull(process.log, process.ring, Stream(Subscription(["a"]), start), process.wake)
    process.publish("a", "a")
    take_all(pull)
    process.streams.part(pull)
    assert process.streams.delivered == 2
    assert process.woken == 0


def test_a_stream_hears_at_once_what_came_while_it_joined(process: Process) -> None:
    process.join("a")
    assert process.woken == 1


def test_streams_of_a_limited_life_end_at_different_times(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(lifetime_s=100.0)
    clock = [1_000.0]
    monkeypatch.setattr(streams_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    pulls = [process.join("a") for _ in range(200)]

    def open_at(now: float) -> int:
        clock[0] = now
        process.streams.end_old()
        return sum(pull.poll() is not Next.CLOSED for pull in pulls)

    assert open_at(1_079.9) == 200
    assert 10 < open_at(1_095.0) < 190
    assert open_at(1_120.1) == 0
    assert {pull.stream.closing for pull in pulls} == {Closing.OLD}


def test_streams_live_for_ever_unless_told_otherwise(process: Process) -> None:
    pull = process.join("a")
    process.streams.end_old()
    assert pull.poll() is Next.WAIT


def test_draining_ends_those_that_are_open_and_those_that_come(process: Process) -> None:
    before = process.join("a")
    process.streams.drain()
    after = process.join("a")
    for pull in (before, after):
        assert pull.poll() is Next.CLOSED
        assert pull.stream.closing is Closing.DRAINED


class Later:
    """What was asked to be called, and after how long."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0

    def __call__(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.calls.append((delay_s, call))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_right_that_ends_has_a_timer_which_looks_at_the_clock_again(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, later = 1_000.0, Later()
    clock = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: now)
    monkeypatch.setattr(streams_module, "time", clock)
    monkeypatch.setattr(process.streams, "_call_later", later)
    pull = process.join("chat", until=now + 5_000.0)
    for waits in (3_600.0, 1_400.0):
        delay_s, call = later.calls[-1]
        assert delay_s == waits, "never longer than an hour: the clock may have been set meanwhile"
        now += delay_s
        assert isinstance(pull.poll(), Next)
        assert pull.stream.closing is None
        call()
    assert pull.poll() is Next.CLOSED
    assert pull.stream.closing is Closing.EXPIRED
    assert len(later.calls) == 2
    process.streams.part(pull)


def test_a_stream_that_is_over_leaves_no_timer(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Later()
    monkeypatch.setattr(process.streams, "_call_later", later)
    pull = process.join("chat", until=4e9)
    process.streams.part(pull)
    assert (len(later.calls), later.cancelled) == (1, 1)
    assert not process.streams._rights
    assert not process.streams._timers
