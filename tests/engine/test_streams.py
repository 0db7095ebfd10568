"""The registry of streams: what was given is counted beyond a stream's end, and streams end in time."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from penstock import Event, Position
from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.core.stream import Closing, Stream
from penstock.core.wire import Block
from penstock.engine import streams as streams_module
from penstock.engine.fanout import Fanout
from penstock.engine.feed import Next
from penstock.engine.pull import Pull
from penstock.engine.ring import Ring
from penstock.engine.streams import Streams
from penstock.log.memory import MemoryLog


class Process:
    """What of a process the registry knows."""

    def __init__(self, lifetime_s: float | None = None) -> None:
        self.log = MemoryLog()
        self.ring = Ring(100, 1 << 20)
        epoch, first, head = self.log.bounds()
        self.ring.move(Bounds(epoch, first, head), head)
        self.fanout = Fanout(15.0)
        self.streams = Streams(self.fanout, self.ring, lifetime_s)
        self.woken = 0

    def join(self, *names: str) -> Pull:
        here = Position(self.log.bounds().epoch, self.ring.head)
        pull = Pull(self.log, self.ring, Stream(Subscription(names), here), self.wake)
        self.streams.join(pull)
        return pull

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
