"""What docs/starlette.md says is run here, as somebody would who has copied it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import TimestampSigner

from penstock.testing import ASGIClient
from tests.support.processes import ROOT
from tests.support.wait import DEADLINE_S

PAGE = (ROOT / "docs" / "starlette.md").read_text()


def blocks(title: str) -> list[str]:
    (section,) = (each for each in PAGE.split("\n## ") if each.startswith(f"{title}\n"))
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(source: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"__name__": "shop"} if names is None else names
    exec(source, names)
    return names


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the quick start makes."""
    names = run(blocks("Quick start")[0].replace("/var/lib/shop", str(tmp_path)))
    yield names
    names["sse"].close()


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the section on rights makes."""
    monkeypatch.chdir(tmp_path)
    names = run(blocks("Who may read")[0])
    yield names
    names["sse"].close()


def session_of(**data: Any) -> dict[str, str]:
    """The cookie of a session, as SessionMiddleware writes it."""
    text = base64.b64encode(json.dumps(data).encode())
    return {"session": TimestampSigner("a secret of this app").sign(text).decode()}


def client_of(app: Any) -> ASGIClient:
    return ASGIClient(app, timeout=DEADLINE_S)


def test_the_quick_start_serves_orders(shop: dict[str, Any], tmp_path: Path) -> None:
    with client_of(shop["app"]) as client:
        assert client.stream("/orders/17/paid", method="POST").status == 204
        with client.stream("/orders/17/events") as page:
            event = page.next_event()
            assert (event.event, event.json()) == ("state", {"state": "paid"})
    assert (tmp_path / "penstock.db").exists()


def test_who_may_read_gets_a_stream_until_he_logs_out(rooms: dict[str, Any]) -> None:
    ada = session_of(name="ada", rooms=["7", "room/7"])
    with client_of(rooms["app"]) as client:
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


def test_what_stands_before_the_middlewares_has_no_session(rooms: dict[str, Any]) -> None:
    run(blocks("Before the middlewares")[0], rooms)
    with client_of(rooms["app"]) as client:
        assert client.stream("/public/events?channel=secret").status == 403
        with client.stream("/public/events?channel=news") as page:
            rooms["sse"].publish("news", "hi")
            assert page.next_event().data == "hi"
        assert client.stream("/events?channel=news").status == 401, "the app answers all else"


def test_the_test_of_the_page_passes(shop: dict[str, Any]) -> None:
    run(blocks("Testing")[0], shop)
    shop["test_a_page_gets_the_state_of_its_order"]()
