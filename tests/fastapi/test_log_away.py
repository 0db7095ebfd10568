"""The log of a FastAPI app fails in the middle of a stream: a notice, a clean end, and nothing is lost."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.core.parser import Message, Parser
from tests.doors.servers import PUSH
from tests.flask.ask import answer, events_url
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.sqlite import something_else_in_its_place

APP = "tests.apps.fastapi_app:app"
READ_BYTES = 65_536
EVENTS, EVENT_BYTES = 300, 100_000  # more than the kernel takes for a client that reads nothing


def read_until(
    response: http.client.HTTPResponse, parser: Parser, enough: Callable[[list[Message]], bool]
) -> list[Message]:
    had: list[Message] = []
    while not enough(had):
        had += parser.feed(response.read1(READ_BYTES))
    return had


@pytest.mark.parametrize("middlewares", ["", "base base"])
@pytest.mark.parametrize("http", ["auto", PUSH])
def test_a_log_that_fails_in_mid_stream_is_a_notice_and_a_clean_end(
    tmp_path: Path, http: str, middlewares: str
) -> None:
    log = tmp_path / "penstock.db"
    with Penstock(f"sqlite:///{log}") as before:
        for _ in range(10):
            before.publish_many([Event("chat", "x" * EVENT_BYTES) for _ in range(EVENTS // 10)])
    with Server.uvicorn(APP, tmp_path, http=http, env={"MIDDLEWARES": middlewares}) as server:
        parser = Parser()
        with answer(server, events_url("chat", after="earliest")) as response:
            _, *events = read_until(response, parser, lambda had: len(had) > 1)
            with something_else_in_its_place(tmp_path):
                events += parser.feed(response.read())  # an error if it is cut
        *events, notice = events
        assert notice.event == "penstock.error"
        assert 0 < len(events) < EVENTS
        with SSEClient(server.url + events_url("chat"), parser.last_event_id) as client:
            rest = client.wait_for_messages(EVENTS - len(events))
        seqs = [int(message.id.partition(":")[2]) for message in [*events, *rest]]
        assert seqs == list(range(1, EVENTS + 1))
        assert "Traceback" not in server.log
