"""A Starlette app with middlewares around its streams, and a log that fails, on real servers.

What holds for every framework on every server is in ``tests/faces``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.core.parser import Parser
from tests.doors.servers import ALL, Servers
from tests.flask.ask import answer, events_url, get, publish, read_block, wait_for_streams
from tests.support.client import SSEClient
from tests.support.oldest import need_oldest, with_oldest
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import wait_for

DOORS = ["uvicorn", "uvicorn-push", "gunicorn-asgi"]  # the last tells version 2.4 of the specification
GZIP = {"Accept-Encoding": "gzip, deflate, br, zstd"}
ENV = {"PENSTOCK_KEEP_ALIVE": "60", "MIDDLEWARES": "base gzip base"}
STREAMS = 5
COMPLAINTS = ("without completing response", "Traceback", "RuntimeWarning", "Task was destroyed")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    running = Servers({door: ALL[door].make for door in DOORS}, ENV, tmp_path_factory.mktemp)
    yield running
    running.close()


@pytest.fixture(params=DOORS)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers[request.param]


def open_streams(server: Server, stack: ExitStack, **more: str) -> list[SSEClient]:
    url = server.url + events_url("chat", **more)
    clients = [stack.enter_context(SSEClient(url, headers=GZIP)) for _ in range(STREAMS)]
    for client in clients:
        client.wait_open()
    return clients


def test_middlewares_neither_hold_nor_pack_a_stream_and_its_client_may_leave(server: Server) -> None:
    wait_for_streams(server, 0)
    get(server, "/tasks")
    before = int(get(server, "/tasks"))
    with ExitStack() as stack:
        clients = open_streams(server, stack, cookie="yes")
        (position,) = publish(server, "chat", "hi")
        for client in clients:
            assert client.next().id == position
            assert client.headers["X-Base"] == "was here"
            assert client.headers["Set-Cookie"].startswith("seen=yes")
            assert client.headers["Content-Encoding"] is None
            assert client.headers["Content-Length"] is None
    wait_for_streams(server, 0)  # long before a keep-alive
    wait_for(lambda: int(get(server, "/tasks")) <= before, what="no task is left")


def test_a_server_that_stops_has_nothing_to_complain_of(server: Server) -> None:
    with ExitStack() as stack:
        clients = open_streams(server, stack)
        server.terminate()
        for client in clients:
            client.wait_closed()
            assert not client.errors, "it is not cut"
            assert 1_000 <= (client.retry_ms or 0) <= 10_000
    for complaint in COMPLAINTS:
        assert complaint not in server.log


@need_oldest("starlette")
@pytest.mark.parametrize("door", ["uvicorn", "uvicorn-push"])
def test_a_gzip_middleware_that_does_not_know_streams_leaves_them_alone(tmp_path: Path, door: str) -> None:
    env = {**ENV, **with_oldest("starlette")}
    with (
        ALL[door].make(tmp_path, env) as server,
        SSEClient(server.url + events_url("chat"), headers=GZIP) as client,
    ):
        client.wait_open()
        (position,) = publish(server, "chat", "hi")
        assert client.next().id == position
        assert client.headers["Content-Encoding"] == ("identity" if door == "uvicorn" else None)


# A log that fails when the head of the response is out


@pytest.mark.parametrize("door", ["uvicorn", "uvicorn-push"])
def test_a_replay_that_fails_midway_is_ended_by_a_notice_and_goes_on_later(tmp_path: Path, door: str) -> None:
    with Penstock(f"sqlite:///{tmp_path}/penstock.db") as bus:
        for _ in range(4):
            bus.publish_many([Event("chat", 100_000 * "x") for _ in range(100)])
    with ALL[door].make(tmp_path, {**ENV, "MIDDLEWARES": "base base"}) as server:
        path = events_url("chat", after="earliest")
        with answer(server, path) as response:
            begun = read_block(response) + "\n" + read_block(response) + "\n"
            with something_else_in_its_place(tmp_path):
                body = response.read()  # an error if the last chunk is missing
        parser = Parser()
        _, *had, notice = parser.feed(begun.encode() + body)
        assert notice.event == "penstock.error"
        assert json.loads(notice.data) == {"message": "the stream failed; it will be tried again"}
        assert 700 <= (parser.retry_ms or 0) <= 1_300
        assert 0 < len(had) < 400
        with SSEClient(server.url + path, parser.last_event_id) as client:
            client.wait_for_messages(400 - len(had))
            seqs = [int(message.id.partition(":")[2]) for message in [*had, *client.messages]]
            assert seqs == list(range(1, 401))
        assert server.log.count("a stream of chat was ended") == 1
        for complaint in COMPLAINTS:
            assert complaint not in server.log


@pytest.mark.parametrize("door", ["uvicorn", "uvicorn-push"])
def test_while_the_log_is_away_clients_get_a_notice_and_are_told_to_wait_longer(
    tmp_path: Path, door: str
) -> None:
    def told_ms(server: Server, had: str) -> int:
        with answer(server, events_url("chat"), headers={"Last-Event-ID": had}) as response:
            assert response.status == 200
            parser = Parser()
            (notice,) = parser.feed(response.read())
            assert (notice.event, notice.id) == ("penstock.error", had)
            return parser.retry_ms or 0

    with ALL[door].make(tmp_path, ENV) as server:
        had, missed = publish(server, "chat", "had", "missed")
        with something_else_in_its_place(tmp_path):
            assert told_ms(server, had) <= 1_300
            wait_for(lambda: told_ms(server, had) > 1_300 * 2, what="the pause has doubled")
        with SSEClient(server.url + events_url("chat"), had, auto_reconnect=True) as client:
            client.wait_for_messages(1)
            assert client.last_event_id == missed
