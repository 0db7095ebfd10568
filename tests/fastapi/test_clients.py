"""The clients that FastAPI's documentation tests with, and ours, which follow a stream. In process."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Response
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request

from penstock.core.parser import Parser
from penstock.errors import Closed
from penstock.fastapi import Penstock
from penstock.testing import ASGIClient, AsyncASGIClient
from tests.support.wait import DEADLINE_S, wait_for

NEVER_S = 3600.0  # for a keep-alive that does not come to the aid


class Passing(BaseHTTPMiddleware):
    """It changes nothing; but the base of it wraps ``receive`` and ``send``."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.fixture
def sse(tmp_path: Path) -> Iterator[Penstock]:
    with Penstock(f"sqlite:///{tmp_path}/penstock.db", keep_alive=NEVER_S) as sse:
        yield sse


def app_of(sse: Penstock, middlewares: int = 0) -> FastAPI:
    app = FastAPI(lifespan=sse.lifespan, middleware=[Middleware(Passing)] * middlewares)

    depends = Depends(sse)

    @app.get("/events")
    async def events(sse: Penstock = depends) -> Response:
        return sse.stream("chat", last=50)

    @app.get("/of-def")
    def of_def() -> Response:
        return sse.stream("chat", last=50)

    return app


def test_client(app: FastAPI) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette would rather have another httpx under it
        from fastapi.testclient import TestClient
    return TestClient(app)


test_client.__test__ = False  # type: ignore[attr-defined]


def data(text: str) -> list[str]:
    return [m.data for m in Parser().feed(text.encode()) if not m.event.startswith("penstock.")]


@pytest.mark.parametrize("path", ["/events", "/of-def"])
@pytest.mark.parametrize("middlewares", [0, 2])
def test_the_test_client_gets_what_there_is_and_is_not_hung(
    sse: Penstock, path: str, middlewares: int
) -> None:
    client = test_client(app_of(sse, middlewares))
    sse.publish("chat", "1")
    answer = client.get(path)
    assert (answer.status_code, data(answer.text)) == (200, ["1"])
    sse.publish("chat", "2")
    had = next(m.id for m in Parser().feed(answer.content) if m.data == "1")
    assert data(client.get(path, headers={"Last-Event-ID": had}).text) == ["2"]
    assert sse.stats().streams == 0


@pytest.mark.parametrize("path", ["/events", "/of-def"])
def test_httpx_gets_what_there_is_and_is_not_hung(sse: Penstock, path: str) -> None:
    async def test() -> None:
        transport = httpx.ASGITransport(app=app_of(sse))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await sse.apublish("chat", "1")
            answer = await client.get(path)
            assert (answer.status_code, data(answer.text)) == (200, ["1"])

    asyncio.run(asyncio.wait_for(test(), DEADLINE_S))
    assert sse.stats().streams == 0


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("middlewares", [0, 1, 2])
def test_our_client_follows_leaves_and_comes_back(sse: Penstock, spec_version: str, middlewares: int) -> None:
    app = app_of(sse, middlewares)
    with ASGIClient(app, spec_version=spec_version) as client, client.stream("/events") as page:
        sse.publish("chat", "1")
        assert page.next_event().data == "1"
        page.drop()  # an error if the app does not notice it
        wait_for(lambda: sse.stats().streams == 0, what="it is over")
        sse.publish("chat", "2")
        page.reconnect()
        sse.publish("chat", "3")
        assert [event.data for event in page.events(2)] == ["2", "3"]
        sse.end("chat")
        assert [event.event for event in page] == ["penstock.end"]
        assert page.reconnect().status == 204


def test_our_client_for_coroutines_does_too(sse: Penstock) -> None:
    async def test() -> None:
        async with AsyncASGIClient(app_of(sse)) as client, client.stream("/of-def") as page:
            await sse.apublish("chat", "1")
            assert (await page.next_event()).data == "1"
            await page.drop()
            await sse.apublish("chat", "2")
            await page.reconnect()
            assert (await page.next_event()).data == "2"

    asyncio.run(test())


def test_an_app_may_be_started_up_again_and_again(sse: Penstock) -> None:
    """As a fixture does that makes a client for each test of one app."""
    app = app_of(sse)
    for number in range(3):
        with test_client(app) as client:
            sse.publish("chat", str(number))
            assert data(client.get("/events").text) == list(map(str, range(number + 1)))
        with pytest.raises(Closed):
            sse.publish("chat", "too late")


def test_a_dependency_may_be_overridden(sse: Penstock) -> None:
    app = app_of(sse)
    with Penstock("memory:") as other:
        app.dependency_overrides[sse] = lambda: other
        other.publish("chat", "the other's")
        assert data(test_client(app).get("/events").text) == ["the other's"]
        assert data(test_client(app).get("/of-def").text) == []
