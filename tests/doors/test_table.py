"""The same facts on every server that a stream can leave through."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import pytest

from penstock import Penstock
from tests.doors.servers import ALL, HASTY, QUIET, Kind, Servers, publish_beside, reload_by_hangup
from tests.flask.ask import answer, events_url, get, post, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.times import assert_at_once
from tests.support.wait import wait_for

FIRST_BLOCK = re.compile(r"retry: 3000\nid: [a-z0-9]{8}:\d+\nevent: penstock\.position\ndata: \n")
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
SERVERS_OWN_HEADERS = {"server", "date", "connection", "transfer-encoding"}
STREAMS = 20  # that come and go
POOLED_THREADS = 12
CLIENTS = 3  # of a server that stops or reloads
DRAINED_WITHIN_S = 1.0


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    makes = {name: kind.make for name, kind in ALL.items()}
    servers = Servers(makes, QUIET, tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    makes = {name: kind.reloads or kind.make for name, kind in ALL.items()}
    servers = Servers(makes, HASTY, tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(name: str) -> Kind:
    return ALL[name]


@pytest.fixture
def server(name: str, quiet: Servers) -> Server:
    """One that is silent and goes on."""
    return quiet[name]


@pytest.fixture
def stopped_server(name: str, hasty: Servers) -> Server:
    """One with a short keep-alive, that may be stopped and started."""
    return hasty[name]


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"test/{uuid.uuid4().hex[:12]}"


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


@contextmanager
def following(
    server: Server, channel: str, count: int, *, auto_reconnect: bool = False
) -> Iterator[list[SSEClient]]:
    """So many clients of a channel, all of them open."""
    url = server.url + events_url(channel)
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(url, auto_reconnect=auto_reconnect)) for _ in range(count)]
        for client in clients:
            client.wait_open()
        yield clients


def test_headers_and_first_bytes_arrive_before_any_event(server: Server, channel: str) -> None:
    with answer(server, events_url(channel)) as response:
        assert response.status == 200
        sent = {name.lower(): value for name, value in response.getheaders()}
        assert {name: sent.pop(name, None) for name in HEADERS} == HEADERS
        assert sent.keys() <= SERVERS_OWN_HEADERS
        assert FIRST_BLOCK.fullmatch(read_block(response))


def test_events_arrive_in_order_with_their_positions(server: Server, channel: str) -> None:
    with following(server, channel, 1) as [client]:
        positions = publish(server, channel, "0", "1")
        positions += publish_beside(server, channel, *map(str, range(2, 40)))
        messages = client.wait_for_messages(40)
    assert [(m.data, m.id) for m in messages] == [(str(n), each) for n, each in enumerate(positions)]


def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_is_new(
    server: Server, channel: str
) -> None:
    had, *missed = publish(server, channel, "had", "missed 1", "missed 2")
    with SSEClient(server.url + events_url(channel), had) as client:
        client.wait_for_messages(2)
        new = publish(server, channel, "new")
        client.wait_for_messages(3)
        assert ids(client) == missed + new


def test_head_gets_headers_and_opens_no_stream(server: Server, channel: str) -> None:
    wait_for_streams(server, 0)
    before = stats(server)
    with answer(server, events_url(channel), method="HEAD") as response:
        assert response.status == 200
        assert {name: response.getheader(name) for name in HEADERS} == HEADERS
        assert response.read() == b""
    after = stats(server)
    assert after["streams"] == 0
    assert (after["delivered"], after["bytes"]) == (before["delivered"], before["bytes"])


def test_it_is_told_once_that_a_stream_is_over(server: Server, channel: str) -> None:
    tells = f"{channel}/over"
    with following(server, tells, 1) as [client]:
        with answer(server, events_url(channel, tells=tells)) as response:
            read_block(response)
            wait_for_streams(server, 2)
            (before,) = publish(server, tells, "not yet")
        client.wait_for_messages(2)
        with answer(server, events_url(channel, tells=tells), method="HEAD"):
            client.wait_for_messages(3)
        publish(server, tells, "that was all")
        messages = client.wait_for_messages(4)
    assert [message.data for message in messages] == ["not yet", "over", "over", "that was all"]
    assert messages[0].id == before


class Held(NamedTuple):
    """What a process holds."""

    sockets: int
    tasks: int
    threads: int

    def no_more_than(self, other: Held) -> bool:
        """Pools of threads aside, which grow by and by up to a number that is not that of the streams."""
        return (
            self.sockets <= other.sockets
            and self.tasks <= other.tasks
            and self.threads <= other.threads + POOLED_THREADS
        )


def held(server: Server, kind: Kind) -> Held:
    folder = f"/proc/{get(server, '/pid')}"
    sockets = 0
    for name in os.listdir(f"{folder}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets += os.readlink(f"{folder}/fd/{name}").startswith("socket:")
    threads = len(os.listdir(f"{folder}/task"))
    return Held(sockets, int(get(server, "/tasks")) if kind.tasks else 0, threads)


def test_streams_that_come_and_go_leave_no_socket_thread_or_task(
    server: Server, kind: Kind, channel: str
) -> None:
    def come_and_go() -> Held:
        with following(server, channel, STREAMS):
            publish(server, channel, "hi")
            most = held(server, kind)
        wait_for_streams(server, 0)  # each is noticed: there is no keep-alive for a minute
        return most

    come_and_go()
    before = held(server, kind)
    assert come_and_go().sockets > STREAMS  # else it would be another process that is counted
    wait_for(
        lambda: held(server, kind).no_more_than(before),
        what=lambda: f"{held(server, kind)} is no more than {before}",
    )


def test_a_silent_stream_is_kept_alive_with_a_position_that_moves(
    stopped_server: Server, channel: str
) -> None:
    with following(stopped_server, channel, 1) as [client]:
        (elsewhere,) = publish(stopped_server, f"{channel}/elsewhere", "for others")
        wait_for(lambda: client.last_event_id == elsewhere, what=lambda: f"{client} moves on")
        assert not client.messages
        assert {notice.event for notice in client.notices} == {"penstock.position"}


def test_sigterm_ends_streams_within_a_second_and_their_clients_miss_nothing(
    stopped_server: Server, kind: Kind, channel: str
) -> None:
    server = stopped_server

    def measure() -> float:
        with following(server, channel, CLIENTS) as clients:
            positions = publish(server, channel, "1", "2")
            for client in clients:
                client.wait_for_messages(2)
            assert server.process is not None
            began = time.monotonic()
            server.process.terminate()
            for client in clients:
                client.wait_closed()
            took_s = time.monotonic() - began
            server.process.wait(30)
            server.kill()
            if kind.told:
                assert not any(client.errors for client in clients), "none is cut"
                pauses = [client.retry_ms or 0 for client in clients]
                assert all(1_000 <= pause <= 10_000 for pause in pauses)
            positions += publish_beside(server, channel, "3", "4")
            server.start()
            for client in clients:
                client.reconnect()
            positions += publish(server, channel, "5")
            for client in clients:
                client.wait_for_messages(5)
                assert ids(client) == positions
        return took_s

    assert_at_once(measure, DRAINED_WITHIN_S, hops=20)


def test_a_reload_under_load_loses_nothing(stopped_server: Server, kind: Kind, channel: str) -> None:
    server = stopped_server
    with following(server, channel, CLIENTS, auto_reconnect=True) as clients:
        positions = publish_during(server, channel, lambda: reload(server, kind))
        for client in clients:
            client.wait_for_messages(len(positions))
            assert ids(client) == positions
            assert set(client.statuses) == {200}


def reload(server: Server, kind: Kind) -> None:
    if kind.reloads is not None:
        reload_by_hangup(server)
    else:
        server.terminate()
        server.start()


def publish_during(server: Server, channel: str, act: Callable[[], object]) -> list[str]:
    """Publish all the time from before ``act`` until after it, as another process of the machine does."""
    positions: list[str] = []
    done = threading.Event()

    def go_on() -> None:
        with Penstock(f"sqlite:///{server.folder}/penstock.db") as bus:
            while not done.is_set():
                positions.append(str(bus.publish(channel, "hi")))

    publisher = threading.Thread(target=go_on)
    publisher.start()
    try:
        wait_for(lambda: len(positions) >= 10, what="it publishes")
        act()
        before = len(positions)
        wait_for(lambda: len(positions) >= before + 10, what="it still publishes")
    finally:
        done.set()
        publisher.join()
    return positions


def test_an_ended_channel_is_told_then_closed_then_204(server: Server, channel: str) -> None:
    with following(server, channel, 1, auto_reconnect=True) as [client]:
        post(server, "/end", channel=channel)
        client.wait_closed()
        assert client.notices[-1].event == "penstock.end"
        assert client.statuses == [200, 204]
        assert not client.errors
