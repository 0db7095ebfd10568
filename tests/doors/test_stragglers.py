"""A client that leaves the end of its stream in the server's buffers does not hold the server up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.doors.servers import PUSH, QUIET, TASKS
from tests.faces.cells import ASGI_FACES
from tests.flask.ask import answer, events_url, publish, stats, wait_for_streams
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

QUEUES = Path("/proc/net/tcp")
LITTLE = "x" * 16_000  # less than a server keeps before it lets its app wait
SMALL = 4096
STOPS_WITHIN_S = 8.0  # of itself; without a cure it waits for ever, or until its own time-out of 20 s

pytestmark = pytest.mark.skipif(
    not QUEUES.exists(), reason=f"these tests read {QUEUES}, which Linux alone has"
)


@pytest.fixture
def stuck(server: Server) -> Iterator[socket.socket]:
    """A client that reads nothing, for which the kernel has taken all that it takes."""
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET {events_url('chat')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_for_streams(server, 1)
        before = -1
        while (now := queued(server, client)) > before or now == 0:
            before = now
            publish(server, "chat", LITTLE)
            wait_for(lambda: has_settled(server), what="it is sent, or waits")
        yield client


@pytest.fixture(params=[*TASKS, "uvicorn with django"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    door, _, face = request.param.partition(" with ")
    with TASKS[door].make(tmp_path, QUIET, ASGI_FACES[face or "starlette"]) as running:
        yield running


@pytest.mark.parametrize("http", ["auto", PUSH])
def test_the_first_stream_may_come_when_uvicorn_is_about_to_stop(tmp_path: Path, http: str) -> None:
    with Server.uvicorn("tests.doors.stopping_app:app", tmp_path, http=http) as server:
        with answer(server, "/events") as response:
            assert b"retry: " in response.read()
        assert server.process is not None
        server.process.wait(DEADLINE_S)


def queued(server: Server, client: socket.socket) -> int:
    """Bytes that the kernel has for a client."""
    ours, theirs = server.port, client.getsockname()[1]
    for line in QUEUES.read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)) == (ours, theirs):
            return int(queues.partition(":")[0], 16)
    raise AssertionError("there is no such connection")


def has_settled(server: Server) -> bool:
    told = stats(server)
    return bool(told["tail_lag"] == 0)


def test_the_server_stops_all_the_same(server: Server, stuck: socket.socket) -> None:
    assert server.process is not None
    began = time.monotonic()
    server.process.terminate()
    server.process.wait(DEADLINE_S)
    assert time.monotonic() - began < STOPS_WITHIN_S
