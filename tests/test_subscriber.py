"""Following a log with ``for`` and ``async for``: everything once, in order, until there is no more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from penstock import Event, Gap, GapError, GapReason, Penstock, Position, Record
from penstock.engine.pull import Pull
from penstock.errors import BadChannel, ConfigError, MalformedPosition
from penstock.log.base import Retention
from penstock.log.memory import MemoryLog
from tests.support.wait import DEADLINE_S, wait_for

T = TypeVar("T")


@pytest.fixture(params=["memory", "sqlite"])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Penstock]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"
    with Penstock(url, ring_events=20) as bus:
        yield bus


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(20)
    yield pool
    pool.shutdown(wait=False)  # a thread that hangs is told by its test


def take(records: Iterable[Record], count: int) -> list[str]:
    """The data of so many records."""
    return [record.data for record in itertools.islice(records, count)]


def take_async(bus: Penstock, *channels: str, count: int, **where: Any) -> list[str]:
    """The same with coroutines."""

    async def main() -> list[str]:
        taken: list[str] = []
        async with contextlib.aclosing(bus.asubscribe(*channels, **where)) as records:  # type: ignore[type-var]
            async for record in records:
                taken.append(record.data)
                if len(taken) == count:
                    break
        return taken

    return asyncio.run(main())


def publish(bus: Penstock, channel: str, *data: str) -> list[Position]:
    return bus.publish_many([Event(channel, one) for one in data])


def waits(bus: Penstock) -> Callable[[], bool]:
    """Whether every open stream has all that there is, and sleeps."""

    def all_wait() -> bool:
        streams = bus.engine._streams.open
        return bool(streams) and all(isinstance(pull, Pull) and pull.waiting for pull in streams)

    return all_wait


# What one gets


def test_a_subscriber_gets_what_is_published_after_it_was_made(bus: Penstock) -> None:
    publish(bus, "chat", "before")
    records = bus.subscribe("chat")
    publish(bus, "chat", "1", "2")
    publish(bus, "other", "not this")
    publish(bus, "chat", "3")
    assert take(records, 3) == ["1", "2", "3"]


def test_what_was_published_just_before_is_not_given(bus: Penstock) -> None:
    bus.subscribe("chat").close()
    loop = bus.engine.loop
    assert loop is not None
    go_on = threading.Event()
    loop.call_soon_threadsafe(go_on.wait, DEADLINE_S)  # so that the ring is behind the log
    publish(bus, "chat", "before")
    records = bus.subscribe("chat")
    publish(bus, "chat", "after")
    go_on.set()
    assert take(records, 1) == ["after"]


def test_a_record_has_all_that_was_published(bus: Penstock) -> None:
    records = bus.subscribe("room/*")
    position = bus.publish("room/7", {"text": "hi"}, event="said", retry=5, key="k")
    record = next(records)
    assert (record.channel, record.json(), record.event, record.retry, record.key) == (
        "room/7", {"text": "hi"}, "said", 5, "k",
    )  # fmt: skip
    assert record.position == position
    assert abs(record.time - time.time()) < 60


WHERE: list[tuple[dict[str, Any], list[str]]] = [
    ({"after": "earliest"}, ["1", "3", "4"]),
    ({"after": 0}, ["1", "3", "4"]),
    ({"after": 1}, ["3", "4"]),
    ({"after": 3}, ["4"]),
    ({"last": 1}, ["4"]),
    ({"last": 2}, ["3", "4"]),
    ({"last": 99}, ["1", "3", "4"]),
    ({"last": 0}, []),
    ({}, []),
]


@pytest.mark.parametrize(("where", "data"), WHERE)
@pytest.mark.parametrize("as_text", [True, False])
def test_where_to_begin(bus: Penstock, where: dict[str, Any], data: list[str], as_text: bool) -> None:
    first = publish(bus, "a", "1")[0]
    publish(bus, "b", "2")
    publish(bus, "a", "3", "4")
    if isinstance(where.get("after"), int):
        after = Position(first.epoch, where["after"])
        where = {"after": str(after) if as_text else after}
    with bus.subscribe("a", **where) as records:
        bus.publish("a", "new")
        assert take(records, len(data) + 1) == [*data, "new"]


def test_a_subscriber_that_was_away_gets_exactly_what_it_missed(bus: Penstock) -> None:
    told: list[str] = []
    position: Position | None = None
    sent = [str(number) for number in range(100)]  # five times what the ring holds
    for start in range(0, 100, 25):
        with bus.subscribe("chat", after=position or "earliest") as records:
            publish(bus, "chat", *sent[start : start + 25])
            for record in itertools.islice(records, 10):
                told.append(record.data)
                position = record.position
    with bus.subscribe("chat", after=position) as records:
        told += take(records, 60)
    assert told == sent


def test_coroutines_get_the_same(bus: Penstock) -> None:
    publish(bus, "a", "1", "2")
    publish(bus, "b", "3")
    publish(bus, "a", *map(str, range(4, 60)))
    everything = ["1", "2", *map(str, range(4, 60))]
    assert take_async(bus, "a", count=58, after="earliest") == everything
    assert take_async(bus, "a", count=5, last=5) == everything[-5:]
    assert take_async(bus, "*", count=3, after="earliest") == ["1", "2", "3"]


def test_many_coroutines_follow_while_others_publish(bus: Penstock) -> None:
    async def follow(after: Position) -> list[int]:
        seqs = []
        async for record in bus.asubscribe("**", after=after):
            seqs.append(record.seq)
            if record.data == "last":
                break
        return seqs

    async def main() -> list[list[int]]:
        start = await bus.apublish("chat", "first")
        followers = [asyncio.create_task(follow(start)) for _ in range(20)]
        await asyncio.gather(*[bus.apublish(f"c{number % 7}", number) for number in range(300)])
        await bus.apublish("chat", "last")
        return await asyncio.gather(*followers)

    told = asyncio.run(main())
    assert told == [list(range(2, 303))] * 20


def test_many_threads_follow_while_others_publish(bus: Penstock, threads: ThreadPoolExecutor) -> None:
    subscribers = [bus.subscribe("a", "b/*") for _ in range(6)] + [bus.subscribe("b/**") for _ in range(3)]
    following = [threads.submit(list, subscriber) for subscriber in subscribers]

    def publish_some(name: str) -> None:
        for number in range(100):
            bus.publish(name, f"{name} {number}")

    list(threads.map(publish_some, ["a", "b/1", "b/2", "c"]))
    wait_for(lambda: bus.stats().delivered == 6 * 300 + 3 * 200)
    bus.drain()
    everything = bus.engine.log.read(0, 10_000)
    assert len(everything) == 400
    for subscriber, told in zip(subscribers, following, strict=True):
        covers = subscriber._pull.subscription.covers
        assert told.result(DEADLINE_S) == [record for record in everything if covers(record.channel)]


def test_a_subscriber_that_does_not_read_costs_nothing_and_loses_nothing(bus: Penstock) -> None:
    slow = bus.subscribe("chat")
    sent = [str(number) for number in range(2_000)]
    for start in range(0, 2_000, 100):
        publish(bus, "chat", *sent[start : start + 100])
    wait_for(lambda: bus.stats().tail_seq == 2_000)
    stats = bus.stats()
    assert stats.ring_events <= 20
    assert stats.lagging == 1
    assert stats.delivered == 0
    assert take(slow, 2_000) == sent
    assert bus.stats().delivered == 2_000


def test_another_process_is_followed_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Penstock(url) as here, Penstock(url) as there:
        records = here.subscribe("chat")
        for number in range(5):
            there.publish("chat", f"there {number}")
            here.publish("chat", f"here {number}")
        assert take(records, 10) == [f"{where} {n}" for n in range(5) for where in ("there", "here")]


# Arguments


@pytest.mark.parametrize(
    ("channels", "where", "error"),
    [
        ((), {}, BadChannel),
        (("",), {}, BadChannel),
        (("a*",), {}, BadChannel),
        ((7,), {}, BadChannel),
        (("a",), {"after": "17"}, MalformedPosition),
        (("a",), {"after": 17}, MalformedPosition),
        (("a",), {"last": -1}, ConfigError),
        (("a",), {"last": 5, "after": "earliest"}, ConfigError),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_the_call(
    bus: Penstock, channels: tuple[str, ...], where: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        bus.subscribe(*channels, **where)
    with pytest.raises(error):
        bus.asubscribe(*channels, **where)


# Gaps


def with_gap(bus: Penstock) -> Position:
    """A log whose oldest records are gone, and a position before them."""
    position = publish(bus, "chat", "0")[0]
    publish(bus, "chat", *map(str, range(1, 10)))
    bus.engine.log.trim(Retention(None, 4, None))
    return position


def test_a_gap_is_an_error_that_says_where_to_go_on(bus: Penstock) -> None:
    position = with_gap(bus)
    records = bus.subscribe("chat", after=position)
    with pytest.raises(GapError) as caught:
        next(records)
    gap = caught.value.gap
    assert gap == Gap(GapReason.EXPIRED, str(position), Position(position.epoch, 6))
    with bus.subscribe("chat", after=gap.resumes) as again:
        assert take(again, 4) == ["6", "7", "8", "9"]
    assert take(records, 4) == ["6", "7", "8", "9"], "or by the same one, which has told it now"


def test_a_gap_may_be_told_instead(bus: Penstock) -> None:
    position = with_gap(bus)
    told: list[Gap] = []
    with bus.subscribe("chat", after=position, on_gap=told.append) as records:
        assert take(records, 4) == ["6", "7", "8", "9"]
    assert [gap.reason for gap in told] == [GapReason.EXPIRED]


def test_coroutines_are_told_of_gaps_likewise(bus: Penstock) -> None:
    position = with_gap(bus)
    with pytest.raises(GapError) as caught:
        take_async(bus, "chat", count=4, after=position)
    assert take_async(bus, "chat", count=4, after=caught.value.gap.resumes) == ["6", "7", "8", "9"]
    told: list[Gap] = []
    assert take_async(bus, "chat", count=4, after=position, on_gap=told.append) == ["6", "7", "8", "9"]
    assert len(told) == 1
    wait_for(lambda: bus.stats().streams == 0)


@pytest.mark.parametrize(
    ("after", "reason", "resumes", "data"),
    [
        ("{epoch}:99", GapReason.AHEAD, 10, ["new"]),
        ("another:3", GapReason.EPOCH, 6, ["6", "7", "8", "9", "new"]),
    ],
)
def test_a_position_that_the_log_never_gave_is_a_gap(
    bus: Penstock, after: str, reason: GapReason, resumes: int, data: list[str]
) -> None:
    epoch = with_gap(bus).epoch
    told: list[Gap] = []
    with bus.subscribe("chat", after=after.format(epoch=epoch), on_gap=told.append) as records:
        publish(bus, "chat", "new")
        assert take(records, len(data)) == data
    assert [(gap.reason, gap.resumes.seq) for gap in told] == [(reason, resumes)]


def test_a_live_subscriber_is_told_what_was_trimmed_while_it_was_busy(bus: Penstock) -> None:
    told: list[Gap] = []
    records = bus.subscribe("chat", on_gap=told.append)
    for start in range(0, 100, 10):
        publish(bus, "chat", *map(str, range(start, start + 10)))
        wait_for(lambda: bus.stats().tail_seq == start + 10)  # noqa: B023
    bus.engine.log.trim(Retention(None, 50, None))
    assert take(records, 50) == [str(number) for number in range(50, 100)]
    (gap,) = told
    assert (gap.reason, Position.parse(gap.after).seq, gap.resumes.seq) == (GapReason.EXPIRED, 0, 50)
    publish(bus, "chat", "live again")
    assert take(records, 1) == ["live again"]
    assert len(told) == 1
    assert bus.stats().gaps == 1


def test_a_live_subscriber_is_told_of_a_new_epoch(bus: Penstock) -> None:
    told: list[Gap] = []
    records = bus.subscribe("chat", on_gap=told.append)
    old = publish(bus, "chat", "1", "2")[0].epoch
    assert take(records, 2) == ["1", "2"]
    bus.engine.log.open(renew=old)  # what `penstock renew` does
    wait_for(lambda: bus.engine.ring.epoch != old)
    new = publish(bus, "chat", "3")[0].epoch
    assert take(records, 3) == ["1", "2", "3"], "nobody can know what is new, so all comes again"
    assert [(gap.reason, gap.after, gap.resumes) for gap in told] == [
        (GapReason.EPOCH, f"{old}:2", Position(new, 0))
    ]


# The ends of channels


def test_iteration_is_over_when_the_channel_has_ended(bus: Penstock) -> None:
    records = bus.subscribe("job/7")
    publish(bus, "job/7", "10 %", "100 %")
    end = bus.end("job/7")
    publish(bus, "job/8", "another")
    got = list(records)
    assert [record.data for record in got] == ["10 %", "100 %", ""]
    assert got[-1].end
    assert got[-1].position == end
    assert list(records) == []
    wait_for(lambda: bus.stats().streams == 0)


def test_iteration_is_over_when_all_channels_have_ended(bus: Penstock) -> None:
    records = bus.subscribe("job/7", "job/8")
    bus.end("job/7")
    publish(bus, "job/8", "still")
    bus.end("job/8")
    assert [(record.channel, record.end) for record in records] == [
        ("job/7", True),
        ("job/8", False),
        ("job/8", True),
    ]


def test_a_channel_that_has_ended_is_over_at_once(bus: Penstock) -> None:
    publish(bus, "job/7", "100 %")
    end = bus.end("job/7")
    assert list(bus.subscribe("job/7")) == []
    assert list(bus.subscribe("job/7", after=end)) == []
    assert take_async(bus, "job/7", count=1) == []
    assert [record.data for record in bus.subscribe("job/7", after="earliest")] == ["100 %", ""]
    assert [record.data for record in bus.subscribe("job/7", last=5)] == ["100 %", ""]


def test_a_channel_that_is_published_to_again_begins_again(bus: Penstock) -> None:
    end = bus.end("job/7")
    publish(bus, "job/7", "once more")
    with bus.subscribe("job/7", after=end) as records:
        assert take(records, 1) == ["once more"]
    bus.end("job/7")
    assert [record.end for record in bus.subscribe("job/7", after="earliest")] == [True], "up to the first"


def test_a_pattern_has_no_end(bus: Penstock) -> None:
    records = bus.subscribe("job/*")
    bus.end("job/7")
    publish(bus, "job/8", "another")
    assert [record.end for record in itertools.islice(records, 2)] == [True, False]


def test_the_end_reaches_coroutines(bus: Penstock) -> None:
    async def main() -> list[str]:
        task = asyncio.create_task(collect(bus.asubscribe("job/7", after="earliest")))
        await bus.apublish("job/7", "100 %")
        await bus.aend("job/7")
        return await task

    assert asyncio.run(main()) == ["100 %", ""]


async def collect(records: AsyncIterator[Record]) -> list[str]:
    return [record.data async for record in records]


# Stopping


def test_a_subscriber_that_waits_is_woken_by_what_comes(bus: Penstock, threads: ThreadPoolExecutor) -> None:
    records = bus.subscribe("chat")
    following = threads.submit(next, records)
    wait_for(waits(bus))
    publish(bus, "chat", "news")
    assert following.result(DEADLINE_S).data == "news"


@pytest.mark.parametrize("how", ["close", "drain"])
def test_subscribers_that_wait_in_other_threads_are_let_go_within_a_second(
    bus: Penstock, threads: ThreadPoolExecutor, how: str
) -> None:
    took: list[float] = []
    while len(took) < 5 and min(took, default=1.0) >= 0.9:  # the machine may be busy at one of them
        with Penstock(bus.engine.log.url) as one:
            took.append(time_to_let_go(one, threads, how))
    assert min(took) < 0.9


def time_to_let_go(bus: Penstock, threads: ThreadPoolExecutor, how: str) -> float:
    subscribers = [bus.subscribe("chat") for _ in range(5)]
    following: list[Future[list[Record]]] = [threads.submit(list, records) for records in subscribers]
    coroutines = threads.submit(lambda: asyncio.run(collect(bus.asubscribe("chat"))))
    wait_for(lambda: bus.stats().streams == 6)
    publish(bus, "chat", "news")
    wait_for(lambda: bus.stats().delivered == 6)
    started = time.monotonic()
    getattr(bus, how)()
    assert [[record.data for record in future.result(DEADLINE_S)] for future in following] == [["news"]] * 5
    assert coroutines.result(DEADLINE_S) == ["news"]
    return time.monotonic() - started


def test_closing_a_subscriber_ends_it_whoever_waits_in_it(bus: Penstock, threads: ThreadPoolExecutor) -> None:
    records = bus.subscribe("chat")
    following = threads.submit(list, records)
    wait_for(waits(bus))
    records.close()
    records.close()
    assert following.result(DEADLINE_S) == []
    publish(bus, "chat", "late")
    assert list(records) == []
    wait_for(lambda: bus.stats().streams == 0)


def test_a_closed_subscriber_gives_no_more_even_of_what_it_has(bus: Penstock) -> None:
    records = bus.subscribe("chat", after="earliest")
    publish(bus, "chat", "1", "2", "3")
    assert take(records, 1) == ["1"]
    records.close()
    assert list(records) == []


def test_a_subscriber_that_is_dropped_leaves(bus: Penstock) -> None:
    publish(bus, "chat", "1")
    for record in bus.subscribe("chat", after="earliest"):
        assert record.data == "1"
        break
    gc.collect()
    wait_for(lambda: bus.stats().streams == 0)


def test_a_coroutine_that_is_cancelled_leaves(bus: Penstock) -> None:
    async def main() -> None:
        task = asyncio.create_task(collect(bus.asubscribe("chat")))
        while bus.stats().streams != 1:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_for(lambda: bus.stats().streams == 0)


def test_a_loop_that_ends_without_its_followers_harms_nobody(bus: Penstock) -> None:
    loop = asyncio.new_event_loop()
    records = bus.asubscribe("chat", after="earliest")
    publish(bus, "chat", "1")
    assert loop.run_until_complete(anext(records)).data == "1"
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    publish(bus, "chat", "2")
    assert take(bus.subscribe("chat", last=1), 1) == ["2"]


def test_the_life_of_a_stream_may_be_limited() -> None:
    with Penstock(MemoryLog, stream_lifetime=1) as bus:
        started = time.monotonic()
        assert list(bus.subscribe("chat")) == []
        assert 0.7 < time.monotonic() - started < 20
