"""``curl -N``, as one tries a stream by hand."""

from __future__ import annotations

from pathlib import Path

from penstock import Penstock
from penstock.core.parser import Message, Parser
from tests.clients.program import Program
from tests.flask.ask import events_url, post, publish
from tests.support.needs import need_curl
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"


class Curl(Program):
    """``curl -N``."""

    def __init__(self, url: str, *options: str) -> None:
        super().__init__("curl", "--no-buffer", "--silent", "--show-error", *options, url)

    @property
    def all(self) -> list[Message]:
        return Parser().feed(self.output)

    def wait_open(self) -> Message:
        return wait_for(lambda: self.all, what="the first bytes")[0]

    def wait_for_messages(self, count: int) -> list[Message]:
        def enough() -> list[Message]:
            found = [each for each in self.all if not each.event.startswith("penstock.")]
            return found if len(found) >= count else []

        return wait_for(enough, what=lambda: f"{count} messages in {self.output!r}")


@need_curl
def test_curl_shows_events_as_they_come_and_ends_with_the_channel(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path) as server, Curl(server.url + events_url("chat")) as curl:
        opened = curl.wait_open()
        assert curl.output == f"retry: 3000\nid: {opened.id}\nevent: penstock.position\ndata: \n\n".encode()
        (first,) = publish(server, "chat", "one\ntwo", event="verse")
        assert curl.wait_for_messages(1) == [Message("verse", "one\ntwo", first)]
        post(server, "/end", channel="chat")
        assert curl.wait() == 0
        assert curl.all[-1].event == "penstock.end"


@need_curl
def test_curl_with_last_event_id_gets_what_it_missed_while_the_server_was_dead(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path) as server:
        url = server.url + events_url("chat")
        with Curl(url) as curl:
            curl.wait_open()
            publish(server, "chat", "1")
            had = curl.wait_for_messages(1)[-1].id
            server.kill()
            assert curl.wait() != 0  # it was cut
        with Penstock(f"sqlite:///{tmp_path}/penstock.db") as bus:
            missed = [str(bus.publish("chat", "2")), str(bus.publish("chat", "3"))]
        server.start()
        with Curl(url, "--header", f"Last-Event-ID: {had}") as curl:
            assert [message.id for message in curl.wait_for_messages(2)] == missed
        with Curl(f"{url}&last_event_id={had}", "--http1.0") as curl:
            assert [message.data for message in curl.wait_for_messages(2)] == ["2", "3"]


@need_curl
def test_curl_compressed_gets_events_at_once_too(tmp_path: Path) -> None:
    with (
        Server.waitress(APP, tmp_path) as server,
        Curl(server.url + events_url("chat"), "--compressed", "--include") as curl,
    ):
        wait_for(lambda: b"penstock.position" in curl.output, what="the first bytes")
        publish(server, "chat", "hi")
        wait_for(lambda: b"data: hi\n\n" in curl.output, what="the event")
        assert b"content-encoding" not in curl.output.lower()
