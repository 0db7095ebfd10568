"""PushWorker when it stops, for whichever reason: streams end at once, and their clients miss nothing."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import Penstock
from tests.flask.ask import events_url, get
from tests.support.client import SSEClient
from tests.support.ports import is_free
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"
STREAMS = 8
WITHIN_S = 20.0  # the promise is one second, on a machine that has nothing else to do
PATIENT = ["--graceful-timeout=60"]


def follow(server: Server, count: int = STREAMS, *, back: bool = False) -> list[SSEClient]:
    clients = [SSEClient(server.url + events_url("chat"), auto_reconnect=back) for _ in range(count)]
    for client in clients:
        client.wait_open()
    return clients


def assert_told_to_come_back(clients: Sequence[SSEClient]) -> None:
    """None was cut: each was given its last bytes and a time of its own."""
    for client in clients:
        client.wait_closed(WITHIN_S)
    assert not any(client.errors for client in clients)
    pauses = [client.retry_ms or 0 for client in clients]
    assert all(1_000 <= pause <= 10_000 for pause in pauses)
    assert len(set(pauses)) > 1


@contextmanager
def publishing(folder: Path) -> Iterator[list[str]]:
    """Publish all the time, as another process of the machine does; the positions, as they come."""
    positions: list[str] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(0.01):
            positions.append(str(bus.publish("chat", "hi")))

    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        publisher = threading.Thread(target=go_on)
        publisher.start()
        try:
            yield positions
        finally:
            done.set()
            publisher.join()


def assert_nothing_was_missed(clients: Sequence[SSEClient], positions: list[str]) -> None:
    for client in clients:
        client.wait_for_messages(len(positions))
        assert [message.id for message in client.messages] == positions
        assert set(client.statuses) == {200}
        assert not client.errors
        client.close()


def workers(server: Server) -> set[int]:
    """Those that run, of all arbiters."""
    booted = re.findall(r"Booting worker with pid: (\d+)", server.log)
    return {pid for pid in map(int, booted) if is_running(pid)}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_streams_end_at_once_and_a_slow_request_is_finished(tmp_path: Path) -> None:
    app = "tests.doors.wsgi_frameworks:app"
    with Server.push_worker(app, tmp_path, options=PATIENT) as server:
        clients = follow(server)
        answers: list[str] = []
        slow = threading.Thread(target=lambda: answers.append(get(server, "/slow")))
        slow.start()
        wait_for((tmp_path / "slow").exists, what="the slow view is reached")
        assert server.process is not None
        server.process.terminate()
        assert_told_to_come_back(clients)
        assert server.process.poll() is None
        assert not answers
        (tmp_path / "slow").unlink()
        slow.join()
        assert answers == ["finished"]
        assert server.process.wait(WITHIN_S) == 0


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_streams_are_told_also_when_the_server_hurries(tmp_path: Path, number: signal.Signals) -> None:
    with Server.push_worker(APP, tmp_path, options=PATIENT) as server:
        clients = follow(server)
        os.kill(server.pid, number)
        assert_told_to_come_back(clients)
        assert server.process is not None
        assert server.process.wait(WITHIN_S) == 0


def test_streams_end_when_the_arbiter_was_killed(tmp_path: Path) -> None:
    with Server.push_worker(APP, tmp_path, options=PATIENT) as server:
        clients = follow(server)
        os.kill(server.pid, signal.SIGKILL)
        assert_told_to_come_back(clients)
        wait_for(lambda: is_free(server.port), what="the worker is gone too")


def test_recycled_workers_lose_nothing(tmp_path: Path) -> None:
    options = [*PATIENT, "--preload", "--max-requests=8", "--max-requests-jitter=4"]
    with Server.push_worker(APP, tmp_path, workers=2, options=options) as server:
        clients = follow(server, 4, back=True)
        pids: set[str] = set()

        def recycled() -> bool:
            pids.add(get(server, "/pid"))
            return len(pids) >= 6

        with publishing(tmp_path) as positions:
            wait_for(recycled, what=lambda: f"six workers answered: {pids}")
            wait_for(lambda: all(len(client.statuses) > 1 for client in clients), what="all came back")
        assert_nothing_was_missed(clients, positions)


def test_reload_and_upgrade_under_load_lose_nothing(tmp_path: Path) -> None:
    server = Server.push_worker(APP, tmp_path, workers=2, options=[*PATIENT, "--pid=pid"])
    # ``python -m gunicorn`` cannot upgrade itself: its own folder would come first in ``sys.path``.
    server.command[:3] = [str(Path(sys.executable).with_name("gunicorn"))]
    with server:
        clients = follow(server, back=True)

        def all_of_new_workers(act: Callable[[], object]) -> None:
            old = workers(server)
            times = [len(client.statuses) for client in clients]
            act()
            wait_for(lambda: not old & workers(server), what="the old workers are gone")
            wait_for(
                lambda: all(len(c.statuses) > n for c, n in zip(clients, times, strict=True)),
                what="all came back",
            )

        def upgrade() -> None:
            first = server.pid
            os.kill(first, signal.SIGUSR2)
            wait_for(lambda: len(workers(server)) == 4, what="there are twice as many workers")
            os.kill(first, signal.SIGQUIT)
            assert server.process is not None
            server.process.wait()

        with publishing(tmp_path) as positions:
            all_of_new_workers(lambda: os.kill(server.pid, signal.SIGHUP))
            all_of_new_workers(upgrade)
        assert_nothing_was_missed(clients, positions)
