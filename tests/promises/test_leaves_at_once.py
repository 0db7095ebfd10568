"""Promise 5: what is published leaves at once. No hop buffers it, and nobody looks only now and then.

Times are by the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from penstock import Penstock
from tests.support.client import SSEClient
from tests.support.processes import Server, environment
from tests.support.times import assert_at_once

APP = "tests.apps.basic:app"
EVENTS = 100
PAUSE_S = 0.005  # before each event, so that whoever follows has gone to sleep
MEDIAN_S = 0.005
IDLE_S = 5.0
IDLE_SHARE = 0.005  # of a core

each_server = pytest.mark.parametrize("server", [Server.werkzeug, Server.waitress, Server.gunicorn])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@contextlib.contextmanager
def follower(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.promises.follower", url, "chat"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def median_latency(bus: Penstock, arrival: Callable[[], float]) -> float:
    """From the call of ``publish`` to the arrival, one event at a time."""
    found = []
    for number in range(EVENTS):
        time.sleep(PAUSE_S)
        began = time.monotonic()
        bus.publish("chat", str(number))
        found.append(arrival() - began)
    cuts = statistics.quantiles(found, n=100)
    print(f"median {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms")
    return cuts[49]


@pytest.mark.parametrize("url", ["memory:", "sqlite:///log.db"])
def test_it_arrives_at_once_in_one_process(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Penstock(url) as bus, bus.subscribe("chat") as records:

        def arrival() -> float:
            next(records)
            return time.monotonic()

        assert_at_once(partial(median_latency, bus, arrival), MEDIAN_S, hops=2)


def test_it_arrives_at_once_in_another_process(url: str, tmp_path: Path) -> None:
    with Penstock(url) as bus, follower(url, tmp_path) as process:
        lines = process.stdout
        assert lines is not None

        def arrival() -> float:
            return float(lines.readline().split()[1])

        assert_at_once(partial(median_latency, bus, arrival), MEDIAN_S, hops=4)


@each_server
def test_it_arrives_at_once_at_a_client_of_another_process(
    server: Callable[..., Server], url: str, tmp_path: Path
) -> None:
    with (
        Penstock(url) as bus,
        server(APP, tmp_path, env={"PENSTOCK_URL": url}) as running,
        SSEClient(f"{running.url}/events?channel=chat") as client,
    ):
        client.wait_open()

        def arrival() -> float:
            client.next()
            return time.monotonic()

        assert_at_once(partial(median_latency, bus, arrival), MEDIAN_S, hops=5)


@each_server
def test_the_first_bytes_leave_before_there_is_any_event(
    server: Callable[..., Server], url: str, tmp_path: Path
) -> None:
    env = {"PENSTOCK_URL": url, "PENSTOCK_KEEP_ALIVE": "3600"}
    with server(APP, tmp_path, env=env) as running:
        for _ in range(2):  # the first stream of all also starts the engine
            with SSEClient(f"{running.url}/events?channel=chat") as client:
                client.wait_open()
            assert [message.event for message in client.received] == ["penstock.position"]
            assert client.retry_ms is not None


@each_server
def test_each_event_leaves_by_itself(server: Callable[..., Server], url: str, tmp_path: Path) -> None:
    """None waits for the next, or for a buffer to be full, however small it is."""
    with (
        Penstock(url) as bus,
        server(APP, tmp_path, env={"PENSTOCK_URL": url}) as running,
        SSEClient(f"{running.url}/events?channel=chat") as client,
    ):
        client.wait_open()
        for number in range(50):
            bus.publish("chat", "x")
            assert len(client.wait_for_messages(number + 1)) == number + 1


@pytest.mark.slow
def test_who_follows_costs_nothing_while_nothing_happens(url: str, tmp_path: Path) -> None:
    with (
        Penstock(url) as bus,
        Server.waitress(APP, tmp_path, env={"PENSTOCK_URL": url}) as server,
        SSEClient(f"{server.url}/events?channel=chat") as client,
        follower(url, tmp_path) as process,
    ):
        client.wait_open()
        bus.publish("chat", "all are awake")
        client.next()
        assert process.stdout is not None
        process.stdout.readline()

        idle = {"server": server.pid, "follower": process.pid}

        def dearest() -> float:
            """The share of a core that the one of them takes that takes more."""
            before = {name: cpu_seconds(pid) for name, pid in idle.items()}
            time.sleep(IDLE_S)
            used = {name: cpu_seconds(pid) - before[name] for name, pid in idle.items()}
            print(", ".join(f"{name} {100 * cpu / IDLE_S:.2f} % of a core" for name, cpu in used.items()))
            return max(used.values()) / IDLE_S

        assert any(dearest() < IDLE_SHARE for _ in range(4)), "a busy machine makes it dearer now and then"


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
