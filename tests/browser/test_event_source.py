"""A plain page with the browser's own EventSource."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from penstock import Penstock
from tests.browser.conftest import Browse
from tests.flask.ask import events_url, post, publish
from tests.support.needs import need_chromium
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import wait_for

pytestmark = [need_chromium, pytest.mark.browser]

APP = "tests.apps.basic:app"
SOON = {"PENSTOCK_RETRY": "100"}  # it comes back after so many milliseconds
FOLLOW = """
window.seen = [];
window.source = new EventSource(arguments[0]);
const own = ["position", "gap", "end", "error"].map((name) => `penstock.${name}`);
for (const type of ["message", "verse", ...own]) {
    source.addEventListener(type, ({ data, lastEventId }) => seen.push({ type, data, id: lastEventId }));
}
"""
CLOSED = 2


class Source:
    """An EventSource in a page."""

    def __init__(self, driver: Chrome, server: Server, path: str) -> None:
        self.driver = driver
        driver.get(f"{server.url}/ping")  # any page of that origin
        driver.execute_script(FOLLOW, path)

    @property
    def seen(self) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = self.driver.execute_script("return seen")
        return seen

    @property
    def ready_state(self) -> int:
        return int(self.driver.execute_script("return source.readyState"))

    def wait_for_type(self, wanted: str) -> dict[str, Any]:
        def find() -> list[dict[str, Any]]:
            return [each for each in self.seen if each["type"] == wanted]

        return wait_for(find, what=lambda: f"{wanted} in {self.seen}")[0]

    def wait_for_messages(self, count: int) -> list[dict[str, Any]]:
        def enough() -> list[dict[str, Any]]:
            found = [each for each in self.seen if not each["type"].startswith("penstock.")]
            return found if len(found) >= count else []

        return wait_for(enough, what=lambda: f"{count} messages in {self.seen}")


def publish_beside(folder: Path, *data: str) -> list[str]:
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        return [str(bus.publish("chat", each)) for each in data]


def test_what_was_missed_before_the_first_event_comes(tmp_path: Path, browse: Browse) -> None:
    with Server.gunicorn(APP, tmp_path, env=SOON) as server:
        source = Source(browse(), server, events_url("chat"))
        source.wait_for_type("penstock.position")  # the first bytes; no event yet
        server.kill()
        wait_for(lambda: source.ready_state == 0, what="the connection is lost")
        missed = publish_beside(tmp_path, "1", "2")
        server.start()
        assert [each["id"] for each in source.wait_for_messages(2)] == missed


def test_events_errors_and_the_end(tmp_path: Path, browse: Browse) -> None:
    with Server.gunicorn(APP, tmp_path, env=SOON) as server:
        source = Source(browse(), server, events_url("chat"))
        source.wait_for_type("penstock.position")
        (first,) = publish(server, "chat", "one\ntwo\u2028three", event="verse")
        (verse,) = source.wait_for_messages(1)
        assert verse == {"type": "verse", "data": "one\ntwo\u2028three", "id": first}
        with something_else_in_its_place(tmp_path):
            server.restart()
            error = source.wait_for_type("penstock.error")
            assert json.loads(error["data"]) == {"message": "the stream failed; it will be tried again"}
            assert error["id"] == first
        positions = publish(server, "chat", "after all")
        assert [each["id"] for each in source.wait_for_messages(2)] == [first, *positions]
        post(server, "/end", channel="chat")
        assert json.loads(source.wait_for_type("penstock.end")["data"]) == {"channel": "chat"}
        wait_for(lambda: source.ready_state == CLOSED, what="204 has ended it")


def test_a_gap_is_told_and_the_stream_goes_on(tmp_path: Path, browse: Browse) -> None:
    with Server.gunicorn(APP, tmp_path, env=SOON) as server:
        source = Source(browse(), server, events_url("chat", last_event_id="nonsense"))
        gap = json.loads(source.wait_for_type("penstock.gap")["data"])
        assert (gap["reason"], gap["after"]) == ("malformed", "nonsense")
        positions = publish(server, "chat", "hi")
        assert [each["id"] for each in source.wait_for_messages(1)] == positions
