"""A pushed stream: what its client takes, does not take, or does, and what goes on in the log meanwhile."""

from __future__ import annotations

import gc
import os
import re
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from penstock import Event, Penstock, Position
from penstock.core.channel import Subscription
from penstock.core.record import Record
from penstock.core.stream import Closing
from penstock.engine import engine as engine_module
from penstock.engine import phrases
from penstock.engine import push as push_module
from penstock.engine.origin import Origin, Wish
from penstock.engine.push import STRAY_BYTES, Connection, Push
from penstock.engine.ring import BLOCK_BYTES
from penstock.errors import LogUnusable
from penstock.log.memory import MemoryLog, MemoryStore
from tests.engine.pushed import (
    SMALL,
    Client,
    closing,
    gap_in,
    hand_over,
    in_lane,
    is_position,
    on_loop,
    open_stream,
    publish,
    pushes,
    runners,
    seen,
    seq_of,
    sockets,
)
from tests.support.wait import wait_for

CHAT = Subscription(["chat"])
FULL = "x" * 1_000_000  # more than both ends of a connection hold
EARLIEST = Wish("earliest")


@pytest.fixture(autouse=True)
def swept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_S", 0.02)


class Gate(MemoryLog):
    """A log that can be held up, and whose reading can fail."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.readable = threading.Event()
        self.readable.set()
        self.held_up = threading.Event()  # somebody who is not the tail waits
        self.error: Exception | None = None
        self.reads = 0

    def read(self, after: int, limit: int) -> list[Record]:
        if threading.current_thread().name.startswith("penstock-read"):
            self.reads += 1
            if not self.readable.is_set():
                self.held_up.set()
                assert self.readable.wait(30)
            if self.error is not None:
                raise self.error
        return super().read(after, limit)


@pytest.fixture
def log() -> Gate:
    return Gate()


@pytest.fixture
def bus(log: Gate) -> Iterator[Penstock]:
    with Penstock(lambda: log, ring_events=20, max_event_bytes=2_000_000) as bus:
        bus.engine.start("a test")
        yield bus
        log.readable.set()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """In the end as many are open as in the beginning."""
    process = psutil.Process()
    before = process.num_fds()
    yield
    gc.collect()
    wait_for(lambda: process.num_fds() <= before, what=lambda: f"{before} descriptors: {process.num_fds()}")


def read_events(client: Client, expected: list[bytes]) -> None:
    """The client gets these, and has had no others."""
    client.read_all(
        lambda: len(client.events) >= len(expected), lambda: f"{len(expected)} events: {client.events}"
    )
    assert client.events == expected


# What it says


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("tcp", [True, False])
def test_greeting_replay_and_what_comes_then_arrive_byte_for_byte(
    bus: Penstock, chunked: bool, tcp: bool
) -> None:
    first = publish(bus, "chat", *map(str, range(50)))  # more than the ring has
    client = open_stream(bus.engine, "chat", wish=EARLIEST, chunked=chunked, tcp=tcp)
    with closing(client):
        read_events(client, first)
        in_lane(bus.engine, 1)
        publish(bus, "other", "not its own")
        rest = publish(bus, "chat", "a\nb", "", "é€\U0001f600")
        read_events(client, first + rest)
        greeting = client.blocks[0]
        assert greeting.startswith(b"retry: 3000\nid: ")
        assert seq_of(greeting) == 0
        assert is_position(greeting)


@pytest.mark.parametrize("chunked", [True, False])
def test_the_end_of_its_channel_is_told_and_ends_it(bus: Penstock, chunked: bool) -> None:
    clients = [open_stream(bus.engine, "job", chunked=chunked) for _ in range(3)]
    other = open_stream(bus.engine, "job", "chat", chunked=chunked)
    with closing(*clients, other):
        in_lane(bus.engine, 4)
        (event,) = publish(bus, "job", "1")
        end = bus.end("job")
        told = f'id: {end}\nevent: penstock.end\ndata: {{"channel": "job"}}\n\n'.encode()
        for client in clients:
            assert client.read_to_end()[1:] == [event, told]
            wait_for(lambda c=client: c.places_given_back == 1, what="its place is given back")  # type: ignore[misc]
        (more,) = publish(bus, "chat", "goes on")
        read_events(other, [event, told, more])
        assert runners(bus.engine) == 0, "a channel that has ended must be kept in mind"
        (again,) = publish(bus, "job", "begins again")
        read_events(other, [event, told, more, again])
        in_lane(bus.engine, 1)
    wait_for(lambda: not pushes(bus.engine), what="nobody is left")


def test_a_quiet_stream_is_kept_alive_with_the_logs_position(log: Gate) -> None:
    with Penstock(lambda: log, keep_alive=0.1) as bus:
        clients = [open_stream(bus.engine, "quiet", chunked=chunked) for chunked in (True, False, True)]
        with closing(*clients):
            in_lane(bus.engine, 3)
            head = bus.publish("busy", "")
            for client in clients:
                client.read_all(lambda c=client: c.last_event_id == str(head))  # type: ignore[misc]
                assert not client.events
            assert runners(bus.engine) == 3
            mine = publish(bus, "quiet", "after that")
            for client in clients:
                read_events(client, mine)


def test_a_client_that_is_ahead_of_the_tail_gets_nothing_twice(bus: Penstock) -> None:
    """It was at another process, whose tail was faster."""
    had = Position(bus.engine.log.bounds().epoch, 2)
    other = open_stream(bus.engine, "chat")
    ahead = hand_over(bus.engine, CHAT, Origin(had, None, frozenset()))
    with closing(other, ahead):
        ahead.read_blocks(1)
        in_lane(bus.engine, 1)
        events = publish(bus, "chat", "1", "2", "3")
        read_events(other, events)
        read_events(ahead, events[2:])
        in_lane(bus.engine, 2)


# A client that takes only a part


@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_that_pauses_gets_all_and_runs_in_the_lane_again(bus: Penstock, chunked: bool) -> None:
    slow = open_stream(bus.engine, "chat", chunked=chunked, size=SMALL)
    prompt = open_stream(bus.engine, "chat", chunked=chunked)
    with closing(slow, prompt):
        in_lane(bus.engine, 2)
        events = publish(bus, "chat", *(f"{number} " * 500 for number in range(100)))
        read_events(prompt, events)
        in_lane(bus.engine, 1)
        wait_for(lambda: bus.stats().lagging == 1, what="the other has fallen behind")
        read_events(slow, events)
        in_lane(bus.engine, 2)
        assert bus.stats().lagging == 0
        wait_for(lambda: bus.stats().delivered == 200, what=lambda: f"all are counted: {bus.stats()}")


def test_of_a_block_that_a_client_takes_half_of_only_the_event_is_kept_that_was_begun(bus: Penstock) -> None:
    """The rest it reads once more, from the ring or, as here, from the log."""
    slow = open_stream(bus.engine, "chat", size=SMALL)
    with closing(slow):
        in_lane(bus.engine, 1)
        positions = bus.publish_many([Event("chat", f"{number:03} " * 200) for number in range(100)])
        wait_for(lambda: bus.stats().lagging == 1, what="it falls behind")
        (push,) = pushes(bus.engine)
        rest, seq = on_loop(bus.engine, lambda: (push._rest, push.stream.seq))
        assert rest is not None
        assert 0 < len(rest) <= 1_000
        assert 0 < seq < 50
        slow.read_all(lambda: len(slow.events) == 100)
        assert [seq_of(block) for block in slow.events] == [position.seq for position in positions]


@pytest.mark.parametrize("chunked", [True, False])
def test_of_a_gap_notice_with_events_after_it_no_more_is_kept(log: Gate, chunked: bool) -> None:
    with Penstock(lambda: log, max_events=60, max_event_bytes=2_000_000) as bus:
        slow = open_stream(bus.engine, "chat", chunked=chunked)
        with closing(slow):
            in_lane(bus.engine, 1)
            publish(bus, "chat", FULL)
            wait_for(lambda: bus.stats().lagging == 1, what="it falls behind")
            publish(bus, "chat", *(["x" * 1_000] * 300))
            log.trim(bus.options.retention)
            on_loop(bus.engine, lambda: bus.engine.ring.move(log.bounds(), log.bounds().head))
            slow.read_all(lambda: any(map(gap_in, slow.blocks)), "the gap is told")
            (push,) = pushes(bus.engine)
            rest = on_loop(bus.engine, lambda: push._rest) or b""
            assert len(rest) <= 1_100
            slow.read_all(lambda: seq_of(slow.blocks[-1]) == log.bounds().head, "it has what is left")
            assert [seq_of(block) for block in slow.events] == [1, *range(242, 302)]


def test_a_thousand_clients_that_never_read_cost_the_rest_of_an_event_each(
    bus: Penstock, descriptors: None
) -> None:
    many, events, size = 1_000, 300, 3_000
    warm = open_stream(bus.engine, "chat", size=SMALL)
    publish(bus, "chat", "x")
    tracemalloc.start()
    try:
        clients = [
            open_stream(bus.engine, "chat", size=SMALL, chunked=number % 2 == 0) for number in range(many)
        ]
        wait_for(lambda: bus.stats().streams == many + 1)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(events):
            bus.publish("chat", "x" * size)
        seen(bus)
        wait_for(lambda: bus.stats().lagging == many + 1, what="all have fallen behind")
        wait_for(lambda: bus.stats().ring_events <= 20)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before - events * (size + 2_000)) / many
    finally:
        tracemalloc.stop()
    print(f"{each:.0f} bytes for each client that never reads")
    assert each < size + 1_500
    for client in [*clients, warm]:
        client.close()
    wait_for(lambda: bus.stats().streams == 0, what="all are gone")
    assert [client.places_given_back for client in clients] == [1] * many


def test_turns_that_are_too_large_for_one_block_reach_all(bus: Penstock) -> None:
    clients = [open_stream(bus.engine, "chat", chunked=chunked) for chunked in (True, False)]
    with closing(*clients):
        in_lane(bus.engine, 2)
        large = "x" * (BLOCK_BYTES // 3)
        for _ in range(3):
            events = [Event("chat", f"{number}{large}") for number in range(6)]
            positions = bus.publish_many(events)
            for client in clients:
                client.read_all(lambda c=client, p=positions: c.last_event_id == str(p[-1]))  # type: ignore[misc]
            in_lane(bus.engine, 2)
        for client in clients:
            assert [seq_of(block) for block in client.events] == list(range(1, 19))


def test_a_stream_with_much_to_read_lets_the_others_have_their_turn(
    bus: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often there is news meanwhile."""
    turns: list[int] = []
    send_block = Push._send_block

    def send(push: Push, block: object) -> bool:
        turns.append(id(push))
        return send_block(push, block)  # type: ignore[arg-type]

    monkeypatch.setattr(Push, "_send_block", send)
    monkeypatch.setattr("penstock.engine.feed.STEP_EVENTS", 1)
    streams = [open_stream(bus.engine, "chat", wish=EARLIEST) for _ in range(2)]
    with closing(*streams):
        for client in streams:
            client.read_blocks(1)
        in_lane(bus.engine, 2)

        def begin_together() -> None:
            for push in pushes(bus.engine):
                push.step_out()
                push.stream.back_to(0)
            for _ in range(3):
                for push in pushes(bus.engine):
                    push.news()

        events = publish(bus, "chat", *map(str, range(19)))
        for client in streams:
            read_events(client, events)
        events += publish(bus, "chat", "19")  # so that no one turn of the loop has them all in a block
        for client in streams:
            read_events(client, events)
        on_loop(bus.engine, turns.clear)
        on_loop(bus.engine, begin_together)
        for client in streams:
            read_events(client, events * 2)
        for start in range(0, 16, 2 * push_module.BLOCKS_AT_ONCE):
            part = turns[start : start + 2 * push_module.BLOCKS_AT_ONCE]
            assert len(set(part)) == 2, f"one had its turn before the other: {turns}"


# News, ends and departures while a thread reads in the log


@pytest.fixture
def held_up(bus: Penstock, log: Gate) -> Iterator[Client]:
    """A client for which a thread reads, and is held up."""
    publish(bus, "chat", *map(str, range(60)))
    seen(bus)
    log.readable.clear()
    client = open_stream(bus.engine, "chat", wish=EARLIEST)
    with closing(client):
        client.read_blocks(1)
        assert log.held_up.wait(30)
        yield client


def test_news_that_comes_while_a_thread_reads_is_not_lost(bus: Penstock, log: Gate, held_up: Client) -> None:
    publish(bus, "chat", "meanwhile")
    seen(bus)
    log.readable.set()
    held_up.read_all(lambda: len(held_up.events) == 61)
    assert [seq_of(block) for block in held_up.events] == list(range(1, 62))
    in_lane(bus.engine, 1)


def test_a_client_may_leave_while_a_thread_reads(bus: Penstock, log: Gate, held_up: Client) -> None:
    held_up.close()
    wait_for(lambda: not pushes(bus.engine), what="it is gone")
    wait_for(lambda: held_up.places_given_back == 1, what="its place is given back")
    log.readable.set()
    client = open_stream(bus.engine, "chat")
    with closing(client):
        client.read_blocks(1)
        read_events(client, publish(bus, "chat", "the loop goes on"))


def test_nothing_is_read_for_clients_that_left_before_their_turn(
    bus: Penstock, log: Gate, held_up: Client
) -> None:
    later = [open_stream(bus.engine, "chat", wish=EARLIEST) for _ in range(30)]
    wait_for(lambda: len(pushes(bus.engine)) == 31)
    for client in later:
        client.close()
    wait_for(lambda: len(pushes(bus.engine)) == 1, what="they are gone")
    log.readable.set()
    held_up.read_all(lambda: len(held_up.events) == 60)
    assert log.reads <= 4  # two threads had begun


def test_a_stream_that_is_to_end_while_a_thread_reads_says_farewell(
    bus: Penstock, log: Gate, held_up: Client
) -> None:
    assert not bus.drain(0.05)
    log.readable.set()
    blocks = held_up.read_to_end()
    assert is_position(blocks[-1])
    assert re.match(rb"retry: \d+\n", blocks[-1])
    assert seq_of(blocks[-1]) == len(held_up.events)


def test_an_engine_may_be_closed_while_a_thread_reads(bus: Penstock, log: Gate, held_up: Client) -> None:
    bus.close()
    log.readable.set()
    held_up.read_all(lambda: held_up.gone)
    wait_for(lambda: held_up.places_given_back == 1, what="its place is given back")


def test_an_error_of_the_log_is_told_and_the_pause_grows_only_while_streams_fail(
    bus: Penstock, log: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phrases, "FAILED_RETRY_S", 0.001)
    monkeypatch.setattr(phrases, "LONGEST_FAILED_RETRY_S", 5.0)
    publish(bus, "chat", *map(str, range(60)))
    seen(bus)

    def fail() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(log, "error", LogUnusable("damaged"))
            client = open_stream(bus.engine, "chat", wish=EARLIEST)
            with closing(client):
                *_, last = client.read_to_end()
        found = re.match(rb"retry: (\d+)\nevent: penstock.error\ndata: ", last)
        assert found, last
        return int(found[1])

    first = fail()
    wait_for(lambda: fail() > max(20, 3 * first), what="the pause grows")
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    client = open_stream(bus.engine, "chat")
    with closing(client):
        in_lane(bus.engine, 1)  # a stream got through
    assert fail() <= 2


# The log becomes another


def test_streams_in_the_lane_are_told_of_a_new_epoch(log: Gate) -> None:
    store = MemoryStore()
    with Penstock(lambda: Gate(store)) as bus:
        clients = [open_stream(bus.engine, "chat", chunked=chunked) for chunked in (True, False)]
        with closing(*clients):
            in_lane(bus.engine, 2)
            old = publish(bus, "chat", "1", "2")
            for client in clients:
                read_events(client, old)
            before = log_of(bus).bounds().epoch
            log_of(bus).open(renew=before)
            epoch = log_of(bus).bounds().epoch
            assert epoch != before
            for client in clients:
                client.read_all(lambda c=client: c.last_event_id == f"{epoch}:2")  # type: ignore[misc]
                *_, notice, one, two = client.blocks
                gap = gap_in(notice)
                assert gap is not None
                assert (gap["reason"], gap["after"], gap["resumes"]) == ("epoch", f"{before}:2", f"{epoch}:0")
                assert [seq_of(one), seq_of(two)] == [1, 2]
            in_lane(bus.engine, 2)
            (new,) = publish(bus, "chat", "3")
            for client in clients:
                client.read_all(lambda c=client: c.last_event_id == f"{epoch}:3")  # type: ignore[misc]
                assert client.blocks[-1] == new


def log_of(bus: Penstock) -> MemoryLog:
    assert isinstance(bus.engine.log, MemoryLog)
    return bus.engine.log


def test_a_file_that_is_wiped_under_streams_is_told_to_them(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    with Penstock(f"sqlite:///{file}") as bus:
        client = open_stream(bus.engine, "chat")
        with closing(client):
            in_lane(bus.engine, 1)
            read_events(client, publish(bus, "chat", "1", "2"))
            for each in tmp_path.glob("log.db*"):
                if each.is_file():
                    each.unlink()
            client.read_all(
                lambda: gap_in(client.blocks[-1]) is not None, lambda: f"the gap: {client.blocks}"
            )
            gap = gap_in(client.blocks[-1])
            assert gap is not None
            assert gap["reason"] == "epoch"
            in_lane(bus.engine, 1)
            had = len(client.events)
            (event,) = publish(bus, "chat", "new")
            client.read_all(lambda: len(client.events) > had)
            assert client.events[had:] == [event]


# Endings


def test_a_drain_says_farewell_and_cuts_off_whoever_takes_nothing(bus: Penstock) -> None:
    """Within a second or so; what that one had been sent ends with a whole event or in the midst of one."""
    stuck = open_stream(bus.engine, "chat", size=SMALL)
    prompt = open_stream(bus.engine, "chat", chunked=False)
    with closing(stuck, prompt):
        in_lane(bus.engine, 2)
        event = publish(bus, "chat", "x" * 200_000)
        read_events(prompt, event)
        wait_for(lambda: bus.stats().lagging == 1)
        assert not bus.drain(0.1)
        *_, farewell = prompt.read_to_end()
        assert is_position(farewell)
        assert seq_of(farewell) == 1
        assert bus.drain(10)
        assert (stuck.places_given_back, prompt.places_given_back) == (1, 1)
        stuck.read_all(lambda: stuck.gone)
        assert not stuck.events
        late = open_stream(bus.engine, "chat")
        with closing(late):
            assert [is_position(block) for block in late.read_to_end()] == [True, True]


def test_a_drain_waits_for_a_client_that_is_about_to_take_the_rest(bus: Penstock) -> None:
    slow = open_stream(bus.engine, "chat", size=SMALL)
    with closing(slow):
        in_lane(bus.engine, 1)
        event = publish(bus, "chat", "x" * 50_000)
        publish(bus, "chat", "comes after it is back")
        wait_for(lambda: bus.stats().lagging == 1)
        on_loop(bus.engine, lambda: bus.engine._streams.drain())
        blocks = slow.read_to_end()
        assert slow.events == event
        assert seq_of(blocks[-1]) == 1


def test_an_engine_that_is_closed_lets_all_go(log: Gate, descriptors: None) -> None:
    with Penstock(lambda: log) as bus:
        prompt = open_stream(bus.engine, "chat")
        stuck = open_stream(bus.engine, "chat", size=SMALL)
        in_lane(bus.engine, 2)
        publish(bus, "chat", "x" * 100_000)
    assert (prompt.places_given_back, stuck.places_given_back) == (1, 1)
    assert is_position(prompt.read_to_end()[-1])
    stuck.read_all(lambda: stuck.gone)
    for client in (prompt, stuck):
        client.close()
    ours, near = sockets(tcp=False)
    late = Client(near, chunked=True)
    origin = Origin(Position("a", 1), None, frozenset())
    bus.engine.push(
        Connection(ours.detach(), True, lambda: setattr(late, "places_given_back", 1)), CHAT, origin
    )
    late.read_all(lambda: late.gone)
    wait_for(lambda: late.places_given_back == 1, what="its place is given back")
    late.close()


def test_the_end_reaches_the_client_though_another_process_holds_the_socket(bus: Penstock) -> None:
    """A child that was forked meanwhile has a copy of every descriptor."""
    ours, near = sockets(tcp=True)
    client = Client(near, chunked=False)
    command = [sys.executable, "-S", "-c", "input()"]
    with subprocess.Popen(command, pass_fds=[ours.fileno()], stdin=subprocess.PIPE) as child, closing(client):
        try:
            origin = Origin(Position(bus.engine.log.bounds().epoch, 0), None, frozenset())
            bus.engine.push(Connection(ours.detach(), False, lambda: None), CHAT, origin)
            client.read_blocks(1)
            bus.end("chat")
            assert len(client.read_to_end()) == 2
        finally:
            child.communicate(b"\n")


def test_a_number_that_is_given_to_the_next_connection_at_once_is_the_next_ones(bus: Penstock) -> None:
    clients = [open_stream(bus.engine, "chat") for _ in range(3)]
    with closing(*clients):
        in_lane(bus.engine, 3)
        leaving = pushes(bus.engine)[1]
        origin = Origin(Position(bus.engine.log.bounds().epoch, 0), None, frozenset())
        ours, near = sockets(tcp=False)
        new = Client(near, chunked=True)

        def change() -> None:
            number = leaving._fd
            leaving.cut()
            assert os.dup2(ours.fileno(), number) == number
            push = Push(
                bus.engine.log,
                bus.engine.ring,
                type(leaving.stream)(CHAT, origin.position),
                Connection(number, True, lambda: None),
                leaving._outlet,
            )
            assert push.begin(b"retry: 1\nid: a:0\nevent: penstock.position\ndata: \n\n")
            bus.engine._streams.join(push)

        on_loop(bus.engine, change)
        ours.close()
        with closing(new):
            in_lane(bus.engine, 3)
            events = publish(bus, "chat", "1", "2")
            for client in (clients[0], clients[2], new):
                read_events(client, events)
            clients[1].read_all(lambda: clients[1].gone)
            assert not clients[1].events
            wait_for(lambda: clients[1].places_given_back == 1, what="its place is given back")


@pytest.mark.parametrize("tcp", [True, False])
def test_clients_that_come_and_go_leave_nothing_behind(bus: Penstock, descriptors: None, tcp: bool) -> None:
    for _ in range(5):
        clients = [
            open_stream(bus.engine, "chat", f"user/{n}", chunked=n % 2 == 0, tcp=tcp) for n in range(40)
        ]
        for number, client in enumerate(clients):
            if number % 4 == 0:
                client.close()  # perhaps before its first byte
        publish(bus, "chat", "x" * 10_000)
        publish(bus, "user/1", "x")
        for client in clients[1::4]:
            client.read_blocks(2)
        for client in clients:
            if tcp:  # with a reset
                client.socket.close() if client.socket.fileno() < 0 else client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )
            client.close()
        wait_for(lambda: not pushes(bus.engine), what="all are gone")
        assert [client.places_given_back for client in clients] == [1] * len(clients)
    assert bus.stats().audiences == 0
    assert [str(one.subscription) for one in bus.engine._fanout.audiences.values()] == ["penstock.kicks"]
    assert not bus.engine.patience._waiting
    loop = bus.engine.loop
    assert loop is not None
    left = on_loop(bus.engine, lambda: len(loop._selector.get_map()))  # type: ignore[attr-defined]
    assert left == 1, "the loop watches itself, and nothing else"


def test_a_client_that_sends_something_goes_on_and_one_that_sends_much_is_cut_off(bus: Penstock) -> None:
    client = open_stream(bus.engine, "chat", tcp=True)
    with closing(client):
        in_lane(bus.engine, 1)
        client.socket.setblocking(True)
        client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        client.socket.setblocking(False)
        read_events(client, publish(bus, "chat", "still here"))
        client.socket.settimeout(30)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.socket.sendall(b"x" * (100 * STRAY_BYTES))
        wait_for(lambda: not pushes(bus.engine), what="it is gone")
        wait_for(lambda: client.places_given_back == 1, what="its place is given back")


def test_a_stream_that_is_old_says_farewell(log: Gate) -> None:
    with Penstock(lambda: log, stream_lifetime=1) as bus:
        client = open_stream(bus.engine, "chat")
        with closing(client):
            *_, farewell = client.read_to_end()
            assert re.match(rb"retry: \d+\nid: ", farewell)


def test_the_first_reason_to_end_is_the_one_that_counts(bus: Penstock) -> None:
    client = open_stream(bus.engine, "chat")
    with closing(client):
        in_lane(bus.engine, 1)
        (push,) = pushes(bus.engine)

        def end_twice() -> None:
            push.close(Closing.OLD)
            push.close(Closing.DRAINED)
            push.cut()
            push.news()

        on_loop(bus.engine, end_twice)
        assert push.stream.closing is Closing.OLD
        assert len(client.read_to_end()) == 2
        wait_for(lambda: client.places_given_back == 1, what="its place is given back")
