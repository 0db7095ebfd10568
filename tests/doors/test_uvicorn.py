"""uvicorn with streams that leave it: each fact on each loop, each parser, and the oldest release.

The servers have 0, 1 and 2 middlewares of each kind around the app, and are shared by all tests here.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import psutil
import pytest

from tests.flask.ask import (
    answer,
    events_url,
    get,
    post,
    publish,
    read_block,
    stats,
    wait_for_streams,
)
from tests.support.client import SSEClient
from tests.support.oldest import need_oldest_uvicorn, oldest_uvicorn, with_oldest_uvicorn
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

APP = "tests.doors.uvicorn_app:app"
STREAMS = 12
MUCH = 16 * 1024 * 1024  # bytes, more than the kernel takes for a client that reads nothing
HELLO = b"\x81\x05hello"  # a text frame (RFC 6455, section 5.7)


class Kind(NamedTuple):
    http: str
    loop: str
    middlewares: str
    oldest: bool = False


KINDS = {
    "asyncio": Kind("PushProtocol", "asyncio", ""),
    "asyncio-h11": Kind("H11PushProtocol", "asyncio", "gzip base"),
    "uvloop": Kind("PushProtocol", "uvloop", "base gzip base"),
    "uvloop-h11": Kind("H11PushProtocol", "uvloop", "gzip"),
    "oldest": Kind("PushProtocol", "uvloop", "base gzip base"),
    "oldest-h11": Kind("H11PushProtocol", "asyncio", "base"),
}
need_uvloop = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not made for this Python; there is no cure"
)


class Servers:
    """The running servers by kind, each started by the first test that asks."""

    def __init__(self, factory: pytest.TempPathFactory, stack: ExitStack) -> None:
        self._factory = factory
        self._stack = stack
        self._running: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        if name not in self._running:
            kind = KINDS[name]
            env = {"MIDDLEWARES": kind.middlewares}
            oldest = name.startswith("oldest")
            if oldest:
                env |= with_oldest_uvicorn()
            http = f"penstock.doors.uvicorn:{kind.http}"
            options = [f"--loop={kind.loop}", "--ws=wsproto"]
            server = Server.uvicorn(APP, self._factory.mktemp(name), env=env, http=http, options=options)
            self._running[name] = self._stack.enter_context(server)
            assert (get(server, "/release") == oldest_uvicorn()) == oldest
        return self._running[name]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory, stack)


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [
        *([need_uvloop] if KINDS[name].loop == "uvloop" else []),
        *([need_oldest_uvicorn] if name.startswith("oldest") else []),
    ]


@pytest.fixture(params=[pytest.param(name, marks=_marks(name)) for name in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, servers: Servers) -> Iterator[Server]:
    """A server without streams, about whose errors no test is silent."""
    server = servers[kind]
    wait_for_streams(server, 0)
    seen = len(server.log)
    yield server
    said = server.log[seen:]
    assert "Traceback" not in said.replace("this middleware is broken", ""), said
    assert "ERROR" not in said, said


@pytest.fixture
def channel() -> str:
    return f"test/{uuid.uuid4().hex[:12]}"


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)


def request(path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: a.test", *headers, "", ""]).encode()


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    had = bytearray()
    while wanted not in had[-1_000:]:
        more = connection.recv(65_536)
        assert more, f"it ended with {had[-1_000:]!r}"
        had += more
    return bytes(had)


def read_all(connection: socket.socket) -> bytes:
    had = b""
    while more := connection.recv(65_536):
        had += more
    return had


def inside(server: Server, query: str = "") -> dict[str, int]:
    """What there is in the process of requests, that for this included."""
    found: dict[str, int] = json.loads(get(server, f"/inside{query}"))
    return found


def wait_for_no_more_inside(server: Server, had: dict[str, int], query: str = "") -> None:
    wait_for(
        lambda: all(had[kind] >= count for kind, count in inside(server, query).items()),
        what=lambda: f"there is no more than {had}: {inside(server, query)}",
    )


def cycles(server: Server) -> int:
    found = inside(server, "?collect")  # of requests that uvicorn never answers, a cyclic reference stays
    return sum(count for kind, count in found.items() if kind.endswith("RequestResponseCycle"))


def test_a_stream_goes_through_all_middlewares_and_then_its_own_way(
    server: Server, kind: str, channel: str
) -> None:
    with answer(server, events_url(channel), headers={"Accept-Encoding": "gzip"}) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers.get_all("connection") == ["close"]
        assert response.headers["date"] is not None
        assert ("x-base" in response.headers) == ("base" in KINDS[kind].middlewares)
        assert {"content-length", "content-encoding", "penstock-handed-over"}.isdisjoint(
            name.lower() for name in response.headers
        )
        assert "event: penstock.position" in read_block(response)
        (position,) = publish(server, channel, "hi")
        assert read_block(response) == f"id: {position}\ndata: hi\n"
        wait_for_streams(server, 1)
        post(server, "/end", channel=channel)
        assert "event: penstock.end" in read_block(response)
        assert response.read() == b""  # an error if the last chunk were missing
    with answer(server, events_url(channel), headers={"Last-Event-ID": position}) as response:
        assert "event: penstock.position" in read_block(response)
        assert "event: penstock.end" in read_block(response)
    assert f'"GET {events_url(channel)} HTTP/1.1" 200' in server.log


def test_a_request_for_a_stream_leaves_nothing_in_memory(server: Server, channel: str) -> None:
    with answer(server, events_url(channel)) as first, ExitStack() as stack:
        read_block(first)
        before = inside(server), inside(server, "?collect")
        for _ in range(STREAMS):
            read_block(stack.enter_context(answer(server, events_url(channel))))
        wait_for_no_more_inside(server, before[0])
        wait_for_no_more_inside(server, before[1], "?collect")
        wait_for_streams(server, STREAMS + 1)


def test_a_connection_that_was_kept_alive_becomes_a_stream(server: Server, channel: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    with closing(connection):
        for path in ("/ping?first", "/ping?second", "/nowhere"):
            connection.request("GET", path)
            connection.getresponse().read()
        mine = connection.sock.getsockname()
        connection.request("GET", events_url(channel))
        assert connection.sock.getsockname() == mine
        with connection.getresponse() as response:
            read_block(response)
            (position,) = publish(server, channel, "hi")
            assert read_block(response) == f"id: {position}\ndata: hi\n"
    who = f"{mine[0]}:{mine[1]} - "
    lines = [line.partition(who)[2] for line in server.log.splitlines() if who in line]
    assert lines == [
        '"GET /ping?first HTTP/1.1" 200 OK',
        '"GET /ping?second HTTP/1.1" 200 OK',
        '"GET /nowhere HTTP/1.1" 404 Not Found',
        f'"GET {events_url(channel)} HTTP/1.1" 200 OK',
    ]


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(server: Server, channel: str) -> None:
    with connect(server) as connection:
        connection.sendall(request(events_url(channel), version="1.0"))
        head, _, begin = read_until(connection, b"penstock.position\ndata: \n\n").partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert b"connection: close" in head.lower()
        assert begin.startswith(b"retry: 3000\nid: ")
        (position,) = publish(server, channel, "hi")
        assert read_until(connection, b"hi\n\n") == f"id: {position}\ndata: hi\n\n".encode()
        wait_for(lambda: cycles(server) == 1, what="the request is over")
        post(server, "/end", channel=channel)
        assert read_all(connection).endswith(b"\n\n")


def test_requests_in_one_go_are_answered_in_turn_up_to_the_stream(server: Server, channel: str) -> None:
    with connect(server) as connection:
        connection.sendall(request("/ping") + request("/ping") + request("/ping", "Connection: close"))
        assert read_all(connection).count(b"pong") == 3
    with connect(server) as connection:
        connection.sendall(request("/ping") + request(events_url(channel)) + request("/ping"))
        had = read_until(connection, b"penstock.position\n")
        connection.sendall(b"\0garbage\r\n\r\n" + request("/ping"))
        publish(server, channel, "hi")
        had += read_until(connection, b"data: hi\n")
        post(server, "/end", channel=channel)
        had += read_all(connection)
        assert had.count(b"pong") == 1
        assert had.count(b"HTTP/1.1") == 2
        assert had.endswith(b"\r\n0\r\n\r\n")


def test_a_stream_begins_after_all_that_was_written_before(server: Server, channel: str) -> None:
    with connect(server) as connection:
        connection.sendall(request(f"/big?{MUCH}") + request(events_url(channel)))
        wait_for(lambda: "GET /big?" in server.log, what="it is answered")
        had = read_until(connection, b"penstock.position\n")
        assert had.count(b"x") >= MUCH
        publish(server, channel, "hi")
        read_until(connection, b"data: hi\n")


def test_other_requests_are_answered_as_before(server: Server, channel: str) -> None:
    form = f"channel={channel}&data=hi".encode()
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        with connect(server) as connection:
            head = ["Expect: 100-continue", f"Content-Length: {len(form)}", "Connection: close"]
            connection.sendall(request("/publish", *head).replace(b"GET", b"POST", 1))
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
            connection.sendall(form)
            assert b" 200 OK\r\n" in read_all(connection)
        client.wait_for_messages(1)
        with answer(server, events_url(channel), method="HEAD") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        with connect(server) as connection:
            head = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            connection.sendall(request("/", *head, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
            assert read_until(connection, HELLO).startswith(b"HTTP/1.1 101 ")
        wait_for_streams(server, 1)


def test_clients_that_leave_early_leave_no_descriptor(server: Server, channel: str) -> None:
    process = psutil.Process(server.pid)

    def come_and_go(bytes_read: int, *, reset: bool) -> None:
        with connect(server) as connection:
            connection.sendall(request(events_url(channel)))
            if bytes_read:
                connection.recv(bytes_read)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def leave(times: int) -> None:
        for turn in range(times):
            come_and_go(turn % 3, reset=turn % 2 == 0)

    leave(6)  # threads that read open a file for each
    wait_for_streams(server, 0)
    before = process.num_fds()
    leave(60)
    wait_for_streams(server, 0)
    wait_for(lambda: process.num_fds() <= before + 20, what=lambda: f"{process.num_fds()} from {before}")


def test_what_a_middleware_says_of_the_empty_body_is_not_said_of_the_stream(
    server: Server, channel: str
) -> None:
    with answer(server, events_url(channel, through="lies")) as response:
        assert {"content-encoding", "content-length"}.isdisjoint(map(str.lower, response.headers))
        assert response.headers.get_all("connection") == ["close"]
        read_block(response)
        publish(server, channel, "hi")
        assert "data: hi" in read_block(response)


def test_a_middleware_with_another_answer_has_the_last_word(server: Server, channel: str) -> None:
    with answer(server, events_url(channel, through="forbids")) as response:
        assert response.status == 403
        assert "penstock-handed-over" not in response.headers
        assert response.read() == b""
    assert stats(server)["streams"] == 0


def test_the_first_bytes_do_not_wait_for_what_the_app_does_after_them(server: Server, channel: str) -> None:
    with answer(server, events_url(channel, through="late")) as response:
        assert "penstock.position" in read_block(response)
        publish(server, channel, "hi")
        assert "data: hi" in read_block(response)
    get(server, "/go-on")


def test_without_a_free_descriptor_a_client_is_sent_away_in_good_order(server: Server, channel: str) -> None:
    with answer(server, events_url(channel, through="fills up")) as response:
        assert response.status == 200
        assert response.read() == b""
    assert "could not be handed over" in server.log
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()  # the next one finds all as it was
