"""A route that stands before an app and its middlewares. In this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from penstock.errors import ConfigError
from penstock.starlette import Penstock
from penstock.testing import ASGIClient
from tests.support.wait import DEADLINE_S


@pytest.fixture
def sse() -> Iterator[Penstock]:
    with Penstock("memory:", keep_alive=3600) as bus:
        yield bus


class Collecting:
    """A middleware that keeps a body until it has the whole of it, and notes whom it saw."""

    def __init__(self, app: ASGIApp, saw: list[str]) -> None:
        self.app = app
        self._saw = saw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._saw.append(f"{scope['type']} {scope.get('path', '')}".strip())
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await send(start)
                    await send({"type": "http.response.body", "body": body})
            else:
                await send(message)

        await self.app(scope, receive, collect)


@pytest.fixture
def saw() -> list[str]:
    return []


async def everybody(request: Request, channel: str) -> bool:
    return True


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def app_of(sse: Penstock, saw: list[str]) -> Starlette:
    routes = [
        Route("/events", sse.endpoint(everybody)),
        Route("/ping", ping, methods=["GET", "POST"]),
        Route("/api/events", ping, methods=["POST"]),
        WebSocketRoute("/events", echo),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Collecting, saw=saw)], lifespan=sse.lifespan)


def client_of(app: ASGIApp) -> ASGIClient:
    return ASGIClient(app, timeout=DEADLINE_S)


def test_a_middleware_that_would_hold_a_stream_does_not_see_it(sse: Penstock, saw: list[str]) -> None:
    app = app_of(sse, saw)
    with client_of(app) as client:
        assert client.stream("/events?channel=chat", method="HEAD").status == 200
    assert saw == ["lifespan", "http /events"], "it does see the same route of the app"
    saw.clear()
    with client_of(sse.bypass(app, "/events", sse.endpoint(everybody))) as client:
        with client.stream("/events?channel=chat") as page:
            sse.publish("chat", "hi")
            assert page.next_event().data == "hi"
        assert client.stream("/ping").body == b"pong"
    assert saw == ["lifespan", "http /ping"]


def test_other_requests_and_scopes_go_on_to_the_app(sse: Penstock, saw: list[str]) -> None:
    app = sse.bypass(app_of(sse, saw), "/api/events", sse.endpoint(everybody))
    with client_of(app) as client:
        for path in ("/api", "/api/", "/api/events/1", "/API/events", "/"):
            assert client.stream(path).status == 404
        assert client.stream("/ping", method="POST").body == b"pong"
    assert saw[:3] == ["lifespan", "http /api", "http /api/"]


@pytest.mark.filterwarnings("ignore")  # of the client of Starlette's
def test_a_websocket_at_the_same_path_is_the_app_s(sse: Penstock, saw: list[str]) -> None:
    from starlette.testclient import TestClient

    app = sse.bypass(app_of(sse, saw), "/events", sse.endpoint(everybody))
    with TestClient(app) as client, client.websocket_connect("/events") as websocket:
        assert websocket.receive_text() == "hello"
    assert saw == ["lifespan", "websocket /events"]


@pytest.mark.parametrize(
    ("root", "path"),
    [("", "/events"), ("/api", "/api/events"), ("/api", "/events"), ("/api/v1", "/api/v1/events")],
)
def test_what_a_proxy_puts_before_the_path_is_no_part_of_it(
    sse: Penstock, saw: list[str], root: str, path: str
) -> None:
    """Servers tell the path with it, and some proxies take it away before."""
    app = sse.bypass(app_of(sse, saw), "/events", sse.endpoint(everybody, last=1))
    sse.publish("chat", "hi")
    with client_of(app) as client:
        page = client.stream(f"{path}?channel=chat", extra={"root_path": root})
        assert page.next_event().data == "hi"
        assert client.stream(f"{root}/events/", extra={"root_path": root}).status == 307, "the app's own"
    assert f"http {path}" not in saw


def test_it_may_stand_below_a_mount(sse: Penstock, saw: list[str]) -> None:
    within = sse.bypass(app_of(sse, saw), "/events", sse.endpoint(everybody, last=1))
    sse.publish("chat", "hi")
    with client_of(Starlette(routes=[Mount("/api", within)])) as client:
        assert client.stream("/api/events?channel=chat").next_event().data == "hi"
        assert client.stream("/api/ping").body == b"pong"
        assert client.stream("/events?channel=chat").status == 404
    assert saw == ["http /api/ping"]


def test_a_route_of_one_s_own_may_stand_there(sse: Penstock, saw: list[str]) -> None:
    async def events(request: Request) -> Response:
        room = request.path_params["room"]
        if room == "secret":
            raise HTTPException(403)
        return sse.stream(f"room/{room}", last=1)

    app = sse.bypass(app_of(sse, saw), "/rooms/{room}/events", events)
    sse.publish("room/7", "hi")
    with client_of(app) as client:
        assert client.stream("/rooms/7/events").next_event().data == "hi"
        assert client.stream("/rooms/7/events", method="HEAD").status == 200
        assert client.stream("/rooms/secret/events").status == 403
        assert client.stream("/rooms/7/events", method="POST").status == 404, "the app has none"
    assert saw == ["lifespan", "http /rooms/7/events"]


def test_several_may_stand_one_before_the_other(sse: Penstock, saw: list[str]) -> None:
    inner = sse.bypass(app_of(sse, saw), "/one", sse.endpoint(everybody))
    outer = sse.bypass(inner, "/two", sse.endpoint(everybody))
    with client_of(outer) as client:
        for path in ("/one", "/two"):
            with client.stream(f"{path}?channel=chat") as page:
                sse.publish("chat", path)
                assert page.next_event().data == path
        assert client.stream("/ping").body == b"pong"
    assert saw == ["lifespan", "http /ping"]


def test_the_app_and_the_state_of_its_life_are_there(sse: Penstock, saw: list[str]) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with sse.lifespan(app):
            yield {"readers": "ada"}

    async def authorize(request: Request, channel: str) -> bool:
        return bool(channel == f"user/{request.state.readers}/{request.app.state.room}")

    app = Starlette(middleware=[Middleware(Collecting, saw=saw)], lifespan=lifespan)
    app.state.room = "7"
    wrapped = Collecting(app, saw)
    with client_of(sse.bypass(wrapped, "/events", sse.endpoint(authorize))) as client:
        assert client.stream("/events?channel=user/ada/7").status == 200
        assert client.stream("/events?channel=user/eve/7").status == 403


def test_an_endpoint_may_bring_the_middlewares_that_it_needs(sse: Penstock, saw: list[str]) -> None:
    async def authorize(request: Request, channel: str) -> bool:
        return "name" in request.session

    endpoint = SessionMiddleware(sse.endpoint(authorize), secret_key="secret")
    with client_of(sse.bypass(app_of(sse, saw), "/events", endpoint)) as client:
        assert client.stream("/events?channel=chat").status == 403


def test_any_asgi_app_may_stand_behind_it(sse: Penstock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse("mine")(scope, receive, send)

    with ASGIClient(sse.bypass(app, "/events", sse.endpoint(everybody)), lifespan=False) as client:
        assert client.stream("/events").status == 400
        assert client.stream("/events/").body == b"mine"


def test_a_path_that_no_request_can_have_is_told(sse: Penstock) -> None:
    with pytest.raises(ConfigError, match="a path begins with '/': 'events'"):
        sse.bypass(Starlette(), "events", sse.endpoint(everybody))
