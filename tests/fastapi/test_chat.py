"""The chat example on FastAPI, without a browser: its routes, what it refuses, and who is here."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.flask.ask import answer, get
from tests.support.client import SSEClient
from tests.support.processes import ROOT, Server
from tests.support.sqlite import locked
from tests.support.wait import DEADLINE_S, wait_for

CHAT = ROOT / "examples" / "chat"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server.uvicorn("fastapi_app:app", tmp_path, env={"PYTHONPATH": f"{ROOT}:{CHAT}"}) as server:
        yield server


def say(server: Server, **form: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/say", urlencode(form), kind)
        with connection.getresponse() as response:
            return response.status, response.read().decode()
    finally:
        connection.close()


def rolls(client: SSEClient) -> list[Any]:
    return [json.loads(message.data)["names"] for message in client.messages if message.event == "presence"]


def test_the_page_and_what_it_is_made_of_are_served(server: Server) -> None:
    assert get(server, "/") == (CHAT / "static" / "index.html").read_text()
    assert get(server, "/static/chat.js") == (CHAT / "static" / "chat.js").read_text()


def test_what_is_said_reaches_the_others_once(server: Server) -> None:
    with SSEClient(f"{server.url}/events") as client:
        client.wait_open()
        for _ in range(2):  # a page that had no answer says it again
            status, told = say(server, user=" Ada ", text=" hello ", key="7")
            assert status == 201
        say(server, user="Eve", text="hi")
        one, two = client.wait_for_messages(2)
    assert json.loads(told) == {"id": one.id}
    first, second = json.loads(one.data), json.loads(two.data)
    assert (first["user"], first["text"], first["key"]) == ("Ada", "hello", "7")
    assert (second["user"], second["text"], second["key"]) == ("Eve", "hi", None)


@pytest.mark.parametrize(
    "form",
    [
        {"text": "nobody says it"},
        {"user": "Ada", "text": "  "},
        {"user": "A" * 41, "text": "hi"},
        {"user": "Ada", "text": "x" * 2001},
        {"user": "Ada", "text": "hi", "key": "a\nb"},
    ],
)
def test_what_is_no_message_is_refused_in_words(server: Server, form: dict[str, str]) -> None:
    status, told = say(server, **form)
    assert status == 400
    assert told.startswith("A name has 1 to 40 characters")


def test_while_the_log_is_away_the_page_is_asked_to_say_it_again(server: Server) -> None:
    assert say(server, user="Ada", text="hi")[0] == 201
    with locked(server.folder / "chat.db"):
        status, told = say(server, user="Ada", text="hi")
    assert (status, "The message may be sent again" in told) == (503, True)


def test_who_is_here_is_told_to_all(server: Server) -> None:
    with SSEClient(f"{server.url}/events") as client:
        client.wait_open()
        with answer(server, "/events?user=Ada") as response:
            assert response.status == 200
            wait_for(lambda: ["Ada"] in rolls(client), what="she has come")
        wait_for(lambda: rolls(client)[-1] == [], what="she has left")


def test_its_documentation_has_the_messages(server: Server) -> None:
    told = json.loads(get(server, "/openapi.json"))
    content = told["paths"]["/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    message, presence = content["itemSchema"]["oneOf"]
    assert message["properties"]["data"]["contentSchema"]["$ref"].endswith("/Message")
    assert presence["properties"]["event"]["const"] == "presence"
