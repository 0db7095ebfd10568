"""The clients with what they are for: Flask and Starlette, streams of Penstock and streams of others."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, redirect, session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse
from starlette.responses import StreamingResponse
from starlette.routing import Route

from penstock import Penstock as Bus
from penstock.doors.asgi import Door
from penstock.doors.ask import check_ask
from penstock.flask import Penstock
from penstock.log.base import Retention
from penstock.testing import ASGIClient, AsyncASGIClient, StreamTimeout, WSGIClient
from tests.support.wait import wait_for
from tests.testing.apps import threads_of_clients

NEVER_S = 3600.0  # for a keep-alive that does not come to the aid


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = Flask("shop")
    app.testing = True
    app.secret_key = "secret"
    app.config.update(PENSTOCK_URL=f"sqlite:///{tmp_path}/penstock.db", PENSTOCK_KEEP_ALIVE=NEVER_S)
    sse = Penstock(app)

    @app.get("/events/<channel>")
    def events(channel: str) -> Response:
        return sse.stream(channel)

    yield app
    sse.bus.close()


@pytest.fixture
def bus(app: Flask) -> Bus:
    bus: Bus = app.extensions["penstock"].bus
    return bus


# Flask, with Penstock


def test_who_comes_back_gets_exactly_what_was_missed(app: Flask, bus: Bus) -> None:
    with WSGIClient(app).stream("/events/chat") as stream:
        sent, taken = 0, []
        for turn in range(20):
            for _ in range(3):
                bus.publish("chat", str(sent))
                bus.publish("other", "x")
                sent += 1
            taken += stream.events(turn % 3)
            if turn % 4 == 0:
                stream.drop()
                bus.publish("chat", str(sent))
                sent += 1
            stream.reconnect()
        taken += stream.events(sent - len(taken))
        with pytest.raises(StreamTimeout):
            stream.next_event(0.2)
    assert [event.data for event in taken] == [str(number) for number in range(sent)]
    assert not [event for event in taken if event.event != "message"]


def test_who_leaves_before_the_first_event_misses_nothing(app: Flask, bus: Bus) -> None:
    with WSGIClient(app).stream("/events/chat") as stream:
        stream.drop()
        bus.publish("chat", "missed")
        assert stream.reconnect().next_event().data == "missed"


def test_a_gap_is_an_event(app: Flask) -> None:
    with Bus(app.config["PENSTOCK_URL"]) as other:
        first, _, last = (other.publish("chat", data) for data in "123")
        other.engine.log.trim(Retention(None, 1, None))
    client = WSGIClient(app)
    with client.stream("/events/chat", last_event_id=str(first)) as stream:
        gap, event = stream.events(2)
        assert gap.event == "penstock.gap"
        assert gap.json() == {"reason": "expired", "after": str(first), "resumes": gap.id}
        assert (event.data, event.id) == ("3", str(last))
    for stranger, reason in (("another0:7", "epoch"), ("nonsense", "malformed")):
        with client.stream("/events/chat", last_event_id=stranger) as stream:
            assert stream.next_event().json()["reason"] == reason


def test_the_end_is_an_event_and_then_a_204(app: Flask, bus: Bus) -> None:
    with WSGIClient(app).stream("/events/job") as stream:
        bus.publish("job", "done")
        bus.end("job")
        assert [event.event for event in stream] == ["message", "penstock.end"]
        stream.wait_closed()
        assert stream.reconnect().status == 204


def test_who_leaves_an_idle_stream_is_noticed_at_once(app: Flask, bus: Bus) -> None:
    stream = WSGIClient(app).stream("/events/chat")
    assert threads_of_clients() == ["WSGIClient GET /events/chat"]
    stream.drop()
    assert threads_of_clients() == []
    wait_for(lambda: bus.stats().streams == 0)


def test_a_drain_ends_a_stream_and_says_when_to_come_back(app: Flask, bus: Bus) -> None:
    with WSGIClient(app).stream("/events/chat") as stream:
        assert bus.drain(10)
        stream.wait_closed()
        assert list(stream) == []
        assert stream.retry_ms is not None
        assert 1_000 <= stream.retry_ms <= 10_000


def test_a_server_with_one_thread_can_be_played(app: Flask, bus: Bus) -> None:
    bus.publish("chat", "1")
    one = {"wsgi.multithread": False}
    with WSGIClient(app).stream("/events/chat", last_event_id="x", extra=one) as stream:
        assert [event.event for event in stream] == ["penstock.gap"]


def test_a_head_does_not_subscribe(app: Flask, bus: Bus) -> None:
    with WSGIClient(app).stream("/events/chat", method="HEAD") as stream:
        stream.wait_closed()
        assert stream.headers["X-Accel-Buffering"] == "no"
    assert bus.stats().streams == 0


# Flask, with anything


def test_somebody_who_has_logged_in_gets_their_stream(app: Flask) -> None:
    @app.get("/login/<name>")
    def login(name: str) -> Any:
        session["name"] = name
        return redirect("/mine")

    @app.get("/mine")
    def mine() -> Any:
        return Response(f"data: for {session['name']}\n\n", mimetype="text/event-stream")

    browser = app.test_client()
    browser.get("/login/ada")
    cookie = browser.get_cookie("session")
    assert cookie is not None
    with WSGIClient(app).stream("/mine", cookies={"session": cookie.value}) as stream:
        assert stream.next_event().data == "for ada"
    with pytest.raises(KeyError):
        WSGIClient(app).stream("/mine")


def test_a_generator_of_ones_own_is_followed(app: Flask) -> None:
    said: queue.Queue[str] = queue.Queue()

    @app.get("/said")
    def follow() -> Response:
        def pieces() -> Iterator[str]:
            yield ": hello\n\n"
            while True:
                try:
                    yield f"data: {said.get(timeout=0.05)}\n\n"
                except queue.Empty:
                    yield ": nothing yet\n\n"

        return Response(pieces(), mimetype="text/event-stream")

    with WSGIClient(app).stream("/said") as stream:
        said.put("1")
        assert stream.next_event().data == "1"
        said.put("2")
        assert stream.next_event().data == "2"


# Starlette


class Sources:
    """Responses of Starlette's own, and what became of their generators."""

    def __init__(self) -> None:
        self.closed = 0

    async def ticks(self, request: Request) -> StarletteResponse:
        return StreamingResponse(self._tick(0.01), media_type="text/event-stream")

    async def idle(self, request: Request) -> StarletteResponse:
        return StreamingResponse(self._tick(NEVER_S), media_type="text/event-stream")

    async def _tick(self, pause_s: float) -> AsyncIterator[str]:
        try:
            yield ": hello\n\n"
            number = 0
            while True:
                await asyncio.sleep(pause_s)
                number += 1
                yield f"id: {number}\ndata: {number}\n\n"
        finally:
            self.closed += 1

    def app(self, middlewares: int) -> Starlette:
        routes = [Route("/ticks", self.ticks), Route("/idle", self.idle)]
        return Starlette(routes=routes, middleware=[Middleware(Passing)] * middlewares)


class Passing(BaseHTTPMiddleware):
    """It changes nothing; but Starlette's base of it wraps ``receive`` and ``send``."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> StarletteResponse:
        return await call_next(request)


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_streaming_response_is_followed_and_ended(middlewares: int, spec_version: str) -> None:
    sources = Sources()

    async def test() -> None:
        app = sources.app(middlewares)
        client = AsyncASGIClient(app, spec_version=spec_version)
        async with client, client.stream("/ticks") as stream:
            assert [event.id for event in await stream.events(3)] == ["1", "2", "3"]
            await stream.drop()
            assert (await (await stream.reconnect()).next_event()).data == "1", "it keeps no log"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(test())
    assert sources.closed == 2


def test_up_to_2_3_starlette_notices_at_once_that_an_idle_client_left() -> None:
    sources = Sources()
    with ASGIClient(sources.app(0)) as client, client.stream("/idle"):
        pass
    assert sources.closed == 1


def test_from_2_4_on_starlette_does_not_notice_it_and_that_is_told() -> None:
    sources = Sources()
    with ASGIClient(sources.app(0), spec_version="2.4") as client:
        stream = client.stream("/idle")
        with pytest.raises(
            StreamTimeout, match=r"the client left, and 0\.2 s later the app was still at work"
        ):
            stream.drop(0.2)
    assert sources.closed == 1, "it was cancelled"


def test_a_generator_that_starlette_runs_in_a_thread_is_followed() -> None:
    async def follow(request: Request) -> StarletteResponse:
        return StreamingResponse(
            (f"data: {number}\n\n" for number in range(3)), media_type="text/event-stream"
        )

    with ASGIClient(Starlette(routes=[Route("/", follow)])) as client, client.stream("/") as stream:
        assert [event.data for event in stream] == ["0", "1", "2"]


# The door for ASGI


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_over_asgi_who_comes_back_gets_exactly_what_was_missed(tmp_path: Path, spec_version: str) -> None:
    with Bus(f"sqlite:///{tmp_path}/penstock.db", keep_alive=NEVER_S) as bus:
        app = penstock_over_asgi(bus)

        async def test() -> None:
            client = AsyncASGIClient(app, spec_version=spec_version)
            async with client, client.stream("/") as stream:
                await bus.apublish("chat", "1")
                assert (await stream.next_event()).data == "1"
                await stream.drop()
                for data in "234":
                    await bus.apublish("chat", data)
                await stream.reconnect()
                await bus.apublish("chat", "5")
                assert [event.data for event in await stream.events(4)] == ["2", "3", "4", "5"]
                await bus.aend("chat")
                assert [event.event async for event in stream] == ["penstock.end"]
                assert (await stream.reconnect()).status == 204

        asyncio.run(test())
        bus.publish("chat", "the channel begins again")
        with ASGIClient(app, spec_version=spec_version) as client, client.stream("/") as stream:
            bus.publish("chat", "6")
            assert stream.next_event().data == "6"
            stream.drop()
            wait_for(lambda: bus.stats().streams == 0)


def penstock_over_asgi(bus: Bus) -> Callable[[Any, Any, Any], Any]:
    door = Door(lambda: bus.engine)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            last_event_id = dict(scope["headers"]).get(b"last-event-id", b"").decode() or None
            ask = check_ask(["chat"])._replace(last_event_id=last_event_id)
            await door.answer(scope, receive, send, ask)

    return app
