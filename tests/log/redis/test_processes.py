"""A log in Redis under ``Penstock``: in several processes, across forks, and under gevent."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import Penstock
from tests.flask.ask import events_url, get, publish
from tests.log.children import Child as _Child
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.redis import DURABLE, RedisServer, need_redis
from tests.support.wait import wait_for

pytestmark = need_redis


class Child(_Child):
    """A process that does one deed of ``tests.log.redis.deeds``."""

    module = "tests.log.redis.deeds"


def test_what_is_published_here_is_followed_there_across_a_restart_of_the_server() -> None:
    with RedisServer(*DURABLE) as server:
        url = server.url()
        with Child("subscribe", url) as child, Penstock(url, publish_timeout=60) as bus:
            assert child.line() == "subscribed"
            epoch = bus.publish("check", "1").epoch
            assert child.line() == [1, "1"]
            server.restart()
            assert bus.publish("check", "2").epoch == epoch
            assert child.line() == [2, "2"]
            server.kill()
            server.start()
            for number in range(3, 100):
                bus.publish("check", str(number))
            assert [child.line() for _ in range(3, 100)] == [[n, str(n)] for n in range(3, 100)]


def test_a_fork_harms_neither_the_child_nor_its_parent(server: RedisServer) -> None:
    with Child("fork", server.url()) as child:
        assert child.finish() == ["done"]


@pytest.mark.parametrize("worker", ["gevent", "penstock.doors.gevent.PushWorker"])
def test_under_gevent_the_hub_is_never_held_up(tmp_path: Path, worker: str) -> None:
    with RedisServer(*DURABLE) as server:
        env = {"PENSTOCK_URL": server.url(), "PENSTOCK_PUBLISH_TIMEOUT": "60"}
        options = [f"--worker-class={worker}", "--worker-connections=20"]
        with (
            Server.gunicorn("tests.flask.app:app", tmp_path, threads=1, options=options, env=env) as web,
            SSEClient(web.url + events_url("chat")) as client,
        ):
            client.wait_open()
            positions = publish(web, "chat", "1", "2")
            server.restart()
            assert get(web, "/ping") == "pong"
            positions += publish(web, "chat", "3")
            with server.frozen():
                assert get(web, "/ping") == "pong"
            positions += publish(web, "chat", "4")
            wait_for(lambda: len(client.messages) >= 4, what="all have come")
            assert [message.id for message in client.wait_for_messages(4)] == positions
            assert web.terminate() == 0


def test_a_penstock_closes_at_once(server: RedisServer) -> None:
    with Penstock(server.url()) as bus:
        records = bus.subscribe("check", after="earliest")
        bus.publish("check", "1")
        assert next(records).data == "1"
        records.close()
    wait_for(lambda: server.info("connected_clients") == "1", what="its connections are closed")
