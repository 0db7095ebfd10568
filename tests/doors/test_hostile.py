"""Clients that are dead, slow or hostile harm nobody but themselves, on real servers and connections.

What an engine does with a single such connection, ``tests/engine/test_push.py`` shows.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from penstock.engine.push import STRAY_BYTES
from tests.doors.servers import QUIET, Env, Make, Servers
from tests.flask.ask import events_url, get, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.needs import need_networks
from tests.support.network import Network
from tests.support.processes import Server
from tests.support.times import assert_at_once
from tests.support.wait import DEADLINE_S, wait_for

APPS = "tests.apps.asgi:app", "tests.apps.basic:app"
IMPATIENT = "tests.apps.impatient:asgi", "tests.apps.impatient:wsgi"

PLACES, PLACES_OF_ONE = 8, 3
LIMITS = QUIET | {
    "PENSTOCK_MAX_STREAMS": str(PLACES),
    "PENSTOCK_MAX_STREAMS_PER_CLIENT": str(PLACES_OF_ONE),
}
FLOOD = 100  # requests of one who should know better
DESCRIPTORS = 200  # that a server has, of which streams may have all but 64
USABLE = DESCRIPTORS - 64

KEEP_ALIVE_S = 3.0
PAUSED_S = 8.0  # of those that vanish, none may be there for as long
SLOW = {"PENSTOCK_KEEP_ALIVE": str(KEEP_ALIVE_S), "PAUSED_S": str(PAUSED_S)}
SMALL = 4096  # what the client's end of a connection holds
MUCH = 100_000 * "x"  # more than both ends of it hold
EVENTS = 20  # of so much
STUCK = 5
BIT = 500  # bytes; a client that reads so much at a time is behind for longer than a test takes

STRANGER, OTHERS = "127.0.0.1", ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


def makes(asgi: str, wsgi: str) -> dict[str, Make]:
    """Servers that listen to other machines too."""

    def uvicorn(http: str) -> Make:
        options = ["--host=0.0.0.0", "--no-access-log"]
        return lambda folder, env: Server.uvicorn(asgi, folder, env=env, http=http, options=options)

    def push_worker(folder: Path, env: Env) -> Server:
        server = Server.push_worker(wsgi, folder, env=env)
        server.command = [part.replace("127.0.0.1", "0.0.0.0") for part in server.command]
        return server

    return {
        "uvicorn-push": uvicorn("penstock.doors.uvicorn:PushProtocol"),
        "gunicorn-push": push_worker,
        "uvicorn": uvicorn("auto"),
    }


def with_few_descriptors(make: Make) -> Make:
    def made(folder: Path, env: Env) -> Server:
        server = make(folder, env)
        server.command = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"', *server.command]
        return server

    return made


NAMES = list(makes(*APPS))
PUSHES = NAMES[:2]  # whose connections are handed over


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def running(factory: pytest.TempPathFactory, makes: Mapping[str, Make], env: Env) -> Iterator[Servers]:
    servers = Servers(makes, env, factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    yield from running(tmp_path_factory, makes(*APPS), LIMITS)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    yield from running(tmp_path_factory, makes(*APPS), LIMITS | {"PENSTOCK_OVERFLOW": "refuse"})


@pytest.fixture(scope="module")
def scarce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    few = {name: with_few_descriptors(make) for name, make in makes(*APPS).items()}
    yield from running(tmp_path_factory, few, QUIET)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """One of each kind; they wait at the same time."""
    for servers in running(tmp_path_factory, makes(*IMPATIENT), SLOW):
        yield [servers[name] for name in PUSHES]


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Servers whose streams hold threads or tasks."""

    def anywhere(make: Callable[..., Server], app: str) -> Make:
        def made(folder: Path, env: Env) -> Server:
            server = make(app, folder, env=env)
            server.command = [part.replace("127.0.0.1", "0.0.0.0") for part in server.command]
            return server

        return made

    asgi, wsgi = IMPATIENT
    makes = {
        "waitress": anywhere(Server.waitress, wsgi),
        "gunicorn": anywhere(Server.gunicorn, wsgi),
        "uvicorn": lambda folder, env: Server.uvicorn(
            asgi, folder, env=env, http="auto", options=["--host=0.0.0.0"]
        ),
        "hypercorn": anywhere(Server.hypercorn, asgi),
        "granian": anywhere(Server.granian, asgi),
        "daphne": anywhere(Server.daphne, asgi),
    }
    for servers in running(tmp_path_factory, makes, SLOW):
        yield [servers[name] for name in makes]


def ask(
    stack: ExitStack, server: Server, path: str, client: str = STRANGER, last_event_id: str = ""
) -> http.client.HTTPResponse:
    """The answer to a client of this address, whose connection stays open."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=DEADLINE_S, source_address=(client, 0)
    )
    stack.callback(connection.close)
    connection.request("GET", path, headers={"Last-Event-ID": last_event_id} if last_event_id else {})
    return stack.enter_context(connection.getresponse())


def open_stream(connection: socket.socket, channel: str, behind: bytes = b"") -> None:
    """Ask for a stream, and read its first block."""
    connection.sendall(f"GET {events_url(channel)} HTTP/1.1\r\nHost: test\r\n\r\n".encode() + behind)
    read_until(connection, b"penstock.position")


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    had = bytearray()
    while wanted not in had:
        more = connection.recv(SMALL)
        assert more, f"it ended with {had[-1_000:]!r}"
        had += more
    return bytes(had)


def connect(stack: ExitStack, server: Server, receive_bytes: int | None = None) -> socket.socket:
    connection = stack.enter_context(socket.socket())
    connection.settimeout(DEADLINE_S)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", server.port))
    return connection


def assert_told_once(server: Server, words: str, *more: str) -> None:
    lines = [line for line in server.log.splitlines() if words in line]
    assert len(lines) == 1, lines
    for each in more:
        assert each in lines[0]


# Who opens many streams


def assert_refused(response: http.client.HTTPResponse) -> None:
    assert response.status == 503
    assert response.headers["Retry-After"] == "5"
    assert b"Try again later" in response.read()


def test_a_client_with_its_share_of_streams_is_refused_and_all_others_are_served(
    limited: Servers, name: str
) -> None:
    server = limited[name]
    wait_for_streams(server, 0)
    with ExitStack() as stack:
        held = [ask(stack, server, events_url("chat")) for _ in range(PLACES_OF_ONE)]
        for _ in range(FLOOD):
            with ExitStack() as brief:
                assert_refused(ask(brief, server, events_url("chat")))
        held.append(ask(stack, server, events_url("chat"), OTHERS[0]))
        assert get(server, "/ping") == "pong"
        for each in held:
            assert "penstock.position" in read_block(each)
        (position,) = publish(server, "chat", "hi")
        for each in held:
            assert read_block(each) == f"id: {position}\ndata: hi\n"
        wait_for_streams(server, len(held))
        assert_told_once(
            server, f"{STRANGER} has {PLACES_OF_ONE} streams open, and gets no more", "max_streams_per_client"
        )
    wait_for_streams(server, 0)


def take_all(stack: ExitStack, server: Server) -> None:
    wait_for_streams(server, 0)
    for number in range(PLACES):
        read_block(ask(stack, server, events_url("chat"), OTHERS[number // PLACES_OF_ONE]))
    wait_for_streams(server, PLACES)


def test_past_the_limit_of_the_process_who_comes_gets_what_it_missed_and_a_time_to_come_back(
    limited: Servers, name: str
) -> None:
    server = limited[name]
    with ExitStack() as stack:
        take_all(stack, server)
        polls = stats(server)["polls"]
        had, missed = publish(server, "chat", "had", "missed")
        for _ in range(FLOOD):
            with ExitStack() as brief:
                response = ask(brief, server, events_url("chat"), last_event_id=had)
                assert response.status == 200
                found = re.search(rf"id: {missed}\ndata: missed\n\nretry: (\d+)\n", response.read().decode())
                assert found
                assert 2_000 <= int(found[1]) <= 4_000
        assert get(server, "/ping") == "pong"
        after = stats(server)
        assert (after["streams"], after["polls"]) == (PLACES, polls + FLOOD)
        assert_told_once(
            server,
            f"all {PLACES} places for streams are taken",
            "'poll'",
            "max_streams (PENSTOCK_MAX_STREAMS)",
        )
    wait_for_streams(server, 0)


def test_past_the_limit_of_the_process_who_comes_is_refused_where_that_is_wished(
    refusing: Servers, name: str
) -> None:
    server = refusing[name]
    with ExitStack() as stack:
        take_all(stack, server)
        for _ in range(FLOOD):
            with ExitStack() as brief:
                assert_refused(ask(brief, server, events_url("chat")))
        assert get(server, "/ping") == "pong"
        assert_told_once(server, f"all {PLACES} places for streams are taken", "'refuse'")
    wait_for_streams(server, 0)


def test_no_more_streams_are_opened_before_the_descriptors_run_out(scarce: Servers, name: str) -> None:
    server = scarce[name]
    with ExitStack() as stack:
        many = [ask(stack, server, events_url("chat")) for _ in range(USABLE + 10)]
        assert {response.status for response in many} == {200}
        polls = stats(server)["polls"]
        assert 10 <= polls < USABLE / 2
        wait_for_streams(server, len(many) - polls)
        assert len(os.listdir(f"/proc/{get(server, '/pid')}/fd")) < DESCRIPTORS
        (position,) = publish(server, "chat", "hi")
        assert "penstock.position" in read_block(many[0])
        assert read_block(many[0]) == f"id: {position}\ndata: hi\n"
        if name in PUSHES:  # it is seen how many there are, others than streams too
            words = r"\d+ descriptors are in use, and the last few are kept for other requests"
            (told,) = re.findall(rf".*{words}.*", server.log)
            assert "ulimit -n" in told
        else:
            assert_told_once(server, f"all {USABLE} places for streams are taken", "limit of open files")
    assert "Too many open files" not in server.log
    wait_for_streams(server, 0)


# Who sends what nobody asked for


@pytest.mark.parametrize("name", PUSHES)
def test_a_client_that_goes_on_to_send_is_cut_off_and_others_go_on(limited: Servers, name: str) -> None:
    server = limited[name]
    wait_for_streams(server, 0)
    with ExitStack() as stack:
        other = stack.enter_context(SSEClient(server.url + events_url("chat"))).wait_open()
        sender = connect(stack, server)
        open_stream(sender, "chat")
        wait_for_streams(server, 2)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sender.sendall(1_000 * STRAY_BYTES * b"x")
        wait_for_streams(server, 1)
        publish(server, "chat", "hi")
        other.wait_for_messages(1)
        assert not other.errors


def test_requests_behind_that_for_a_stream_are_not_run_while_it_lasts(limited: Servers, name: str) -> None:
    server = limited[name]
    wait_for_streams(server, 0)
    form = "channel=chat&data=smuggled"
    post = f"POST /publish HTTP/1.1\r\nHost: test\r\nContent-Length: {len(form)}\r\n"
    post += f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
    behind = (STRAY_BYTES // 2 // len(post)) * post.encode()
    with ExitStack() as stack:
        other = stack.enter_context(SSEClient(server.url + events_url("chat"))).wait_open()
        sender = connect(stack, server)
        open_stream(sender, "chat", behind)
        sender.sendall(behind)
        wait_for_streams(server, 2)
        publish(server, "chat", "1", "2")
        had = read_until(sender, b"data: 2\n")
        assert [message.data for message in other.wait_for_messages(2)] == ["1", "2"]
        assert b"smuggled" not in had
    # A server that does not read on for so long notices with the next event that its client left.
    wait_for(lambda: publish(server, "chat", "3") and not stats(server)["streams"], what="both are gone")


# Who takes nothing


def test_clients_that_never_read_delay_nobody_and_are_cut_off_in_the_end(patient: list[Server]) -> None:
    """They are waited for: who has paused may come back. But not for ever."""
    with ExitStack() as stack:
        began, prompt, slow = {}, {}, {}
        for server in patient:
            wait_for_streams(server, 0)
            for _ in range(STUCK):
                open_stream(connect(stack, server, SMALL), "chat")
            slow[server] = connect(stack, server)
            open_stream(slow[server], "chat")
            prompt[server] = stack.enter_context(SSEClient(server.url + events_url("chat"))).wait_open()
            began[server] = time.monotonic()
            positions = publish(server, "chat", *(EVENTS * [MUCH]))
            messages = prompt[server].wait_for_messages(EVENTS)
            assert [message.id for message in messages] == positions
            wait_for(partial(has_lagging, server, STUCK + 1), what="all others have fallen behind")
            assert_at_once(partial(delay_s, server, prompt[server]), 0.05, hops=6)

        def count(server: Server) -> int:
            """How many streams there are. Meanwhile the slow ones read a bit."""
            for each in slow.values():
                assert each.recv(BIT), "who reads slowly was cut off"
            return int(stats(server)["streams"])

        for server in patient:
            wait_for(lambda s=server: count(s) < STUCK + 2, what="one is cut off")  # type: ignore[misc]
            assert time.monotonic() - began[server] > PAUSED_S, "who had only paused was cut off"
            wait_for(lambda s=server: count(s) == 2, what="all are cut off that never read")  # type: ignore[misc]
        for server in patient:
            (last,) = publish(server, "chat", "the last")
            wait_for(partial(has, prompt[server], last), what="others go on")
            read_until(slow[server], f"id: {last}\ndata: the last\n".encode())


def has_lagging(server: Server, count: int) -> bool:
    return bool(stats(server)["lagging"] == count)


def has(client: SSEClient, position: str) -> bool:
    return client.last_event_id == position


def delay_s(server: Server, client: SSEClient) -> float:
    """From before something is published until a client has it: the median."""
    taken = []
    for _ in range(11):
        had = len(client.messages)
        began = time.monotonic()
        publish(server, "chat", "hi")
        client.wait_for_messages(had + 1)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


# Who vanishes


@need_networks
def test_clients_that_vanish_without_a_word_are_gone_within_two_keep_alives(
    patient: list[Server], holding: list[Server]
) -> None:
    """With nothing to take, with something, with more than it took, and one that once was slow."""

    def measure() -> float:
        with Network() as network, ExitStack() as stack:
            for server in holding:
                wait_for_streams(server, 0)
                for channel in ("silent", "busy"):
                    open_stream(stack.enter_context(network.connect(server.port)), channel)
                wait_for_streams(server, 2)
            for server in patient:
                wait_for_streams(server, 0)
                opened = {}
                for channel, held in (("silent", None), ("busy", None), ("chat", SMALL), ("once", SMALL)):
                    opened[channel] = network.connect(server.port, receive_bytes=held)
                    stack.enter_context(opened[channel])
                    open_stream(opened[channel], channel)
                for channel in ("chat", "once"):
                    publish(server, channel, MUCH)
                wait_for(partial(has_lagging, server, 2), what="two have fallen behind")
                read_until(opened["once"], b"xx\n\n")
                wait_for(partial(has_lagging, server, 1), what="one has caught up")
                wait_for_streams(server, len(opened))
            network.cut()
            began = time.monotonic()
            for server in patient + holding:
                publish(server, "busy", "hi")
            for server in patient + holding:
                wait_for_streams(server, 0)
            return time.monotonic() - began

    assert_at_once(measure, 2 * KEEP_ALIVE_S, hops=10)
