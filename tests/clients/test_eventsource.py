"""The npm package ``eventsource``: the EventSource of Node.js programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock import Penstock
from tests.clients.program import Program
from tests.flask.ask import events_url, post, publish
from tests.support.needs import CLIENTS, need_node
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"
SOON = {"PENSTOCK_RETRY": "100"}  # it comes back after so many milliseconds


class EventSource(Program):
    """``follow.js``."""

    def __init__(self, url: str, *types: str) -> None:
        super().__init__("node", str(CLIENTS / "follow.js"), url, *types)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def messages(self) -> list[dict[str, Any]]:
        events = [each for each in self.told if each["kind"] == "event"]
        return [event for event in events if not event["type"].startswith("penstock.")]

    def wait_for_type(self, kind: str, count: int = 1) -> None:
        def enough() -> bool:
            return [each.get("type", each["kind"]) for each in self.told].count(kind) >= count

        wait_for(enough, what=lambda: f"{count} {kind} in {self.lines}")

    def wait_for_messages(self, count: int) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.messages) >= count, what=lambda: f"{count} messages in {self.lines}")
        return self.messages


def publish_beside(folder: Path, *data: str) -> list[str]:
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        return [str(bus.publish("chat", each)) for each in data]


@need_node
def test_eventsource_gets_events_and_stops_at_the_end(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, env=SOON) as server,
        EventSource(server.url + events_url("chat"), "verse") as client,
    ):
        client.wait_for_type("penstock.position")
        (first,) = publish(server, "chat", "one\ntwo\u2028three", event="verse")
        (second,) = publish(server, "chat", "plain")
        verse, plain = client.wait_for_messages(2)
        assert (verse["type"], verse["data"], verse["id"]) == ("verse", "one\ntwo\u2028three", first)
        assert (plain["type"], plain["data"], plain["id"]) == ("message", "plain", second)
        post(server, "/end", channel="chat")
        client.wait_for_type("penstock.end")
        client.wait_for_type("closed")
        assert client.wait() == 0  # nothing is left to do
        assert client.told[-1] == {"kind": "closed", "code": 204}


@need_node
def test_eventsource_misses_nothing_while_the_server_is_killed_and_started(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, env=SOON) as server,
        EventSource(server.url + events_url("chat")) as client,
    ):
        client.wait_for_type("penstock.position")
        positions = publish(server, "chat", "before")
        for _ in range(3):
            server.kill()
            positions += publish_beside(tmp_path, "away", "away too")
            server.start()
            positions += publish(server, "chat", "back")
        messages = client.wait_for_messages(len(positions))
        assert [message["id"] for message in messages] == positions


@need_node
def test_eventsource_that_saw_no_event_before_it_was_cut_gets_what_came_then(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, env=SOON) as server,
        EventSource(server.url + events_url("chat")) as client,
    ):
        client.wait_for_type("penstock.position")  # the first bytes; no event yet
        server.kill()
        client.wait_for_type("lost")
        positions = publish_beside(tmp_path, "1", "2")
        server.start()
        messages = client.wait_for_messages(2)
        assert [message["id"] for message in messages] == positions
        assert len(client.messages) == 2


@need_node
def test_eventsource_is_told_of_a_gap_and_goes_on(tmp_path: Path) -> None:
    with (
        Server.gunicorn(APP, tmp_path, env=SOON) as server,
        EventSource(server.url + events_url("chat")) as client,
    ):
        publish(server, "chat", "before")
        client.wait_for_type("penstock.position")
        server.kill()
        for file in tmp_path.glob("penstock.db*"):
            if file.is_file():
                file.unlink()
        server.start()
        client.wait_for_type("penstock.gap")
        positions = publish(server, "chat", "after")
        messages = wait_for(lambda: [each for each in client.messages if each["data"] == "after"])
        assert [message["id"] for message in messages] == positions


@need_node
def test_eventsource_follows_a_server_with_one_thread_by_slices(tmp_path: Path) -> None:
    options = ["--worker-class=sync"]
    with (
        Server.gunicorn(APP, tmp_path, env=SOON, threads=1, options=options) as server,
        EventSource(server.url + events_url("chat")) as client,
    ):
        client.wait_for_type("penstock.position")
        positions = publish(server, "chat", "1", "2", "3")
        messages = client.wait_for_messages(3)
        assert [message["id"] for message in messages] == positions
        client.wait_for_type("open", 2)
