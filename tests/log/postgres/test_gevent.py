"""Under gevent's worker of gunicorn, which patches what the driver is made of: the hub is never held up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flask.ask import events_url, get, publish
from tests.support.client import SSEClient
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.processes import Server
from tests.support.wait import wait_for

pytestmark = need_postgres

WORKER = "penstock.doors.gevent.PushWorker"


@pytest.mark.parametrize("worker", ["gevent", WORKER])
def test_it_publishes_follows_and_outlives_a_restart_of_the_server(
    server: PostgreSQL, url: str, tmp_path: Path, worker: str
) -> None:
    env = {"PENSTOCK_URL": url, "PENSTOCK_PUBLISH_TIMEOUT": "60"}
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
        assert [message.id for message in client.wait_for_messages(3)] == positions
        server.freeze()
        try:
            assert get(web, "/ping") == "pong"
        finally:
            server.thaw()
        positions += publish(web, "chat", "4")
        wait_for(lambda: len(client.messages) >= 4)
        assert [message.id for message in client.wait_for_messages(4)] == positions
