"""What docs/quart.md says is run here, as somebody would who has copied it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, session

from penstock.testing import ASGIClient
from tests.flask.ask import post
from tests.support.client import SSEClient
from tests.support.processes import ROOT, Server
from tests.support.wait import DEADLINE_S

PAGE = (ROOT / "docs" / "quart.md").read_text()


def blocks(title: str) -> list[str]:
    (section,) = (each for each in PAGE.split("\n## ") if each.startswith(f"{title}\n"))
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(source: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"__name__": "shop"} if names is None else names
    exec(source, names)
    return names


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """What the quick start is."""
    return blocks("Quick start")[0].replace("/var/lib/shop", str(tmp_path))


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the section on rights makes."""
    monkeypatch.chdir(tmp_path)
    names = run(blocks("Who may read")[0])
    yield names
    names["sse"].bus.close()


def test_the_app_factory_serves_orders(shop: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(shop)
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with (
        Server.uvicorn("shop:create_app", tmp_path, env=env, options=["--factory"]) as server,
        SSEClient(f"{server.url}/orders/17/events") as client,
    ):
        client.wait_open()
        post(server, "/orders/17/paid")
        assert client.next()[:2] == ("state", '{"state": "paid"}')


def test_who_may_read_gets_a_stream_until_he_logs_out(rooms: dict[str, Any]) -> None:
    app: Quart = rooms["app"]

    @app.get("/login")
    async def login() -> str:
        session.update(name="ada", rooms=["7", "room/7"])
        return "hello"

    with ASGIClient(app, timeout=DEADLINE_S) as client:
        cookie = client.stream("/login").headers["Set-Cookie"] or ""
        ada = {"session": cookie.partition(";")[0].removeprefix("session=")}
        assert client.stream("/rooms/7/events").status == 403
        assert client.stream("/rooms/8/events", cookies=ada).status == 403
        assert client.stream("/events?channel=news").status == 401
        assert client.stream("/events?channel=news&channel=room/8", cookies=ada).status == 403
        room = client.stream("/rooms/7/events", cookies=ada)
        named = client.stream("/events?channel=news&channel=room/7", cookies=ada)
        rooms["sse"].publish("room/7", "hi")
        for page in (room, named):
            assert page.next_event().data == "hi"
        assert client.stream("/logout", method="POST", cookies=ada).status == 204
        for page in (room, named):
            assert page.next_event().json() == {"reason": "kicked"}
            page.wait_closed()


def test_the_test_of_the_page_passes(shop: str) -> None:
    names = run(shop)
    run(blocks("Testing")[0], names)
    names["test_a_page_gets_the_state_of_its_order"]()
