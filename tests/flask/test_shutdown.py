"""A server that stops or is stopped: it does not wait for streams, and their clients miss nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.core.parser import Parser
from tests.flask.ask import answer, events_url, get, post, publish, read_block, stats, wait_for_streams
from tests.flask.conftest import APP, KINDS
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

GRACE = ["--graceful-timeout=60"]
AT_ONCE_S = 4.0  # half a second to notice, and two for connections that are kept for a next request
WELL_UNDER_S = 20.0  # where a busy machine gets no second try

TOUCHED = """
import os
from flask import Flask
from penstock.flask import Penstock

app = Flask(__name__)
sse = Penstock(app)

@app.get("/events")
def events():
    return sse.stream("chat")

@app.get("/pid")
def pid():
    return str(os.getpid())
"""


def publish_beside(folder: Path, *data: str) -> list[str]:
    """Publish while the server is away, as another process of the machine does."""
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        return [str(bus.publish("chat", each)) for each in data]


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gunicorn_stops_at_once_with_streams_open(tmp_path: Path, number: signal.Signals) -> None:
    with Server.gunicorn(APP, tmp_path, options=GRACE) as server:
        for _ in range(5):  # the machine may be busy at one of them
            clients = [SSEClient(server.url + events_url("chat")) for _ in range(8)]
            for client in clients:
                client.wait_open()
            (position,) = publish(server, "chat", "hi")
            for client in clients:
                client.wait_for_messages(1)
            assert server.process is not None
            began = time.monotonic()
            os.kill(server.pid, number)
            server.process.wait(DEADLINE_S)
            took = time.monotonic() - began
            for client in clients:
                client.wait_closed()
            if took < AT_ONCE_S:
                break
            server.restart()
        assert took < AT_ONCE_S
        assert not any(client.errors for client in clients)  # none was cut
        assert {client.last_event_id for client in clients} == {position}
        pauses = [client.retry_ms or 0 for client in clients]
        assert all(1_000 <= pause <= 10_000 for pause in pauses)
        assert len(set(pauses)) > 1  # they do not come back together


def test_a_view_in_a_thread_of_its_own_knows_its_server_too(tmp_path: Path) -> None:
    """As an ``async def`` view does, by the extra ``flask[async]``."""
    with (
        Server.gunicorn(APP, tmp_path, options=GRACE) as server,
        SSEClient(f"{server.url}/events-of-a-thread?channel=chat") as client,
    ):
        client.wait_open()
        assert "at most 12 at once" in server.log
        server.terminate(WELL_UNDER_S)
        client.wait_closed()
        assert not client.errors


def test_the_farewell_is_a_time_a_position_and_the_closing_bytes(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path, options=GRACE) as server:
        with answer(server, events_url("chat")) as response:
            read_block(response)
            server.terminate()
            rest = response.read().decode()  # an error if the last chunk is missing
        epoch = publish_beside(tmp_path, "later")[0].partition(":")[0]
        farewell = f"retry: \\d+\nid: {epoch}:0\nevent: penstock\\.position\ndata: \n\n"
        assert re.fullmatch(farewell, rest), rest


def test_a_client_of_a_server_that_was_stopped_and_started_misses_nothing(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, options=GRACE) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        positions = publish(server, "chat", "1", "2")
        server.terminate(WELL_UNDER_S)
        positions += publish_beside(tmp_path, "3", "4")
        server.start()
        positions += publish(server, "chat", "5")
        client.wait_for_messages(5)
        assert ids(client) == positions


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/penstock.db") as bus:
        for _ in range(4):
            bus.publish_many([Event("chat", 100_000 * "x") for _ in range(100)])
    with Server.gunicorn(APP, tmp_path, options=GRACE) as server:
        path = events_url("chat", after="earliest")
        with socket.create_connection(("127.0.0.1", server.port)) as stuck:
            stuck.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            wait_for_streams(server, 1)
            server.terminate(WELL_UNDER_S)
            with stuck.makefile("rb") as file:
                while file.readline().strip():
                    pass  # the headers
                parser = Parser()
                had = [message.id for message in parser.feed(file.read())]
        server.start()
        with SSEClient(server.url + path, parser.last_event_id) as client:
            client.wait_for_messages(400 - (len(had) - 1))
            assert [int(each.partition(":")[2]) for each in had[1:] + ids(client)] == list(range(1, 401))


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_a_server_that_was_killed_misses_nothing(tmp_path: Path, kind: str) -> None:
    with (
        KINDS[kind](APP, tmp_path, {}) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        positions = publish(server, "chat", "1")
        for _ in range(2):
            server.kill()
            positions += publish_beside(tmp_path, "away")
            server.start()
            positions += publish(server, "chat", "back")
        client.wait_for_messages(5)
        assert ids(client) == positions


def publish_during(server: Server, act: Callable[[], object]) -> list[str]:
    """Publish all the time from before ``act`` until after it."""
    positions: list[str] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            positions.extend(publish(server, "chat", "hi"))

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


def test_gunicorn_reloads_at_hup_and_nothing_is_lost(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, options=GRACE) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/pid")

        def reload() -> None:
            os.kill(server.pid, signal.SIGHUP)
            wait_for(lambda: get(server, "/pid") != old, what="a new worker answers")
            wait_for(lambda: not is_running(int(old)), WELL_UNDER_S, "the old worker is gone")

        positions = publish_during(server, reload)
        client.wait_for_messages(len(positions))
        assert ids(client) == positions
        assert not client.errors
        assert set(client.statuses) == {200}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_is_recycled_ends_its_streams(tmp_path: Path) -> None:
    options = [*GRACE, "--max-requests=30"]
    with (
        Server.gunicorn(APP, tmp_path, options=options) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/pid")
        positions: list[str] = []

        def another_worker() -> bool:
            positions.extend(publish(server, "chat", "hi"))
            return get(server, "/pid") != old

        wait_for(another_worker, what="a new worker answers")
        positions += publish(server, "chat", "the last")
        client.wait_for_messages(len(positions))
        assert ids(client) == positions
        assert not client.errors


def test_drain_from_a_view_ends_all_streams_and_publishing_goes_on(tmp_path: Path) -> None:
    with Server.waitress(APP, tmp_path) as server:
        for _ in range(5):  # the machine may be busy at one of them
            clients = [SSEClient(server.url + events_url("chat")).wait_open() for _ in range(3)]
            if in_time := post(server, "/drain") == "True":
                break
            server.restart()
        assert in_time, "all were over within its second"
        for client in clients:
            client.wait_closed()
            assert not client.errors
            assert client.retry_ms is not None
            assert 1_000 <= client.retry_ms <= 10_000
        assert stats(server)["streams"] == 0
        assert stats(server)["draining"] is True
        positions = publish(server, "chat", "stored")
        with SSEClient(server.url + events_url("chat"), clients[0].last_event_id) as client:
            client.wait_closed()  # sent away at once
            assert client.statuses == [200]
            assert client.last_event_id in (clients[0].last_event_id, *positions)


@pytest.mark.parametrize("debug", ["--no-debug", "--debug"])
def test_the_development_server_reloads_with_a_stream_open(tmp_path: Path, debug: str) -> None:
    source = tmp_path / "touched.py"
    source.write_text(TOUCHED)
    server = Server.werkzeug("touched:app", tmp_path, reload=True)
    server.command.append(debug)
    with server, SSEClient(f"{server.url}/events", auto_reconnect=True) as client:
        client.wait_open()
        old = get(server, "/pid")
        positions = publish_beside(tmp_path, "before")
        client.wait_for_messages(1)
        source.write_text(TOUCHED + "# changed\n")

        def answered_by_a_new_one() -> bool:
            try:
                return get(server, "/pid") != old
            except OSError:  # it is between the two
                return False

        wait_for(answered_by_a_new_one, what="it reloads, and waits for no stream")
        wait_for(lambda: not is_running(int(old)), what="the old one is gone")
        positions += publish_beside(tmp_path, "after")
        client.wait_for_messages(2)
        assert ids(client) == positions
