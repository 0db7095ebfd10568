"""Several workers: what one publishes reaches the streams of all."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flask.ask import post
from tests.flask.conftest import APP
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for


def a_stream_of_each_of_two(server: Server, channel: str) -> list[SSEClient]:
    """The system decides which worker gets a connection, so some are opened for nothing."""
    clients: dict[str, SSEClient] = {}

    def both_have_one() -> bool:
        client = SSEClient(f"{server.url}/events-with-pid?channel={channel}").wait_open()
        if clients.setdefault(client.headers["Worker"], client) is not client:
            client.close()
        return len(clients) == 2

    wait_for(both_have_one, 90, what="both workers have a stream")
    return list(clients.values())


def publish_from_both(server: Server, channel: str, count: int) -> list[str]:
    """Publish at least so many events, and go on until both workers had one; give the positions."""
    pids: set[int] = set()
    positions: list[str] = []

    def both_did() -> bool:
        said = json.loads(post(server, "/publish-with-pid", channel=channel, data="hi"))
        pids.add(said["pid"])
        positions.append(said["position"])
        return len(positions) >= count and len(pids) == 2

    wait_for(both_did, 90, what="both workers have published")
    return positions


def test_events_of_each_worker_reach_the_streams_of_all(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path, workers=2, threads=8) as server:
        clients = a_stream_of_each_of_two(server, "chat")
        positions = publish_from_both(server, "chat", 50)
        for client in clients:
            messages = client.wait_for_messages(len(positions))
            assert [message.id for message in messages] == positions
            client.close()


def test_an_app_that_was_used_before_the_fork_works_in_every_worker(tmp_path: Path) -> None:
    env = {"USE_AT_IMPORT": "1"}
    options = ["--preload"]
    with Server.gunicorn(APP, tmp_path, workers=2, threads=8, env=env, options=options) as server:
        clients = a_stream_of_each_of_two(server, "chat")
        positions = publish_from_both(server, "chat", 10)
        for client in clients:
            messages = client.wait_for_messages(len(positions))
            assert [message.id for message in messages] == positions
            client.close()
        with SSEClient(f"{server.url}/events?channel=imported&after=earliest") as client:
            client.wait_for_messages(1)
            assert [message.data for message in client.messages] == ["hello"]


def test_a_log_in_memory_with_several_workers_is_warned_of(tmp_path: Path) -> None:
    warning = "memory: is known to this process alone, and the server has several"
    env = {"PENSTOCK_URL": "memory:"}
    with Server.gunicorn(APP, tmp_path, workers=2, env=env) as server:
        with SSEClient(f"{server.url}/events?channel=chat") as client:
            client.wait_open()
        assert f"WARNING penstock.wsgi: {warning}" in server.log
    with Server.gunicorn(APP, tmp_path, workers=1, env=env) as server:
        with SSEClient(f"{server.url}/events?channel=chat") as client:
            client.wait_open()
        assert warning not in server.log
