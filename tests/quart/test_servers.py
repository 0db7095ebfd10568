"""A Quart app on real servers: what its own manner of sending, and its development server, make different.

What holds for every framework on every server is in ``tests/faces``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.core.parser import Parser
from tests.doors.servers import ALL, TASKS
from tests.flask.ask import answer, events_url, get, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.ports import free_port
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import wait_for

APP = "tests.apps.quart_app:app"
QUIET = {"PENSTOCK_KEEP_ALIVE": "60"}
COMPLAINTS = (
    "without completing response",
    "Traceback",
    "RuntimeWarning",
    "Task was destroyed",
    "never awaited",
)
STREAMS = 10
STUCK = 3
SMALL = 4096  # bytes that the client's end of a connection holds
MUCH = 100_000 * "x"

TOUCHED = """
import os
from quart import Quart
from penstock.quart import Penstock

app = Quart(__name__)
sse = Penstock(app)
born = os.urandom(8).hex()

@app.get("/events")
async def events():
    return sse.stream("chat")

@app.get("/born")
async def tell():
    return born
"""


def quart_run(app: str, folder: Path, *options: str) -> Server:
    """Quart's development server."""
    port = free_port()
    command = [sys.executable, "-m", "quart", "--app", app, "run", "--port", str(port), *options]
    return Server(command, folder, port=port, env=QUIET)


def fill(folder: Path) -> None:
    """Store more than a client takes at once."""
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        for _ in range(4):
            bus.publish_many([Event("chat", 100_000 * "x") for _ in range(100)])


def publish_beside(folder: Path, data: str) -> str:
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        return str(bus.publish("chat", data))


# Streams that come and go


@pytest.mark.parametrize("door", TASKS)
def test_clients_that_leave_while_events_are_sent_leave_nothing_and_no_complaint(
    tmp_path: Path, door: str
) -> None:
    with TASKS[door].make(tmp_path, QUIET, APP) as server:
        get(server, "/tasks")
        before = int(get(server, "/tasks"))
        for _ in range(3):
            with ExitStack() as stack:
                url = server.url + events_url("chat")
                clients = [stack.enter_context(SSEClient(url)).wait_open() for _ in range(STREAMS)]
                publish(server, "chat", "to all")
                for client in clients:
                    client.wait_for_messages(1)
                for client in clients:
                    client.close()
                    publish(server, "chat", "to those who are left")
        wait_for_streams(server, 0)  # long before a keep-alive
        wait_for(lambda: int(get(server, "/tasks")) <= before, what="no task is left")
        server.terminate()
        for complaint in COMPLAINTS:
            assert complaint not in server.log


def test_a_stream_that_was_handed_over_is_no_task(tmp_path: Path) -> None:
    with ALL["uvicorn-push"].make(tmp_path, QUIET, APP) as server, ExitStack() as stack:
        get(server, "/tasks")
        before = int(get(server, "/tasks"))
        url = server.url + events_url("chat", cookie="yes")
        clients = [stack.enter_context(SSEClient(url)).wait_open() for _ in range(STREAMS)]
        wait_for(lambda: int(get(server, "/tasks")) <= before, what="none holds a task")
        (position,) = publish(server, "chat", "hi")
        for client in clients:
            assert client.next().id == position
            assert client.headers["Set-Cookie"].startswith("seen=yes")
            assert not [name for name in client.headers if name.lower().startswith("penstock")]
        wait_for_streams(server, STREAMS)


@pytest.mark.parametrize("door", TASKS)
def test_a_client_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path, door: str) -> None:
    with TASKS[door].make(tmp_path, QUIET, APP) as server, ExitStack() as stack:
        for _ in range(STUCK):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            client.connect(("127.0.0.1", server.port))
            client.sendall(f"GET {events_url('chat')} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_for_streams(server, STUCK)

        def are_stuck() -> bool:  # each time, whoever is not has several turns of the loop to catch up
            publish(server, "chat", MUCH)
            return all(stats(server)["lagging"] == STUCK for _ in range(10))

        wait_for(are_stuck, what="they take no more")
        server.terminate()


# A log that fails when the head of the response is out


@pytest.mark.parametrize("door", ["uvicorn", "uvicorn-push", "hypercorn"])
def test_a_replay_that_fails_midway_is_ended_by_a_notice_and_goes_on_later(tmp_path: Path, door: str) -> None:
    fill(tmp_path)
    with ALL[door].make(tmp_path, QUIET, APP) as server:
        path = events_url("chat", after="earliest")
        with answer(server, path) as response:
            begun = read_block(response) + "\n" + read_block(response) + "\n"
            with something_else_in_its_place(tmp_path):
                body = response.read()  # an error if the last chunk is missing
        parser = Parser()
        _, *had, notice = parser.feed(begun.encode() + body)
        assert notice.event == "penstock.error"
        assert json.loads(notice.data) == {"message": "the stream failed; it will be tried again"}
        assert 0 < len(had) < 400
        with SSEClient(server.url + path, parser.last_event_id) as client:
            client.wait_for_messages(400 - len(had))
            seqs = [int(message.id.partition(":")[2]) for message in [*had, *client.messages]]
            assert seqs == list(range(1, 401))
        for complaint in COMPLAINTS:
            assert complaint not in server.log


# The development server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_development_server_stops_with_a_stream_open(tmp_path: Path, number: signal.Signals) -> None:
    with (
        quart_run(APP, tmp_path) as server,
        SSEClient(server.url + events_url("chat")) as client,
    ):
        client.wait_open()
        assert server.process is not None
        os.kill(server.pid, number)
        client.wait_closed()
        assert not client.errors, "it is told"
        assert 1_000 <= (client.retry_ms or 0) <= 10_000
        server.process.wait(30)
        for complaint in COMPLAINTS:
            assert complaint not in server.log


def test_the_development_server_reloads_with_a_stream_open(tmp_path: Path) -> None:
    source = tmp_path / "touched.py"
    source.write_text(TOUCHED)
    with (
        quart_run("touched:app", tmp_path, "--reload") as server,
        SSEClient(f"{server.url}/events", auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/born")
        positions = [publish_beside(tmp_path, "before")]
        client.wait_for_messages(1)
        later = source.stat().st_mtime + 10
        os.utime(source, (later, later))

        def answered_by_a_new_one() -> bool:
            try:
                with urllib.request.urlopen(f"{server.url}/born", timeout=5) as response:
                    return bool(response.read().decode() != old)
            except OSError:  # it is between the two
                return False

        wait_for(answered_by_a_new_one, what="it reloads, and waits for no stream")
        positions.append(publish_beside(tmp_path, "after"))
        client.wait_for_messages(2)
        assert [message.id for message in client.messages] == positions
        server.terminate()
