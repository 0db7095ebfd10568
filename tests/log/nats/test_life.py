"""From publish to subscribe, across restarts, forks and patched threads; and what is left over: nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.testing.storage import everything
from tests.flask.ask import publish
from tests.log.nats.children import Child
from tests.log.nats.conftest import Logs
from tests.support.client import SSEClient
from tests.support.nats import NatsServer, need_nats
from tests.support.processes import Server
from tests.support.wait import wait_for

pytestmark = need_nats


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


def test_a_subscriber_gets_all_that_another_process_publishes_across_a_restart(apart: NatsServer) -> None:
    url = f"{apart.url}/penstock"
    with Child("publish", url, 40) as child, Penstock(url) as bus:
        records = bus.subscribe("check", after="earliest")
        seqs = []
        for number in range(40):
            child.tell()
            if number in (10, 20, 30):
                apart.kill()
                apart.start()
            seqs.append(child.line())
            assert next(records).data == str(number)
        assert seqs == list(range(1, 41))
        child.finish()


def test_parent_and_child_of_a_fork_do_not_share_connections(url: str, logs: Logs) -> None:
    with Child("fork", url) as child:
        assert child.finish() == ["over"]
    assert [record.data for record in everything(logs())] == ["parent 1", "child", "parent 2"]


@pytest.mark.parametrize("worker", ["gevent", "penstock.doors.gevent.PushWorker"])
def test_streams_and_publishers_work_where_gevent_has_patched_all(
    apart: NatsServer, tmp_path: Path, worker: str
) -> None:
    env = {"PENSTOCK_URL": f"nats://localhost:{apart.port}/app"}
    options = [f"--worker-class={worker}", "--worker-connections=20"]
    with (
        Server.gunicorn("tests.flask.app:app", tmp_path, threads=1, options=options, env=env) as server,
        SSEClient(f"{server.url}/events?channel=chat") as client,
        Penstock(f"{apart.url}/app") as bus,
    ):
        client.wait_open()
        [first] = publish(server, "chat", "1")
        second = bus.publish("chat", "2")
        apart.kill()
        apart.start()
        [third] = publish(server, "chat", "3")
        found = client.wait_for_messages(3)
        assert [message.data for message in found] == ["1", "2", "3"]
        assert [message.id for message in found] == [first, str(second), third]


def test_a_follower_asks_the_server_only_now_and_then(url: str, logs: Logs) -> None:
    follower, writer = logs(), logs()
    writer.append([Event("check", "1")])
    assert len(follower.read(0, 10)) == 1
    follower.wait(1)
    asked = follower._connection._asked
    for _ in range(3):
        follower.wait(1)
    assert follower._connection._asked == asked
    heard = []

    def follow() -> None:
        after = 1
        while after < 50:
            for record in follower.read(after, 100):
                heard.append(record.seq)
                after = record.seq
            follower.wait(after)

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(49):
        writer.append([Event("check", str(number))])
    thread.join(30)
    assert heard == list(range(2, 51))


def test_nothing_is_left_over(url: str) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for _ in range(5):
        with Penstock(url) as bus:
            bus.publish("check", "1")
            next(bus.subscribe("check", after="earliest"))
    wait_for(lambda: open_files() <= before, what="all is closed")


def test_many_logs_share_a_stream_without_starving_each_other(url: str, logs: Logs) -> None:
    over = threading.Event()
    counts = [0] * 4

    def write(number: int) -> None:
        log = logs()
        while not over.is_set():
            key = f"{number} {counts[number]}" if number < 2 else None
            event = Event("check", str(number), key=key)
            [seq] = log.append([event]).seqs
            if key is not None:
                assert list(log.append([event]).seqs) == [seq]
            counts[number] += 1

    with ExitStack() as stack:
        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        wait_for(lambda: min(counts) >= 20, 60, what=lambda: f"each stores 20 events: {counts}")
    assert everything(logs())[-1].seq == sum(counts)
