"""The log cannot be read when a stream begins, or while it is open: clients stay, and lose nothing."""

from __future__ import annotations

import json
import sys
import time
import types
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from penstock import Event
from penstock import Penstock as Bus
from penstock.core.parser import Parser
from penstock.errors import ConfigError
from penstock.flask import Penstock
from tests.flask.ask import answer, events_url, post, publish, read_block, stats
from tests.flask.conftest import APP, KINDS
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import wait_for

CANNOT_BEGIN = "WARNING penstock.streams: a stream could not begin"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_cannot_begin_is_a_notice_and_goes_on_when_it_can(tmp_path: Path, kind: str) -> None:
    with KINDS[kind](APP, tmp_path, {}) as server:
        with SSEClient(server.url + events_url("chat")) as client:
            client.wait_open()
            had, missed = publish(server, "chat", "had", "missed")
        client.last_event_id = had
        client.messages.clear()
        with something_else_in_its_place(tmp_path):
            client.reconnect()
            client.wait_closed()
            assert client.statuses == [200, 200]
            assert client.headers.get_content_type() == "text/event-stream"
            assert client.notices[-1].event == "penstock.error"
            assert not client.errors  # it was ended, not cut
            assert not client.messages
            assert client.last_event_id == had
            assert client.retry_ms is not None
            assert 700 <= client.retry_ms <= 1_300
        client.reconnect()
        client.wait_for_messages(1)
        assert client.last_event_id == missed
        client.close()


def test_the_notice_says_back_the_position(tmp_path: Path) -> None:
    with Server.waitress(APP, tmp_path) as server:
        (position,) = publish(server, "chat", "hi")
        with something_else_in_its_place(tmp_path):
            for sent, told in [(position, f"id: {position}\n"), ("nonsense", ""), ("", "")]:
                headers = {"Last-Event-ID": sent} if sent else {}
                with answer(server, events_url("chat"), headers=headers) as response:
                    assert response.getheader("Content-Length") is None
                    _, rest = response.read().decode().split("\n", 1)
                message = json.dumps({"message": "the stream failed; it will be tried again"})
                assert rest == f"{told}event: penstock.error\ndata: {message}\n\n"


def test_the_pause_grows_with_the_time_not_with_the_number_of_clients(tmp_path: Path) -> None:
    def told_ms(server: Server) -> int:
        with answer(server, events_url("chat")) as response:
            return int(response.read().split(b"\n", 1)[0].removeprefix(b"retry: "))

    with Server.waitress(APP, tmp_path, env={"PENSTOCK_KEEP_ALIVE": "0.5"}) as server:
        publish(server, "chat", "hi")
        with something_else_in_its_place(tmp_path):
            began = time.monotonic()
            told: list[tuple[int, float]] = []
            while len(told) < 10 and time.monotonic() - began < 1:
                told.append((told_ms(server), time.monotonic() - began))
            assert max(pause for pause, at in told if at < 1 or len(told) == 1) <= 1_300
            wait_for(lambda: told_ms(server) > 1_300 * 2, what="the pause has doubled")
        with SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client:
            client.wait_for_notice("penstock.position")
            seen = len(client.notices)
            wait_for(lambda: len(client.notices) > seen, what="a keep-alive: the stream goes well")
            with something_else_in_its_place(tmp_path):
                assert told_ms(server) <= 1_300


def test_failures_are_logged_once_a_minute_and_without_a_traceback(tmp_path: Path) -> None:
    with Server.waitress(APP, tmp_path) as server:
        publish(server, "chat", "hi")
        with something_else_in_its_place(tmp_path):
            for _ in range(5):
                with answer(server, events_url("chat")) as response:
                    response.read()
        assert server.log.count(CANNOT_BEGIN) == 1
        assert "is no SQLite file; it was left as it is" in server.log
        assert "Traceback" not in server.log


def test_a_log_that_never_was_there_is_a_notice_too(tmp_path: Path) -> None:
    env = {"PENSTOCK_URL": "sqlite:///missing/penstock.db"}
    with Server.waitress(APP, tmp_path, env=env) as server:
        url = server.url + events_url("chat", last=5)
        with SSEClient(url, auto_reconnect=True) as client:
            client.wait_for_notice("penstock.error")
            assert f"the folder {tmp_path}/missing is not there" in server.log
            (tmp_path / "missing").mkdir()
            publish(server, "chat", "hi")
            client.wait_for_messages(1)
            assert set(client.statuses) == {200}


def test_a_stream_stays_open_while_the_log_is_away(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path) as server, SSEClient(server.url + events_url("chat")) as client:
        client.wait_open()
        publish(server, "chat", "before")
        client.wait_for_messages(1)
        with something_else_in_its_place(tmp_path):
            wait_for(lambda: stats(server)["log_state"] == "away", what="it is noticed")
            with answer(server, "/say-or-told?channel=chat", method="POST") as response:
                assert response.status == 503
                assert b"NotALog" in response.read()
        wait_for(lambda: stats(server)["log_state"] == "following", what="it is back")
        publish(server, "chat", "after")
        client.wait_for_messages(2)
        assert client.statuses == [200]
        assert not client.errors


def test_nothing_is_logged_per_event(tmp_path: Path) -> None:
    env = {"PENSTOCK_KEEP_ALIVE": "0.5"}
    with Server.waitress(APP, tmp_path, env=env) as server:
        clients = [SSEClient(server.url + events_url("chat")).wait_open() for _ in range(3)]
        position = clients[0].last_event_id
        publish(server, "chat", "first")
        lines = [line for line in server.log.splitlines() if "penstock" in line]
        publish(server, "chat", *map(str, range(50)))
        with SSEClient(server.url + events_url("chat"), position) as late:
            for client in [*clients, late]:
                client.wait_for_messages(51)
            seen = len(late.notices)
            wait_for(lambda: len(late.notices) > seen, what="a keep-alive")
        for client in clients:
            client.close()
        post(server, "/end", channel="chat")
        assert [line for line in server.log.splitlines() if "penstock" in line] == lines
        (start,) = lines
        assert start.startswith("INFO penstock: streams from sqlite:////")
        assert "through WSGI on waitress, at most 12 at once; keep-alive 0.5 s" in start


def test_a_replay_that_fails_midway_is_ended_by_a_notice_and_goes_on_later(tmp_path: Path) -> None:
    with Bus(f"sqlite:///{tmp_path}/penstock.db") as bus:
        for _ in range(4):
            bus.publish_many([Event("chat", 100_000 * "x") for _ in range(100)])
    with Server.gunicorn(APP, tmp_path) as server:
        path = events_url("chat", after="earliest")
        with ExitStack() as stack:
            answers = [stack.enter_context(answer(server, path)) for _ in range(3)]
            begun = [read_block(each) + "\n" + read_block(each) + "\n" for each in answers]
            with something_else_in_its_place(tmp_path):
                bodies = [each.read() for each in answers]
        for beginning, body in zip(begun, bodies, strict=True):
            parser = Parser()
            _, *had, notice = parser.feed(beginning.encode() + body)
            assert notice.event == "penstock.error"
            assert 0 < len(had) < 400
        with SSEClient(server.url + path, parser.last_event_id) as client:
            client.wait_for_messages(400 - len(had))
            seqs = [int(message.id.partition(":")[2]) for message in [*had, *client.messages]]
            assert seqs == list(range(1, 401))
        assert server.log.count("WARNING penstock.streams: a stream of chat was ended") == 1
        assert "Traceback" not in server.log


def test_threads_that_eventlet_has_patched_are_refused_by_every_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    patched: Any = types.SimpleNamespace(is_monkey_patched=lambda name: True)
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patched)
    app = Flask(__name__)
    app.testing = True
    sse = Penstock(app)
    app.add_url_rule("/events", view_func=lambda: sse.stream("chat"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="where eventlet has patched the threads"):
            app.test_client().get("/events")
    sse.bus.close()
