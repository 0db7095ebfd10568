"""What only the whole engine does: it starts once, tells what it serves, sweeps, and drains when told."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock import Event, Options, Position, threads
from penstock.core.channel import Subscription
from penstock.core.stream import Closing
from penstock.core.wire import Block, Entry
from penstock.engine import engine as engine_module
from penstock.engine import inbox
from penstock.engine import trimmer as trimmer_module
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Origin, Wish
from penstock.engine.phrases import DRAIN_RETRY_MS, farewell
from penstock.engine.pull import Pull
from penstock.errors import Closed, ConfigError, LogDenied
from penstock.log.memory import MemoryLog
from penstock.log.sqlite import SQLiteLog
from tests.support.wait import wait_for

CHAT = Subscription(["chat"])


@pytest.fixture(autouse=True)
def swept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_S", 0.02)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(MemoryLog(), Options(keep_alive=0.1))
    yield engine
    engine.close()


def open_stream(engine: Engine, woken: threading.Event) -> Pull:
    engine.start("a test")
    return engine.open(CHAT, engine.find_origin(CHAT, Wish()), woken.set)


def next_block(pull: Pull, woken: threading.Event) -> Block | Next:
    while True:
        woken.clear()
        step = pull.poll()
        if step is not Next.WAIT:
            return step
        assert woken.wait(30)


def next_events(pull: Pull, woken: threading.Event) -> Block:
    """The next block that is not a keep-alive: on a busy machine some may come first."""
    while isinstance(block := next_block(pull, woken), Block):
        if block.events:
            return block
    raise AssertionError(f"the stream is over: {block}")


def test_one_line_tells_what_is_served(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "penstock"):
        engine.start("a test")
        engine.start("another door")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "penstock"]
    assert line.startswith("streams from memory: through a test; keep-alive 0.1 s; ring of 10000 events")


def test_where_no_thread_can_be_started_the_next_stream_tries_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(thread: threads.Thread) -> None:
        raise RuntimeError("can't start new thread")

    woken = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threads.Thread, "start", none)
        with pytest.raises(RuntimeError):
            engine.start("a test")
    pull = open_stream(engine, woken)
    engine.publish([Event("chat", "hello")])
    assert next_events(pull, woken).events == 1


def test_a_stream_is_fed_kept_alive_and_forgotten(engine: Engine) -> None:
    woken = threading.Event()
    pull = open_stream(engine, woken)
    (position,) = engine.publish([Event("chat", "hi")])
    assert next_events(pull, woken).events == 1
    engine.publish([Event("other", "x")])
    while isinstance(beat := next_block(pull, woken), Block) and beat.items != [Position(position.epoch, 2)]:
        assert beat.items == [position], "until the loop has the other one"
    engine.leave(pull)
    wait_for(lambda: engine.stats().streams == 0)
    assert engine.stats().delivered == 1


def test_streams_end_when_the_server_around_says_that_it_stops(engine: Engine) -> None:
    woken, stopping = threading.Event(), threading.Event()
    pull = open_stream(engine, woken)
    engine.drain_when(stopping.is_set)
    assert isinstance(next_block(pull, woken), Block), "a keep-alive: it is asked in vain"
    stopping.set()
    while (step := next_block(pull, woken)) is not Next.CLOSED:
        assert isinstance(step, Block)
    assert pull.stream.closing is Closing.DRAINED
    assert engine.stats().draining
    engine.leave(pull)


def test_draining_waits_for_the_farewells_of_clients(engine: Engine) -> None:
    woken = threading.Event()
    pull = open_stream(engine, woken)
    wait_for(lambda: engine.stats().streams == 1)
    assert engine.drain(0.05) is False, "its driver is busy"
    while (step := next_block(pull, woken)) is not Next.CLOSED:
        assert isinstance(step, Block), "a keep-alive from before"
    engine.leave(pull)
    assert engine.drain(30.0) is True


def test_streams_that_are_opened_after_close_are_over(engine: Engine) -> None:
    engine.start("a test")
    origin = Origin(Position("e", 0), None, frozenset())
    engine.close()
    pull = engine.open(CHAT, origin, lambda: None)
    assert pull.poll() is Next.CLOSED
    engine.leave(pull)
    with pytest.raises(Closed):
        engine.start("a test")


def test_the_retention_is_applied_while_streams_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimmer_module, "INTERVAL_S", 0.02)
    engine = Engine(MemoryLog(), Options(max_events=3))
    engine.log.append([Event("chat", "x")] * 10)
    engine.start("a test")
    wait_for(lambda: engine.log.bounds().first == 8)
    engine.close()


def test_the_retention_is_applied_by_publishing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimmer_module, "INTERVAL_EVENTS", 10)
    engine = Engine(MemoryLog(), Options(max_events=3))
    engine.publish([Event("chat", "x")] * 10)
    wait_for(lambda: engine.log.bounds().first == 8)
    engine.close()


def test_a_first_stream_is_told_why_the_log_cannot_be_read(tmp_path: Path) -> None:
    engine = Engine(SQLiteLog(tmp_path / "missing" / "log.db"), Options())
    engine.start("a test")
    with pytest.raises(LogDenied, match="is not there") as caught:
        engine.find_origin(CHAT, Wish())
    assert isinstance(caught.value.__cause__, LogDenied)
    assert engine.stats().log_state == "away"
    engine.close()


def test_streams_are_refused_where_eventlet_has_patched_the_threads(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = SimpleNamespace(is_monkey_patched=lambda what: what == "thread")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patched)
    with pytest.raises(ConfigError, match="eventlet has patched the threads: serve with gevent, or"):
        engine.start("a test")
    assert engine.publish([Event("chat", "hi")])[0].seq == 1


def test_clients_of_a_drained_process_come_back_spread() -> None:
    words = [farewell(Position("abcdefgh", 1)) for _ in range(200)]
    pauses = {int(each.removeprefix(b"retry: ").partition(b"\n")[0]) for each in words}
    assert len(pauses) > 100
    assert DRAIN_RETRY_MS[0] <= min(pauses) < 3_000
    assert 8_000 < max(pauses) <= DRAIN_RETRY_MS[1]


def test_what_outran_the_loop_is_read_from_the_log(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_QUEUED_EVENTS", 10)
    woken, go_on = threading.Event(), threading.Event()
    pull = open_stream(engine, woken)
    assert engine.loop is not None
    engine.loop.call_soon_threadsafe(go_on.wait, 30)
    for number in range(100):
        engine.publish([Event("chat", str(number))])
    go_on.set()
    seen: list[str] = []
    while len(seen) < 100:
        block = next_block(pull, woken)
        assert isinstance(block, Block)
        seen += [item.record.data for item in block.items if isinstance(item, Entry)]
    assert seen == [str(number) for number in range(100)]
    engine.leave(pull)
