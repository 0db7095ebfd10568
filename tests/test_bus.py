"""``Penstock`` itself: what is published rests in the log, or the publisher knows that it does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from penstock import Event, Penstock, Position, Record
from penstock.errors import (
    BadChannel,
    BadData,
    Closed,
    ConfigError,
    EventTooLarge,
    InvalidEvent,
    LogDenied,
    LogUnavailable,
    PenstockError,
    WouldBlock,
)
from penstock.log import sqlite as sqlite_module
from penstock.log.base import Log
from penstock.log.memory import MemoryLog
from tests.support import sqlite
from tests.support.wait import DEADLINE_S, wait_for


@pytest.fixture(params=["memory", "sqlite"])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Penstock]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"
    with Penstock(url) as bus:
        yield bus


def stored(bus: Penstock) -> list[Record]:
    """All that rests in the log."""
    return bus.engine.log.read(0, 1_000_000)


def our_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("penstock"))


# Publishing


def test_publish_returns_where_the_event_rests(bus: Penstock) -> None:
    position = bus.publish("chat", {"text": "hi"}, event="said", retry=500, key="k")
    (record,) = stored(bus)
    assert record.position == position
    assert (record.channel, record.data, record.event, record.retry, record.key, record.end) == (
        "chat", '{"text":"hi"}', "said", 500, "k", False,
    )  # fmt: skip
    assert abs(record.time - time.time()) < 60
    assert bus.publish("chat", "more") == Position(position.epoch, 2)


def test_coroutines_publish_likewise(bus: Penstock) -> None:
    async def main() -> list[Position]:
        one = await bus.apublish("chat", {"text": "hi"}, event="said", retry=500, key="k")
        many = await bus.apublish_many([Event("a", 1), Event("b", 2)])
        return [one, *many, await bus.aend("a")]

    positions = asyncio.run(main())
    assert [position.seq for position in positions] == [1, 2, 3, 4]
    assert [(r.channel, r.data, r.end) for r in stored(bus)] == [
        ("chat", '{"text":"hi"}', False), ("a", "1", False), ("b", "2", False), ("a", "", True),
    ]  # fmt: skip


def test_the_same_key_is_stored_once(bus: Penstock) -> None:
    first = bus.publish("orders", "17", key="order-17")
    assert bus.publish("orders", "17 again", key="order-17") == first
    assert bus.publish("other", "17", key="order-17") != first, "keys belong to their channel"
    assert [record.data for record in stored(bus)] == ["17", "17"]


def test_events_published_together_are_stored_together(bus: Penstock) -> None:
    positions = bus.publish_many(Event("chat", number) for number in range(5))
    assert [position.seq for position in positions] == [1, 2, 3, 4, 5]
    assert len({record.time for record in stored(bus)}) == 1
    assert bus.publish_many([]) == []
    assert asyncio.run(bus.apublish_many([])) == []


def test_all_are_stored_or_none(bus: Penstock) -> None:
    events = [Event("chat", "small"), Event("chat", "x" * 300_000), Event("chat", "small")]
    with pytest.raises(EventTooLarge, match="300004 bytes, over the limit of 262144; it was not stored"):
        bus.publish_many(events)
    with pytest.raises(EventTooLarge):
        asyncio.run(bus.apublish_many(events))
    with pytest.raises(InvalidEvent, match="Event"):
        bus.publish_many([Event("chat", "small"), ("chat", "no event")])  # type: ignore[list-item]
    assert stored(bus) == []


def test_the_largest_event_is_an_option(tmp_path: Path) -> None:
    with Penstock("memory:", max_event_bytes=10) as bus:
        bus.publish("chat", "123456")
        with pytest.raises(EventTooLarge, match="11 bytes, over the limit of 10"):
            bus.publish("chat", "1234567")
        with pytest.raises(EventTooLarge):
            bus.publish("chat", "123", event="type")


@pytest.mark.parametrize(
    ("channel", "data", "more", "error", "told"),
    [
        ("room/*", "hi", {}, BadChannel, "wildcard"),
        ("", "hi", {}, BadChannel, "1 to 200 characters"),
        ("chat", {"user": {"joined": date(2024, 2, 29)}}, {}, BadData, r"^data\['user'\]\['joined'\], date"),
        ("chat", b"\xff", {}, BadData, "at byte 0"),
        ("chat", "\ud800", {}, BadData, "lone surrogate"),
        ("chat", "hi", {"event": "a\nb"}, InvalidEvent, "forge"),
        ("chat", "hi", {"event": "penstock.end"}, InvalidEvent, "ours"),
        ("chat", "hi", {"retry": "5"}, InvalidEvent, "retry"),
        ("chat", "hi", {"key": ""}, InvalidEvent, "key"),
    ],
)
def test_what_cannot_be_delivered_is_refused_and_nothing_is_stored(
    bus: Penstock, channel: str, data: Any, more: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        bus.publish(channel, data, **more)
    with pytest.raises(error, match=told):
        asyncio.run(bus.apublish(channel, data, **more))
    assert stored(bus) == []
    assert bus.stats().published == 0


def test_a_publisher_on_the_engines_own_loop_is_told_what_to_call(bus: Penstock) -> None:
    bus.subscribe("chat").close()  # now there is a loop
    loop = bus.engine.loop
    assert loop is not None

    async def publish() -> Position:
        with pytest.raises(WouldBlock, match=r"nothing was stored: call 'await apublish\(...\)' here"):
            bus.publish("chat", "hi")
        with pytest.raises(WouldBlock):
            bus.end("chat")
        assert stored(bus) == []
        return await bus.apublish("chat", "hi")

    position = asyncio.run_coroutine_threadsafe(publish(), loop).result(DEADLINE_S)
    assert [record.position for record in stored(bus)] == [position]


def test_a_publisher_on_another_loop_may_block_it(bus: Penstock) -> None:
    async def main() -> Position:
        return bus.publish("chat", "hi")

    assert asyncio.run(main()).seq == 1


def test_a_publisher_waits_for_a_log_that_is_away_as_long_as_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module.SQLiteLog.__init__, "__kwdefaults__", {"busy_timeout_s": 0.01})
    file = tmp_path / "log.db"
    url = f"sqlite:///{file}"
    with Penstock(url, publish_timeout=0.2) as bus, Penstock(url, publish_timeout=60) as patient:
        bus.publish("chat", "before")
        publisher = threading.Thread(target=patient.publish, args=("chat", "patient"))
        with sqlite.locked(file):
            started = time.monotonic()
            with pytest.raises(LogUnavailable, match="nothing was stored"):
                bus.publish("chat", "not stored")
            assert 0.1 < time.monotonic() - started < DEADLINE_S
            publisher.start()
            publisher.join(0.1)
            assert publisher.is_alive()
        publisher.join()
        assert [record.data for record in stored(bus)] == ["before", "patient"]


# Its life


def test_nothing_happens_before_the_first_use(tmp_path: Path) -> None:
    bus = Penstock(f"sqlite:///{tmp_path}/log.db")
    assert repr(bus) == f"<Penstock sqlite:///{tmp_path}/log.db idle>"
    assert list(tmp_path.iterdir()) == []
    assert our_threads() == []
    bus.close()
    assert list(tmp_path.iterdir()) == []


def test_publishing_needs_no_thread_and_streams_need_two(bus: Penstock) -> None:
    bus.publish("chat", "hi")
    assert our_threads() == []
    assert bus.stats().log_state == "idle"
    bus.subscribe("chat").close()
    assert our_threads() == ["penstock-engine", "penstock-tail"]
    bus.subscribe("other").close()
    assert our_threads() == ["penstock-engine", "penstock-tail"]
    bus.close()
    wait_for(lambda: our_threads() == [])


def test_close_ends_everything_and_may_be_called_again(bus: Penstock) -> None:
    bus.publish("chat", "hi")
    subscriber = bus.subscribe("chat")
    asyncio.run(bus.apublish("chat", "hi"))
    bus.close()
    wait_for(lambda: our_threads() == [])
    bus.close()
    with pytest.raises(StopIteration):
        next(subscriber)
    subscriber.close()


def test_after_close_nothing_is_stored_and_everybody_is_told(bus: Penstock) -> None:
    bus.publish("chat", "hi")
    bus.close()
    for use in (
        lambda: bus.publish("chat", "late"),
        lambda: bus.publish_many([Event("chat", "late")]),
        lambda: bus.end("chat"),
        lambda: asyncio.run(bus.apublish("chat", "late")),
        lambda: bus.subscribe("chat"),
        lambda: asyncio.run(anext(bus.asubscribe("chat"))),  # type: ignore[arg-type]
    ):
        with pytest.raises(Closed, match="closed"):
            use()
    assert bus.stats().published == 1
    assert bus.drain() is True


def test_a_bus_that_was_closed_before_its_first_use_stays_closed(tmp_path: Path) -> None:
    bus = Penstock(f"sqlite:///{tmp_path}/log.db")
    bus.close()
    with pytest.raises(Closed):
        bus.publish("chat", "late")
    with pytest.raises(Closed):
        bus.stats()
    assert bus.drain() is True
    assert list(tmp_path.iterdir()) == []


def test_close_from_many_threads_at_once(bus: Penstock) -> None:
    bus.subscribe("chat").close()
    faults: list[BaseException] = []

    def use() -> None:
        try:
            with contextlib.suppress(Closed):
                while True:
                    bus.publish("chat", "hi")
        except BaseException as error:
            faults.append(error)

    publishers = [threading.Thread(target=use) for _ in range(3)]
    closers = [threading.Thread(target=bus.close) for _ in range(3)]
    for thread in publishers + closers:
        thread.start()
    for thread in publishers + closers:
        thread.join(DEADLINE_S)
    assert faults == []
    wait_for(lambda: our_threads() == [])


def test_a_with_block_closes() -> None:
    with Penstock("memory:") as bus:
        bus.publish("chat", "hi")
    with pytest.raises(Closed):
        bus.publish("chat", "late")


def test_what_it_is_shows(tmp_path: Path) -> None:
    made = []

    def make() -> Log:
        made.append(MemoryLog())
        return made[-1]

    with Penstock(make) as bus:
        assert repr(bus) == "<Penstock idle>"
        assert made == [], "a log is made by the first use"
        bus.publish("chat", "hi")
        assert repr(bus) == "<Penstock memory: open>"
        assert len(made) == 1
    assert repr(bus) == "<Penstock memory: closed>"


def test_a_relative_log_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with Penstock("sqlite:///log.db") as bus:
        monkeypatch.chdir(tmp_path / "elsewhere")
        bus.publish("chat", "hi")
        assert (tmp_path / "log.db").is_file()


def test_what_is_stored_is_there_for_the_next_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Penstock(url) as bus:
        position = bus.publish("chat", "before")
    with Penstock(url) as bus:
        assert bus.publish("chat", "after") == Position(position.epoch, 2)
        with bus.subscribe("chat", after="earliest") as records:
            assert [next(records).data for _ in range(2)] == ["before", "after"]


@pytest.mark.parametrize(
    "url",
    ["", "penstock.db", "sqlite:", "sqlite://", "sqlite://host/x.db", "sqlite:///", "sqlite:///x/", "foo:x",
     "memory:x", "sqlite:///x.db?sync=off", "sqlite:///x.db?mode=ro", None, 7],
)  # fmt: skip
def test_a_url_that_names_no_log_is_refused_at_once(url: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Penstock(url)
    assert "sqlite:///" in str(caught.value) or "sync=" in str(caught.value) or "memory:" in str(caught.value)


def test_a_log_that_cannot_be_used_is_an_error_of_the_first_use(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/missing/log.db") as bus:
        for use in (lambda: bus.publish("chat", "hi"), lambda: bus.subscribe("chat")):
            with pytest.raises(LogDenied, match="is not there; make it first"):
                use()
    assert issubclass(LogDenied, PenstockError)


# stats, drain


def test_stats_before_anything_happened(bus: Penstock) -> None:
    stats = bus.stats()
    assert stats.log_url == bus.engine.log.url
    assert stats.log_state == "idle"
    assert (stats.tail_seq, stats.tail_lag) == (None, None)
    zeros = {"streams", "audiences", "lagging", "polls", "published", "delivered", "bytes", "gaps"}
    assert {name for name in zeros if stats.to_dict()[name] != 0} == set()
    assert stats.draining is False


def test_stats_tell_what_was_done(bus: Penstock) -> None:
    bus.publish("chat", "before")
    one, other, third = bus.subscribe("a"), bus.subscribe("a"), bus.subscribe("b", last=1)
    bus.publish_many([Event("a", "1"), Event("b", "2"), Event("a", "3")])
    assert [next(one).data, next(one).data, next(other).data, next(third).data] == ["1", "3", "1", "2"]
    wait_for(lambda: bus.stats().tail_seq == 4)
    stats = bus.stats()
    assert (stats.streams, stats.audiences, stats.published) == (3, 2, 4)
    assert stats.delivered == 2 + 2 + 1, "handed to the streams, which may not have given them out yet"
    assert (stats.ring_events, stats.tail_lag, stats.log_state) == (3, 0, "following")
    assert stats.ring_bytes > 0
    for subscriber in (one, other, third):
        subscriber.close()
    wait_for(lambda: bus.stats().streams == 0)
    assert (bus.stats().audiences, bus.stats().delivered) == (0, 5)


def test_stats_of_a_log_that_does_not_answer(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    with Penstock(f"sqlite:///{file}") as bus:
        bus.subscribe("chat").close()
        with sqlite.moved_away(file):
            assert bus.stats().tail_lag is None
            wait_for(lambda: bus.stats().log_state == "away")
        wait_for(lambda: bus.stats().log_state == "following")
        assert bus.stats().tail_lag == 0


def test_a_drained_process_has_no_streams_but_publishes(bus: Penstock) -> None:
    subscriber = bus.subscribe("chat")
    assert bus.drain() is True
    assert list(subscriber) == []
    assert list(bus.subscribe("chat")) == []
    assert bus.publish("chat", "still").seq == 1
    assert bus.stats().draining is True
    wait_for(lambda: bus.stats().streams == 0)


def test_a_process_that_was_drained_before_its_first_stream_opens_none(bus: Penstock) -> None:
    assert bus.drain() is True
    assert list(bus.subscribe("chat", after="earliest")) == []
    assert bus.stats().draining is True


# Forks, and the end of a process


def run(script: str, folder: Path, *options: str) -> tuple[str, str, int]:
    """What a script with a log in the folder writes, and its exit code; its children end with it."""
    process = subprocess.Popen(
        [sys.executable, *options, "-c", script, f"sqlite:///{folder}/log.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return out, err, process.returncode


FORKS_WITH_THREADS = "-Wignore::DeprecationWarning"  # which newer Pythons warn of

_FORKED = """
import os, sys, threading
from penstock import Penstock

bus = Penstock(sys.argv[1])
position = bus.publish("chat", "parent")
records = bus.subscribe("chat", after="earliest")
assert next(records).data == "parent"

child = os.fork()
if child == 0:
    code = 1
    try:
        assert threading.active_count() == 1
        assert bus.stats().log_state == "idle"
        mine = bus.subscribe("chat", after=position)
        bus.publish("chat", "child")
        assert next(mine).data == "child"
        assert sorted(t.name for t in threading.enumerate())[1:] == ["penstock-engine", "penstock-tail"]
        del records
        bus.close()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert next(records).data == "child"
after = bus.publish("chat", "parent again")
assert after.seq == position.seq + 2
assert next(records).position == after
bus.close()
print("ok")
"""


def test_a_child_process_begins_anew_and_its_parent_goes_on(tmp_path: Path) -> None:
    assert run(_FORKED, tmp_path, FORKS_WITH_THREADS) == ("ok\n", "", 0)


_FORKING = """
import os, sys, threading
from penstock import Penstock

bus = Penstock(sys.argv[1])
bus.subscribe("chat").close()
stop = threading.Event()

def publish():
    while not stop.is_set():
        bus.publish("busy", "x")

threads = [threading.Thread(target=publish) for _ in range(2)]
for thread in threads: thread.start()
children = []
for number in range(8):
    child = os.fork()  # in the midst of everything
    if child == 0:
        code = 1
        try:
            bus.publish("child", str(number))
            bus.close()
            code = 0
        finally:
            os._exit(code)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads: thread.join()
told = sorted(r.data for r in bus.engine.log.read(0, 10**6) if r.channel == "child")
bus.close()
print(codes, told)
"""


def test_a_fork_in_the_midst_of_publishing_blocks_nobody(tmp_path: Path) -> None:
    out, err, _ = run(_FORKING, tmp_path, FORKS_WITH_THREADS)
    assert (out, err) == (f"{[0] * 8} {[str(number) for number in range(8)]}\n", "")


_LEFT_OPEN = """
import sys
from penstock import Penstock
bus = Penstock(sys.argv[1])
records = bus.subscribe("chat")
bus.publish("chat", "hi")
print(next(records).data)
"""


def test_a_script_that_closes_nothing_ends_cleanly_and_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run(_LEFT_OPEN, tmp_path, "-Xdev") == ("hi\n", "", 0)
    assert time.monotonic() - started < 60, "it does not hang"
    assert [path.name for path in tmp_path.iterdir()] == ["log.db"], "nothing is left hanging about"
