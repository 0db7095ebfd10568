"""A stream as a response of a Starlette app, and the app's life. In this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from penstock import Event
from penstock.core.parser import Parser
from penstock.engine import notices
from penstock.errors import Closed, ConfigError
from penstock.log.memory import MemoryLog
from penstock.starlette import Penstock
from penstock.testing import ASGIClient, AsyncASGIClient
from tests.support.wait import DEADLINE_S, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer releases would rather have another httpx
    from starlette.testclient import TestClient

SPEC_VERSIONS = ["2.3", "2.4"]  # with the latter a send to a client that left is an error


@pytest.fixture
def sse() -> Iterator[Penstock]:
    with Penstock("memory:", keep_alive=3600, cors_origins=["https://friend.example"]) as bus:
        yield bus


def app_of(sse: Penstock, answer: Callable[[Request], Response], *middlewares: Middleware) -> Starlette:
    async def events(request: Request) -> Response:
        return answer(request)

    return Starlette(routes=[Route("/events", events)], middleware=middlewares, lifespan=sse.lifespan)


def client_of(app: Starlette, spec_version: str = "2.3") -> ASGIClient:
    return ASGIClient(app, spec_version=spec_version, timeout=DEADLINE_S)


def no_stream_is_left(sse: Penstock) -> None:
    wait_for(lambda: sse.stats().streams == 0, what="all streams are over")


# The response


def test_headers_and_cookies_of_the_response_go_out_with_the_stream(sse: Penstock) -> None:
    def answer(request: Request) -> Response:
        response = sse.stream("chat", headers={"X-Room": "7", "Cache-Control": "max-age=60"})
        response.headers["X-More"] = "yes"
        response.headers["Vary"] = "Cookie"
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    origin = {"Origin": "https://friend.example"}
    with client_of(app_of(sse, answer)) as client, client.stream("/events", headers=origin) as page:
        assert (page.headers["X-Room"], page.headers["X-More"]) == ("7", "yes")
        cookies = page.headers.get_all("Set-Cookie")
        assert [cookie.partition(";")[0] for cookie in cookies] == ["one=1", "two=2"]
        assert sorted(page.headers.get_all("Vary")) == ["Cookie", "Origin"]
        assert page.headers.get_all("Cache-Control") == ["no-cache, no-transform"], "a stream is not kept"
        assert page.headers["Content-Length"] is None
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"


@pytest.mark.parametrize("spec_version", SPEC_VERSIONS)
def test_the_background_task_runs_when_the_client_has_left(sse: Penstock, spec_version: str) -> None:
    ran = threading.Event()
    app = app_of(sse, lambda request: sse.stream("chat", background=BackgroundTask(ran.set)))
    with client_of(app, spec_version) as client, client.stream("/events") as page:
        sse.publish("chat", "hi")
        page.next_event()
        assert not ran.is_set()
        page.drop()
        assert ran.is_set()


def test_a_route_that_is_no_coroutine_function_streams_too(sse: Penstock) -> None:
    def events(request: Request) -> Response:
        return sse.stream("chat", last=1)

    sse.publish("chat", "hi")
    with client_of(Starlette(routes=[Route("/events", events)])) as client:
        assert client.stream("/events").next_event().data == "hi"


def test_an_app_within_an_app_streams_too(sse: Penstock) -> None:
    within = app_of(sse, lambda request: sse.stream(f"user/{request.path_params['user']}"))
    app = Starlette(routes=[Mount("/users/{user}", app=within)], lifespan=sse.lifespan)
    with client_of(app) as client, client.stream("/users/ada/events") as page:
        sse.publish("user/ada", "a letter")
        assert page.next_event().data == "a letter"


def test_arguments_that_cannot_work_are_told_by_the_call_itself(sse: Penstock) -> None:
    with pytest.raises(ConfigError, match="a stream begins after a position or"):
        sse.stream("chat", last=1, after="earliest")


# Middlewares


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["X-Base"] = "was here"
    return response


BASE = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
GZIP = Middleware(GZipMiddleware, minimum_size=0)
MIDDLEWARES = {
    "none": (),
    "base": (BASE,),
    "base-base": (BASE, BASE),
    "gzip": (GZIP,),
    "base-gzip-base": (BASE, GZIP, BASE),
}


@pytest.mark.parametrize("spec_version", SPEC_VERSIONS)
@pytest.mark.parametrize("names", MIDDLEWARES)
def test_a_stream_passes_middlewares_as_it_is_and_notices_its_client_leave(
    sse: Penstock, names: str, spec_version: str
) -> None:
    app = app_of(sse, lambda request: sse.stream("chat"), *MIDDLEWARES[names])
    with client_of(app, spec_version) as client:
        page = client.stream("/events", headers={"Accept-Encoding": "gzip"})
        assert page.headers["Content-Encoding"] in (None, "identity")  # the latter for older releases
        assert (page.headers["X-Base"] == "was here") is ("base" in names)
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"
        page.drop()  # nothing is published any more, and no keep-alive comes
        no_stream_is_left(sse)


@pytest.mark.parametrize("names", MIDDLEWARES)
def test_a_drain_ends_a_stream_in_good_order_through_middlewares(sse: Penstock, names: str) -> None:
    app = app_of(sse, lambda request: sse.stream("chat"), *MIDDLEWARES[names])
    with client_of(app) as client, client.stream("/events") as page:
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"
        assert sse.drain(DEADLINE_S)
        page.wait_closed()  # it would raise if the last body were missing
        assert 1_000 <= (page.retry_ms or 0) <= 10_000


# The life of an app


class Held(MemoryLog):
    """A log whose end takes as long as somebody says."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = threading.Event()
        self.go_on = threading.Event()
        self.in_time = False

    def close(self) -> None:
        self.closing.set()
        self.in_time = self.go_on.wait(DEADLINE_S)
        super().close()


def test_the_end_of_the_life_closes_the_log_and_does_not_block_the_loop() -> None:
    log = Held()
    sse = Penstock(lambda: log)

    async def test() -> None:
        async def goes_on() -> None:
            while not log.closing.is_set():
                await asyncio.sleep(0.001)
            log.go_on.set()

        async with AsyncASGIClient(Starlette(lifespan=sse.lifespan), timeout=2 * DEADLINE_S):
            await sse.apublish("chat", "hi")
            going = asyncio.create_task(goes_on())
        await going

    asyncio.run(test())
    assert log.in_time, "the loop went on while the log was being closed"
    with pytest.raises(Closed):
        sse.publish("chat", "too late")


def test_the_life_is_within_that_of_the_app(sse: Penstock) -> None:
    told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with sse.lifespan(app):
            yield {"greeting": "hello"}
            told.append(str(await sse.apublish("chat", "the app stops")))

    def greet(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    with client_of(Starlette(routes=[Route("/", greet)], lifespan=lifespan)) as client:
        assert client.stream("/").body == b"hello"
    assert told[0].endswith(":1")
    with pytest.raises(Closed):
        sse.publish("chat", "too late")


def test_an_app_lives_as_often_as_it_is_served(sse: Penstock) -> None:
    app = app_of(sse, lambda request: sse.stream("chat", after="earliest"))
    for number in range(3):
        with client_of(app) as client, client.stream("/events") as page:
            sse.publish("chat", str(number))
            assert page.next_event().data == str(number)
            assert not sse.stats().draining
        with pytest.raises(Closed):
            sse.publish("chat", "too late")


def test_a_log_in_a_file_is_there_again_in_the_next_life(tmp_path: Path) -> None:
    sse = Penstock(f"sqlite:///{tmp_path}/penstock.db")
    app = app_of(sse, lambda request: sse.stream("chat", after="earliest"))
    with client_of(app):
        sse.publish("chat", "1")
    with client_of(app) as client, client.stream("/events") as page:
        assert page.next_event().data == "1"


# Starlette's own client


def test_starlettes_client_gets_what_there_is_and_an_end(
    sse: Penstock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_last", {})  # it is told once a minute, and there may have been other tests
    app = app_of(sse, lambda request: sse.stream("chat", after="earliest"), BASE)
    with caplog.at_level(logging.WARNING), TestClient(app) as client:
        positions = sse.publish_many([Event("chat", str(number)) for number in range(3)])
        answer = client.get("/events")
        assert answer.headers["X-Base"] == "was here"
        events = [each for each in Parser().feed(answer.content) if each.event == "message"]
        assert [event.data for event in events] == ["0", "1", "2"]
        again = client.get("/events", headers={"Last-Event-ID": str(positions[1])})
        assert "data: 2\n" in again.text
        assert "data: 1\n" not in again.text
        assert client.head("/events").status_code == 200
    told = [record.message for record in caplog.records if "Starlette's TestClient" in record.message]
    assert len(told) == 1
