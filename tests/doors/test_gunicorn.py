"""Streams on gunicorn's PushWorker: they hold no thread, and gunicorn is what it is for everything else."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flask.ask import answer, events_url, get, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.doors.wsgi_frameworks:app"
FRAMEWORKS = Path(__file__).with_name("wsgi_frameworks.py")  # it configures Django: not to be imported here
THREADS = 4
CONNECTIONS = 6  # gunicorn's limit; the streams of these tests are many more
KEEP_ALIVE_S = 0.5
TIMEOUT_S = 5
MANY = 50
FEW = 2  # streams for one client address
LEAVERS = 8  # clients that do not wait for their streams
INSIDE = ["-c", "python:tests.doors.inside"]
ACCESS_LOG = ["--access-logfile=-", "--access-logformat=ACCESS %(m)s %(U)s?%(q)s %(s)s %(b)s %(D)s"]
OTHERWISE = {  # middlewares, and what they make of a stream
    "failing": (500, b"it failed"),
    "raising": (500, b"Internal Server Error"),
    "refusing": (503, b""),
    "unmarking": (200, b""),
}
NEVER_SENT = "Penstock-Handed-Over"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = [*INSIDE, *ACCESS_LOG, f"--worker-connections={CONNECTIONS}", f"--timeout={TIMEOUT_S}"]
    options += ["--keep-alive=20", "--reuse-port"]
    env = {"PENSTOCK_KEEP_ALIVE": str(KEEP_ALIVE_S)}
    folder = tmp_path_factory.mktemp("push")
    with Server.push_worker(APP, folder, env=env, threads=THREADS, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives one client few places, and knows its clients by what a proxy tells."""
    folder = tmp_path_factory.mktemp("few")
    options = [*INSIDE, "--proxy-protocol", f"--bind=unix:{folder}/socket"]
    env = {"PENSTOCK_MAX_STREAMS_PER_CLIENT": str(FEW)}
    with Server.push_worker(APP, folder, env=env, threads=THREADS, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def held(server: Server) -> Iterator[SSEClient]:
    """A stream that is open from the first test that asks for it."""
    with SSEClient(server.url + events_url("held")) as client:
        yield client.wait_open()


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"test/{uuid.uuid4().hex[:12]}"


def inside(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(server, "/inside"))
    return found


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{inside(server)['pid']}/fd"))


def wait_for_connections(server: Server, count: int) -> None:
    """Wait until gunicorn counts so many connections, that of the question aside."""
    wait_for(
        lambda: inside(server)["connections"] - 1 == count,
        what=lambda: f"gunicorn counts {count} connections: {inside(server)}",
    )


@contextmanager
def sent(server: Server, *requests: str) -> Iterator[socket.socket]:
    """A connection on which these bytes are sent at once, and nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall("".join(requests).encode())
        yield connection


def request(path: str, version: str = "1.1") -> str:
    return f"GET {path} HTTP/{version}\r\nHost: test\r\n\r\n"


def read_until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        more = connection.recv(65_536)
        assert more, f"closed before {end!r}: {found!r}"
        found += more
    return found


def event_of(client: SSEClient, server: Server, channel: str) -> None:
    """The stream is live: what is published arrives."""
    (position,) = publish(server, channel, "hi")
    assert [message.id for message in client.wait_for_messages(1)] == [position]


def test_streams_hold_no_thread_no_connection_of_gunicorns_and_one_descriptor(
    server: Server, channel: str
) -> None:
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        threads = inside(server)["threads"]
        wait_for_connections(server, 0)
        files = descriptors(server)
        clients = [SSEClient(server.url + events_url(channel)) for _ in range(MANY)]
        for each in [client, *clients]:
            each.wait_open()
        assert MANY > CONNECTIONS > THREADS
        wait_for_connections(server, 0)  # neither theirs, nor fewer than there are
        assert get(server, "/ping") == "pong"
        for each in [client, *clients]:
            event_of(each, server, channel) if each is client else each.wait_for_messages(1)
        assert inside(server)["threads"] <= threads + THREADS + 2  # gunicorn's and the readers of the log
        held = descriptors(server) - files
        assert MANY - 2 <= held < 1.5 * MANY  # each one; a short request or two were counted before
        for each in clients:
            each.close()
        wait_for(
            lambda: descriptors(server) - files < MANY / 2,
            what=lambda: f"{MANY} descriptors are closed: {held} more, then {descriptors(server) - files}",
        )
        wait_for_connections(server, 0)


@pytest.mark.parametrize("path", ["/events", "/django/events", "/bare/events"])
def test_a_stream_leaves_in_each_framework(server: Server, channel: str, path: str) -> None:
    accepts = {"Accept-Encoding": "gzip"}
    url = f"{server.url}{path}?channel={channel}"
    clients = [SSEClient(url, headers=accepts) for _ in range(2 * THREADS)]
    for client in clients:
        client.wait_open()
    event_of(clients[0], server, channel)
    for client in clients:
        client.wait_for_messages(1)
        assert client.headers["Content-Encoding"] is None
        assert client.headers["Content-Length"] is None
        assert client.headers["Connection"] == "close"
        assert NEVER_SENT not in client.headers
        client.close()


@pytest.mark.parametrize("path", ["/events-of-a-session", "/django/events"])
def test_what_the_session_sets_arrives(server: Server, channel: str, path: str) -> None:
    with SSEClient(f"{server.url}{path}?channel={channel}") as client:
        client.wait_open()
        assert "session" in client.headers["Set-Cookie"]


@pytest.mark.parametrize("through", ["generator", "own_head", "buffering", "zipping"])
def test_a_stream_passes_a_middleware(server: Server, channel: str, through: str) -> None:
    url = server.url + events_url(channel, through=through)
    clients = [SSEClient(url) for _ in range(2 * THREADS)]
    for client in clients:
        client.wait_open()
    event_of(clients[0], server, channel)
    for client in clients:
        client.wait_for_messages(1)
        assert client.headers["X-Added"] == ("was here" if through == "own_head" else None)
        assert client.headers["Content-Encoding"] is None
        assert client.headers["Content-Length"] is None
        client.close()


@pytest.mark.parametrize("through", OTHERWISE)
def test_a_place_is_given_back_when_a_middleware_sends_another_answer(
    few: Server, channel: str, through: str
) -> None:
    for _ in range(2 * FEW):
        with answer(few, events_url(channel, through=through)) as response:
            status, body = OTHERWISE[through]
            assert response.status == status
            assert body in response.read()
            assert NEVER_SENT not in response.headers
    has_a_place(few, channel)
    if through == "unmarking":
        told = [line for line in few.log.splitlines() if "a middleware sent a stream's head" in line]
        assert len(told) == 1


def has_a_place(server: Server, channel: str) -> None:
    """All places of this client are free again, soon."""

    def finds_one() -> bool:
        with SSEClient(server.url + events_url(channel)) as client:
            wait_for(lambda: client.statuses, what="an answer")
            return client.statuses == [200]

    wait_for(finds_one, what="there is a place")
    wait_for_streams(server, 0)


def test_one_client_has_so_many_places_and_no_more(few: Server, channel: str) -> None:
    clients = [SSEClient(few.url + events_url(channel)) for _ in range(FEW)]
    for client in clients:
        client.wait_open()
    with answer(few, events_url(channel)) as response:
        assert response.status == 503
        assert response.headers["Retry-After"]
    for client in clients:
        client.close()
    has_a_place(few, channel)


def test_a_client_is_who_the_proxy_protocol_says(few: Server, channel: str) -> None:
    def connect(address: str) -> str:
        return f"PROXY TCP4 {address} 10.0.0.1 5555 80\r\n" + request(events_url(channel))

    with sent(few, connect("203.0.113.7")) as one, sent(few, connect("203.0.113.7")) as two:
        for each in (one, two):
            assert read_until(each, b"\r\n").startswith(b"HTTP/1.1 200")
        wait_for_streams(few, 2)
        with sent(few, connect("203.0.113.7")) as third, sent(few, connect("203.0.113.8")) as another:
            assert read_until(third, b"\r\n").startswith(b"HTTP/1.1 503")
            assert read_until(another, b"\r\n").startswith(b"HTTP/1.1 200")
    wait_for_streams(few, 0)


@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
def test_a_client_that_left_before_its_stream_began_leaves_nothing(
    few: Server, channel: str, abruptly: bool
) -> None:
    held = few.folder / "view"

    def leave() -> int:
        for _ in range(LEAVERS):
            with sent(few, request(f"/events-once-told?channel={channel}")) as connection:
                wait_for(held.exists, what="the view is reached")
                if abruptly:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            held.unlink()
        has_a_place(few, channel)
        wait_for_connections(few, 0)
        return descriptors(few)

    before = leave()
    after = leave()
    wait_for(lambda: descriptors(few) < before + LEAVERS / 2, what=f"they are closed: {before}, {after}")


def test_a_client_of_http_1_0_gets_no_chunks(server: Server, channel: str) -> None:
    with answer(server, events_url(channel), version="1.0") as response:
        assert response.headers["Transfer-Encoding"] is None
        assert read_block(response).startswith("retry: 3000\n")
        (position,) = publish(server, channel, "hi")
        while not (block := read_block(response)).endswith("data: hi\n"):
            assert "penstock.position" in block
        assert block == f"id: {position}\ndata: hi\n"


def test_a_request_that_was_sent_behind_is_not_answered_and_harms_nothing(
    server: Server, channel: str
) -> None:
    behind = f"/ping?{channel}"
    with sent(server, request(events_url(channel)), request(behind)) as connection:
        found = read_until(connection, b"penstock.position")
        publish(server, channel, "hi")
        found += read_until(connection, b"data: hi\n\n")
        assert found.count(b"HTTP/1.1 ") == 1
    assert behind not in server.log


def test_a_connection_that_was_kept_alive_becomes_a_stream(server: Server, channel: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(2):
        connection.request("GET", "/ping")
        assert connection.getresponse().read() == b"pong"
    connection.request("GET", events_url(channel))
    with connection.getresponse() as response:
        assert read_block(response).startswith("retry: 3000\n")
        wait_for_connections(server, 0)
    connection.close()


def test_a_file_is_sent_by_the_kernel_and_its_connection_kept(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/file")
    whole = connection.getresponse().read().decode()
    assert whole == FRAMEWORKS.read_text("utf-8")
    connection.request("GET", "/inside")
    assert json.loads(connection.getresponse().read())["files_read"] == 0
    connection.close()


def test_access_log_and_hooks_see_a_stream_once_when_it_begins(server: Server, channel: str) -> None:
    path = events_url(channel)
    with SSEClient(server.url + path) as client:
        client.wait_open()
        line = re.compile(rf"^ACCESS GET {re.escape(path)} 200 0 (\d+)$", re.MULTILINE)
        (taken_us,) = wait_for(lambda: line.findall(server.log), what="a line in the access log")
        assert 0 < int(taken_us) < 30_000_000
        assert server.log.count(f"HOOK before {path}\n") == 1
        assert server.log.count(f"HOOK after {path} 200 OK\n") == 1
        publish(server, channel, "hi")
        client.wait_for_messages(1)  # so that it counts
        open_before = stats(server)["streams"]
    wait_for_streams(server, open_before - 1)
    assert server.log.count(path) == 3  # nor is there more at its end


def test_the_timeout_of_workers_is_none_of_streams(server: Server, held: SSEClient) -> None:
    """A sync worker is killed in mid-stream at its ``--timeout``, or within the second after it."""
    worker = inside(server)["pid"]
    wait_for(lambda: len(held.notices) * KEEP_ALIVE_S > TIMEOUT_S + 1.5, what="the timeout is over")
    assert (held.statuses, held.errors) == ([200], [])
    assert inside(server)["pid"] == worker
