"""``httpx-sse``, with a loop around it that comes back, as its documentation shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from penstock import Penstock
from tests.flask.ask import events_url, publish
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"
PAUSE_S = 0.05


class Follower:
    """Follows a stream and comes back, with what it takes for its last event id."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[ServerSentEvent] = []
        self.last_event_id = ""
        self._stop = threading.Event()

    def run(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
                try:
                    with connect_sse(client, "GET", self.url, headers=headers) as source:
                        for event in source.iter_sse():
                            self.last_event_id = event.id
                            self.received.append(event)
                            if self._stop.is_set():
                                return
                except httpx.TransportError:
                    pass
                self._stop.wait(PAUSE_S)

    @property
    def messages(self) -> list[ServerSentEvent]:
        return [event for event in self.received if not event.event.startswith("penstock.")]

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def following(url: str) -> Iterator[Follower]:
    follower = Follower(url)
    thread = threading.Thread(target=follower.run)
    thread.start()
    try:
        wait_for(lambda: follower.received, what="the first bytes")
        yield follower
    finally:
        follower.stop()
        thread.join()  # at the next keep-alive


def server_in(folder: Path) -> Server:
    return Server.waitress(APP, folder, env={"PENSTOCK_KEEP_ALIVE": "0.5"})


def test_httpx_sse_gets_events_and_what_it_missed_while_the_server_was_dead(tmp_path: Path) -> None:
    with server_in(tmp_path) as server, following(server.url + events_url("chat")) as follower:
        positions = publish(server, "chat", "one\ntwo", event="verse")
        wait_for(lambda: follower.messages, what="the event")
        assert (follower.messages[0].event, follower.messages[0].data) == ("verse", "one\ntwo")
        for _ in range(2):
            server.kill()
            with Penstock(f"sqlite:///{tmp_path}/penstock.db") as bus:
                positions.append(str(bus.publish("chat", "away")))
            server.start()
            positions += publish(server, "chat", "back")
        wait_for(lambda: len(follower.messages) >= len(positions), what="all events")
        assert [message.id for message in follower.messages] == positions


def test_httpx_sse_keeps_its_place_over_a_stream_that_could_not_begin(tmp_path: Path) -> None:
    """It takes the empty id of a block that has none for its last event id."""
    with server_in(tmp_path) as server:
        publish(server, "chat", "before")
        with following(server.url + events_url("chat")) as follower:
            position = follower.last_event_id
            with something_else_in_its_place(tmp_path):
                server.restart()
                wait_for(lambda: follower.received[-1].event == "penstock.error", what="the notice")
                assert follower.last_event_id == position
            positions = publish(server, "chat", "after")
            wait_for(lambda: follower.messages, what="the event")
            assert [message.id for message in follower.messages] == positions
