"""Streams against the log: in whatever order things happen, each own record once, or a gap is told.

Everything that the loop, the tail, the publishers and the streams' drivers do is a step here, and the
steps come in any order.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock import Event, Gap, GapReason, Options, Position, Record
from penstock.core.channel import Subscription
from penstock.core.stream import Closing, State
from penstock.core.wire import Block, Entry, Item
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.inbox import News
from penstock.engine.origin import Wish, find_origin
from penstock.engine.pull import Pull
from penstock.engine.tail import Tail
from penstock.log.base import Retention
from penstock.log.memory import MemoryLog, MemoryStore
from tests.support.strategies import few


class Machine:
    """An engine whose loop and tail do nothing by themselves, and a log that others write to, too."""

    def __init__(self, ring_events: int = 5) -> None:
        store = MemoryStore()
        self.log, self.other = MemoryLog(store), MemoryLog(store)
        self.engine = Engine(self.log, Options(ring_events=ring_events))
        self.ring = self.engine.ring
        self.published: list[Record] = []
        self.queue: list[News] = []  # what the loop has not taken yet
        self.trimmed = 0
        self.tail = Tail(self.log, self.ring, self.deliver, lambda: None)
        self.tail._find()

    def publish(self, *events: Event, own: bool) -> None:
        """Append, in this process or in another."""
        appended = (self.log if own else self.other).append(events)
        records = [
            Record.of(event, appended.epoch, seq, appended.time)
            for event, seq in zip(events, appended.seqs, strict=True)
        ]
        self.published += records
        if own:
            self.queue.append(records)

    def deliver(self, news: News) -> None:
        """What the tail brings waits until the loop has taken it."""
        self.queue.append(news)
        self.turn()

    def turn(self) -> None:
        """A turn of the loop."""
        queue, self.queue = self.queue, []
        self.engine._take(queue)

    def follow(self) -> bool:
        """A round of the tail, which waits until the loop has taken what it read."""
        return self.tail._read_on()

    def open(self, subscription: Subscription, wish: Wish, last_event_id: str | None = None) -> Driver:
        known = self.ring.bounds
        assert known is not None
        origin = find_origin(self.log, known, subscription, wish, last_event_id)
        driver = Driver(self, self.engine.detached(subscription, origin, lambda: None))
        driver.cursor = Position.parse(last_event_id) if last_event_id else origin.position
        if origin.gap is not None:
            driver.take(origin.gap)
        assert driver.cursor == origin.position
        self.engine._streams.join(driver.pull)
        return driver


class Driver:
    """Drives a stream, and checks each thing that it is given against what was published."""

    def __init__(self, machine: Machine, pull: Pull) -> None:
        self.machine = machine
        self.pull = pull
        self.cursor = pull.stream.position
        self.records: list[Record] = []
        self.gaps: list[Gap] = []
        self.ended = set(pull.stream.ended)

    def step(self) -> Next | None:
        """One poll, and one read if it is wanted. Gives WAIT or CLOSED when there is no more."""
        step = self.pull.poll()
        if isinstance(step, Next) and step is not Next.READ:
            return step
        block = self.pull.read() if step is Next.READ else step
        if isinstance(block, Block):
            assert block.items
            for item in block.items:
                self.take(item)
            assert (self.pull.stream.state is State.CLOSED) == self.is_over
        return None

    @property
    def is_over(self) -> bool:
        """Whether it has had the end of all that it follows."""
        wants = self.pull.subscription
        return not wants.patterns and self.ended >= wants.channels

    def run(self) -> Next:
        """Steps until there is no more."""
        for _ in range(1_000):
            if (last := self.step()) is not None:
                return last
        raise AssertionError(f"{self.pull.stream} never comes to rest")

    def missing(self, upto: int) -> list[int]:
        """What it should have been given between where it is and ``upto``, and was not."""
        covers = self.pull.subscription.covers
        return [
            r.seq for r in self.machine.published if self.cursor.seq < r.seq <= upto and covers(r.channel)
        ]

    def take(self, item: Item) -> None:
        if isinstance(item, Gap):
            after = Position.parse(item.after)
            assert after.epoch == self.cursor.epoch
            self.gaps.append(item)
            if item.reason is GapReason.EPOCH:
                assert item.resumes.epoch != after.epoch
                assert item.resumes.epoch == self.machine.log.bounds().epoch, "goes on where the log is"
                assert item.resumes.seq <= self.machine.trimmed
                self.ended.clear()
            else:
                assert item.reason is GapReason.EXPIRED
                assert self.cursor.seq <= after.seq < item.resumes.seq
                assert item.resumes.seq <= self.machine.trimmed, "no more is told than was trimmed"
                assert self.missing(after.seq) == []
            self.cursor = item.resumes
            return
        position = item.record.position if isinstance(item, Entry) else item
        assert position.epoch == self.cursor.epoch
        if isinstance(item, Entry):
            assert self.pull.subscription.covers(item.record.channel)
            assert position.seq > self.cursor.seq, "twice"
            assert self.missing(position.seq - 1) == []
            sent = self.machine.published[position.seq - 1]
            assert item.record == sent._replace(epoch=position.epoch)
            self.records.append(item.record)
            (self.ended.add if item.record.end else self.ended.discard)(item.record.channel)
        else:
            assert position.seq >= self.cursor.seq, "back"
            assert self.missing(position.seq) == [], "a client with this id would not get them"
        self.cursor = position


CHANNELS = ["a", "b", "c/1"]
subscriptions = st.lists(st.sampled_from(["a", "b", "c/*", "**"]), min_size=1, max_size=2, unique=True).map(
    Subscription
)


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.drivers: list[Driver] = []
        self.now = 1e12  # later than any clock

    @rule(names=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=4), own=st.booleans())
    def publish(self, names: list[str], own: bool) -> None:
        self.machine.publish(*[Event(name, "x") for name in names], own=own)

    @rule(name=st.sampled_from(CHANNELS), own=st.booleans())
    def end(self, name: str, own: bool) -> None:
        self.machine.publish(Event(name, "", end=True), own=own)

    @rule()
    def turn(self) -> None:
        self.machine.turn()

    @rule()
    def follow(self) -> None:
        self.machine.follow()

    @rule(keep=st.integers(0, 8))
    def trim(self, keep: int) -> None:
        self.machine.log.trim(Retention(None, keep, None))
        self.machine.trimmed = self.machine.log.bounds().first - 1

    @rule()
    def renew(self) -> None:
        self.machine.other.open(renew=self.machine.other.bounds().epoch)

    @rule()
    def keep_alive(self) -> None:
        self.now += 1e6
        self.machine.engine._fanout.sweep(None, self.now)

    @rule()
    def wake(self) -> None:
        self.machine.engine._fanout.wake()

    @rule(subscription=subscriptions, back=st.integers(0, 12), stale=st.booleans())
    def come_back(self, subscription: Subscription, back: int, stale: bool) -> None:
        bounds = self.machine.log.bounds()
        here = Position("gone" if stale else bounds.epoch, max(0, bounds.head - back))
        self.drivers.append(self.machine.open(subscription, Wish(), str(here)))

    @rule(subscription=subscriptions)
    def come_from_now_on(self, subscription: Subscription) -> None:
        bounds = self.machine.log.bounds()
        driver = self.machine.open(subscription, Wish())
        assert driver.cursor == Position(bounds.epoch, bounds.head), "what was published before is over"
        self.drivers.append(driver)

    @rule(subscription=subscriptions, last=st.integers(0, 5))
    def come_for_the_last(self, subscription: Subscription, last: int) -> None:
        bounds = self.machine.log.bounds()
        driver = self.machine.open(subscription, Wish(last=last))
        kept = [
            record.seq
            for record in self.machine.published[bounds.first - 1 :]
            if subscription.covers(record.channel) and not record.end
        ]
        wanted = kept[-last:] if last else []
        assert driver.cursor.seq == (wanted[0] - 1 if wanted else bounds.head)
        self.drivers.append(driver)

    @precondition(lambda self: self.drivers)
    @rule(which=st.integers(0, 1_000), steps=st.integers(1, 4))
    def drive(self, which: int, steps: int) -> None:
        driver = self.drivers[which % len(self.drivers)]
        for _ in range(steps):
            driver.step()

    @precondition(lambda self: self.drivers)
    @rule(which=st.integers(0, 1_000))
    def leave(self, which: int) -> None:
        driver = self.drivers.pop(which % len(self.drivers))
        self.machine.engine._streams.part(driver.pull)

    @invariant()
    def the_audiences_are_those_of_the_open_streams(self) -> None:
        fanout = self.machine.engine._fanout
        assert set(fanout.audiences) == {driver.pull.subscription for driver in self.drivers}

    def teardown(self) -> None:
        while self.machine.follow():
            pass
        bounds = self.machine.log.bounds()
        for driver in self.drivers:
            stream = driver.pull.stream
            if driver.run() is Next.CLOSED:
                assert stream.closing is Closing.ENDED
                assert driver.is_over
            else:
                assert stream.state is State.LIVE
                assert driver.cursor.epoch == bounds.epoch
                assert driver.missing(bounds.head) == []
            assert driver.pull.delivered == len(driver.records)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(few, max_examples=200, stateful_step_count=40)


# Each thing by itself


@pytest.fixture
def machine() -> Machine:
    return Machine()


def open_at(machine: Machine, seq: int, *names: str) -> Driver:
    epoch = machine.log.bounds().epoch
    return machine.open(Subscription(names), Wish(), f"{epoch}:{seq}")


def publish(machine: Machine, count: int, channel: str = "a", *, own: bool = True) -> None:
    machine.publish(*[Event(channel, "x") for _ in range(count)], own=own)
    machine.turn()
    machine.follow()


def test_a_live_stream_takes_the_block_of_its_audience(machine: Machine) -> None:
    one, other = open_at(machine, 0, "a"), open_at(machine, 0, "a")
    for driver in (one, other):
        assert driver.run() is Next.WAIT
    publish(machine, 3)
    blocks = [driver.pull.poll() for driver in (one, other)]
    assert isinstance(blocks[0], Block)
    assert blocks[0] is blocks[1], "made once for both"
    assert blocks[0].wire is blocks[1].wire


def test_a_stream_within_the_ring_does_not_read_the_log(machine: Machine) -> None:
    publish(machine, 5)
    driver = open_at(machine, 2, "a")
    machine.log.close()
    driver.step()
    assert [record.seq for record in driver.records] == [3, 4, 5]
    assert driver.step() is Next.WAIT


def test_a_stream_behind_the_ring_reads_the_log_and_then_the_ring(machine: Machine) -> None:
    publish(machine, 30)
    driver = open_at(machine, 0, "a")
    assert driver.pull.poll() is Next.READ
    assert driver.run() is Next.WAIT
    assert [record.seq for record in driver.records] == list(range(1, 31))


def test_the_end_of_a_channel_ends_its_live_streams(machine: Machine) -> None:
    one, both = open_at(machine, 0, "a"), open_at(machine, 0, "a", "b")
    assert one.run() is both.run() is Next.WAIT
    machine.publish(Event("a", "x"), Event("a", "", end=True), own=True)
    machine.turn()
    assert one.run() is Next.CLOSED
    assert both.run() is Next.WAIT
    machine.publish(Event("a", "again"), Event("b", "", end=True), own=True)
    machine.turn()
    assert both.run() is Next.WAIT
    machine.publish(Event("a", "", end=True), own=True)
    machine.turn()
    assert both.run() is Next.CLOSED
    assert [record.seq for record in both.records] == [1, 2, 3, 4, 5]


def test_a_stream_that_is_busy_while_news_comes_is_lagging(machine: Machine) -> None:
    driver = open_at(machine, 0, "a")
    assert driver.run() is Next.WAIT
    assert not driver.pull.lagging
    publish(machine, 1)
    assert not driver.pull.lagging, "it sleeps, and will wake at once"
    driver.step()  # now it is busy sending
    publish(machine, 1)
    assert driver.pull.lagging
    driver.step()
    assert driver.pull.stream.state is State.LAGGING
    assert driver.run() is Next.WAIT
    assert not driver.pull.lagging


def test_a_silent_stream_is_given_its_position_once_for_each_keep_alive(machine: Machine) -> None:
    driver = open_at(machine, 0, "a")
    publish(machine, 3, "b")
    assert driver.run() is Next.WAIT
    machine.engine._fanout.sweep(None, 1e12)
    (item,) = driver.pull.poll().items  # type: ignore[union-attr]
    assert item == Position(machine.log.bounds().epoch, 3), "past what is not its own: it will be trimmed"
    assert driver.step() is Next.WAIT


def test_a_stream_that_joins_late_is_not_given_the_keep_alives_of_before(machine: Machine) -> None:
    open_at(machine, 0, "a")
    machine.engine._fanout.sweep(None, 1e12)
    assert open_at(machine, 0, "a").step() is Next.WAIT


def test_a_stream_of_the_new_epoch_is_not_led_back_to_the_old_one(machine: Machine) -> None:
    publish(machine, 3)
    machine.other.open(renew=machine.other.bounds().epoch)
    driver = open_at(machine, 3, "a")  # its client heard of the new epoch from another process
    assert driver.run() is Next.WAIT
    assert (driver.gaps, driver.records) == ([], [])
    machine.follow()
    publish(machine, 1)
    assert driver.run() is Next.WAIT
    assert [record.seq for record in driver.records] == [4]
    assert driver.gaps == []


def test_a_stream_is_told_once_of_a_new_epoch(machine: Machine) -> None:
    publish(machine, 3)
    driver = open_at(machine, 1, "a")
    driver.run()
    machine.other.open(renew=machine.other.bounds().epoch)
    machine.follow()
    assert driver.run() is Next.WAIT
    assert [gap.reason for gap in driver.gaps] == [GapReason.EPOCH]
    assert [record.seq for record in driver.records] == [2, 3, 1, 2, 3]
    assert driver.pull.gaps == 1


def test_closing_ends_a_stream_at_its_next_poll_for_the_first_reason(machine: Machine) -> None:
    driver = open_at(machine, 0, "a")
    publish(machine, 3)
    driver.pull.close(Closing.DRAINED)
    driver.pull.close(Closing.LEFT)
    assert driver.pull.poll() is Next.CLOSED
    assert driver.pull.poll() is Next.CLOSED
    assert driver.pull.stream.closing is Closing.DRAINED
