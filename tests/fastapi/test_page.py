"""What docs/fastapi.md says is run here, as somebody would who has copied it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flask.ask import answer, get, read_block
from tests.support.client import SSEClient
from tests.support.processes import ROOT, Server
from tests.testing.test_page import run_pytest

PAGE = (ROOT / "docs" / "fastapi.md").read_text()
PYJWT = '''
"""Stands in for PyJWT."""

import base64, json


class InvalidTokenError(Exception):
    pass


def decode(token, key, algorithms):
    try:
        return json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise InvalidTokenError from None
'''


def blocks(section: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The app of the page: all its blocks but the tests."""
    app, tests = PAGE.split("\n## Testing\n")
    source = "\n\n".join(blocks(app)).replace("/var/lib/shop", str(tmp_path))
    (tmp_path / "main.py").write_text(source)
    (tmp_path / "jwt.py").write_text(PYJWT)
    (tmp_path / "test_it.py").write_text("from main import app\n\n" + "\n\n".join(blocks(tests)))
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server.uvicorn("main:app", folder, env={"PYTHONPATH": f"{ROOT}:{folder}"}) as server:
        yield server


def post(server: Server, path: str, **headers: str) -> None:
    with answer(server, path, method="POST", headers=headers) as response:
        assert response.status == 204


def until(response: http.client.HTTPResponse, words: str) -> None:
    """Read on to the block that has them."""
    while words not in (block := read_block(response)):
        assert block, f"the stream has ended without {words!r}"


def cookie(**claims: Any) -> dict[str, str]:
    return {"Cookie": f"token={base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}"}


@contextmanager
def allowed(server: Server, **claims: Any) -> Iterator[http.client.HTTPResponse]:
    headers = cookie(rooms=[7], **claims)
    with answer(server, "/rooms/7/events", headers=headers) as response:
        assert response.status == 200
        read_block(response)
        yield response


def test_the_page_of_an_order_hears_that_it_is_paid(server: Server) -> None:
    with SSEClient(f"{server.url}/orders/17/events") as client:
        client.wait_open()
        post(server, "/orders/17/paid")
        assert client.next()[:2] == ("state", '{"state":"paid"}')
    assert (server.folder / "penstock.db").exists()


def test_who_joins_a_room_and_who_has_left_it_is_told_in_it(server: Server) -> None:
    with answer(server, "/rooms/7/enter?name=Ada") as response:
        read_block(response)
        post(server, "/rooms/7/join?name=Eve")
        until(response, 'event: joined\ndata: {"name":"Eve"}')
        until(response, 'event: said\ndata: {"text":"hello"}')
        with answer(server, "/rooms/7/enter?name=Bob") as other:
            read_block(other)
        until(response, 'event: joined\ndata: {"name":"Bob"}')
        until(response, 'event: said\ndata: {"text":"Bob has left"}')


def test_a_token_says_what_may_be_read_and_until_when(server: Server) -> None:
    later = time.time() + 3600
    for headers in ({}, {"Cookie": "token=nonsense"}):
        with answer(server, "/rooms/7/events", headers=headers) as response:
            assert response.status in (401, 403)
    with answer(server, "/rooms/8/events", headers=cookie(rooms=[7], sub="ada", exp=later)) as response:
        assert response.status == 403
    with allowed(server, sub="ada", exp=later) as ada, allowed(server, sub="eve", exp=later) as eve:
        post(server, "/logout", **cookie(sub="ada"))
        assert '"kicked"' in ada.read().decode()
        with allowed(server, sub="bob", exp=time.time() - 1) as bob:
            assert "penstock.revoked" in bob.read().decode()
        post(server, "/rooms/7/join?name=Eve")
        until(eve, "event: joined")


def test_a_client_may_name_the_channels_that_it_may_read(server: Server) -> None:
    for channel, status in (("public/news", 200), ("secret", 403), ("public/**", 400)):
        with answer(server, f"/events?channel={channel}") as response:
            assert response.status == status


def test_its_documentation_tells_what_it_streams(server: Server) -> None:
    told = json.loads(get(server, "/openapi.json"))
    content = told["paths"]["/orders/{order_id}/events"]["get"]["responses"]["200"]["content"]
    state = content["text/event-stream"]["itemSchema"]
    assert state["properties"]["event"] == {"type": "string", "const": "state"}
    assert {"State", "Message", "Joined"} <= told["components"]["schemas"].keys()


def test_its_tests_pass(folder: Path) -> None:
    status, told = run_pytest(folder, "-W", "default")  # Starlette would rather have another httpx
    assert status == 0, told
    assert "2 passed" in told
