"""Channels that the client names, where and however the endpoint stands. In this process."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message

from penstock.errors import ConfigError
from penstock.starlette import Penstock
from penstock.testing import ASGIClient
from tests.support.wait import DEADLINE_S, wait_for

FRIEND = {"Origin": "https://friend.example"}


@pytest.fixture
def sse() -> Iterator[Penstock]:
    with Penstock("memory:", keep_alive=3600, cors_origins=[FRIEND["Origin"]]) as bus:
        yield bus


def client_of(app: ASGIApp) -> ASGIClient:
    return ASGIClient(app, timeout=DEADLINE_S)


async def tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"told": error.detail}, error.status_code, error.headers)


def within(sse: Penstock, route: Route | Mount) -> Starlette:
    return Starlette(routes=[route], exception_handlers={HTTPException: tell}, lifespan=sse.lifespan)


# Where an endpoint may stand; all of these answer requests for "/events".
PLACES: dict[str, Callable[[Penstock, ASGIApp], ASGIApp]] = {
    "route": lambda sse, endpoint: within(sse, Route("/events", endpoint)),
    "mount": lambda sse, endpoint: within(sse, Mount("/events", endpoint)),
    "before": lambda sse, endpoint: sse.bypass(within(sse, Route("/", endpoint)), "/events", endpoint),
    "before-a-mounted-app": lambda sse, endpoint: Starlette(
        routes=[Mount("/", sse.bypass(within(sse, Route("/", endpoint)), "/events", endpoint))],
        lifespan=sse.lifespan,
    ),
    "alone": lambda sse, endpoint: endpoint,
}
Serve = Callable[[ASGIApp], ASGIClient]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(sse: Penstock, place: str) -> Serve:
    return lambda endpoint: ASGIClient(
        PLACES[place](sse, endpoint), lifespan=place != "alone", timeout=DEADLINE_S
    )


async def awaited(request: Request, channel: str) -> bool:
    return channel.startswith("open")


def called(request: Request, channel: str) -> bool:
    return channel.startswith("open")


class Object:
    async def __call__(self, request: Request, channel: str) -> bool:
        return channel.startswith("open")


AUTHORIZE: dict[str, Callable[[Request, str], object]] = {
    "coroutine": awaited,
    "function": called,
    "object": Object(),
    "lambda": lambda request, channel: awaited(request, channel),
}


def named(client: ASGIClient, *channels: str, **more: Any) -> Any:
    """Ask for channels; a mount answers with the slash after its path."""
    for at in ("/events", "/events/"):
        answer = client.stream(at, query={"channel": list(channels)}, **more)
        if answer.status != 307:
            return answer
    return answer


@pytest.mark.parametrize("authorize", AUTHORIZE)
def test_a_client_gets_what_it_may_read_and_no_more(sse: Penstock, serve: Serve, authorize: str) -> None:
    with serve(sse.endpoint(AUTHORIZE[authorize], last=1)) as client:
        sse.publish("open/1", "hi")
        with named(client, "open/1") as page:
            assert page.next_event().data == "hi"
        for asked, status in ((["secret"], 403), (["open/1", "secret"], 403), ([], 400), (["**"], 400)):
            refused = named(client, *asked, headers=FRIEND)
            assert refused.status == status
            assert refused.headers["Access-Control-Allow-Origin"] == FRIEND["Origin"]


def test_an_authorize_that_is_no_coroutine_function_does_not_block_the_loop(sse: Penstock) -> None:
    loops: list[int] = []
    asked: list[int] = []

    async def note(request: Request) -> Response:
        loops.append(threading.get_ident())
        return Response()

    def authorize(request: Request, channel: str) -> bool:
        asked.append(threading.get_ident())
        return True

    app = Starlette(routes=[Route("/note", note), Route("/events", sse.endpoint(authorize))])
    with client_of(app) as client:
        client.stream("/note")
        with named(client, "chat"):
            assert len(asked) == 1
            assert asked != loops


async def unknown(request: Request, channel: str) -> bool:
    raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})


def unknown_in_a_thread(request: Request, channel: str) -> bool:
    raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})


@pytest.mark.parametrize("authorize", [unknown, unknown_in_a_thread])
def test_an_http_exception_of_authorize_is_the_answer(
    sse: Penstock, serve: Serve, authorize: Callable[[Request, str], object], place: str
) -> None:
    with serve(sse.endpoint(authorize)) as client:
        answer = named(client, "chat", headers=FRIEND)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        if place != "alone":
            assert answer.body == b'{"told":"Who are you?"}', "the app's handler has the last word"
        else:
            assert answer.body == b"Who are you?\n"
            assert answer.headers["Access-Control-Allow-Origin"] == FRIEND["Origin"]


def test_what_else_authorize_raises_is_an_error_and_no_stream(sse: Penstock, serve: Serve) -> None:
    async def fails(request: Request, channel: str) -> bool:
        raise ValueError("the database is away")

    with pytest.raises(ValueError, match="the database is away"), serve(sse.endpoint(fails)) as client:
        named(client, "chat")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_stream_is_read_by_get_alone(sse: Penstock, method: str) -> None:
    with client_of(Starlette(routes=[Route("/events", sse.endpoint(awaited))])) as client:
        answer = named(client, "open", method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_a_websocket_is_closed(sse: Penstock, place: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = PLACES[place](sse, sse.endpoint(awaited))
    scope = {"type": "websocket", "path": "/events", "headers": [], "query_string": b"channel=open"}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


# Whose it is, and until when


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("X-User")
        return (AuthCredentials(["reader"]), SimpleUser(name)) if name else None


def of_session(request: Request) -> str:
    name: str = request.session["name"]
    return name


async def of_user(request: Request) -> str:
    name: str = request.user.display_name
    return name


USERS: dict[str, Callable[[Request], str | Awaitable[str]]] = {"function": of_session, "coroutine": of_user}


@pytest.mark.parametrize("user", USERS)
def test_what_middlewares_bring_is_there_when_it_is_decided(sse: Penstock, user: str) -> None:
    def authorize(request: Request, channel: str) -> bool:
        return request.user.is_authenticated and channel == f"user/{request.session['name']}"

    app = Starlette(
        routes=[Route("/events", sse.endpoint(authorize, user=USERS[user]))],
        middleware=[
            Middleware(SessionMiddleware, secret_key="secret"),
            Middleware(AuthenticationMiddleware, backend=ByHeader()),
        ],
    )
    who = {"headers": {"X-User": "ada"}, "cookies": {"session": session_of("ada")}}
    with client_of(app) as client, named(client, "user/ada", **who) as page:
        assert named(client, "user/ada", cookies=who["cookies"]).status == 403
        assert named(client, "user/eve", **who).status == 403
        sse.kick("eve")
        sse.publish("user/ada", "hi")
        assert page.next_event().data == "hi"
        sse.kick("ada")
        assert page.next_event().json() == {"reason": "kicked"}
        page.wait_closed()


def session_of(name: str) -> str:
    """The cookie of a session, as SessionMiddleware writes it."""
    data = base64.b64encode(json.dumps({"name": name}).encode())
    return TimestampSigner("secret").sign(data).decode()


async def past(request: Request) -> float:
    return time.time() - 1


@pytest.mark.parametrize("until", [past, lambda request: time.time() - 1], ids=["coroutine", "function"])
def test_a_right_ends_when_it_is_said_of_the_request(
    sse: Penstock, until: Callable[[Request], float | Awaitable[float]]
) -> None:
    app = Starlette(routes=[Route("/events", sse.endpoint(awaited, until=until))])
    with client_of(app) as client, named(client, "open") as page:
        notice = page.next_event()
        assert (notice.event, notice.json()) == ("penstock.revoked", {"reason": "expired"})
        page.wait_closed()


def test_arguments_that_cannot_work_are_told_when_it_is_made(sse: Penstock) -> None:
    authorize: Any = "everybody"
    with pytest.raises(ConfigError, match="authorize is called with a request and a channel"):
        sse.endpoint(authorize)
    with pytest.raises(ConfigError, match="last is a whole number"):
        sse.endpoint(awaited, last=-1)


# A name that nobody thought of


def test_the_order_and_number_of_names_do_not_matter(sse: Penstock, serve: Serve) -> None:
    with serve(sse.endpoint(awaited)) as client, named(client, "open/2", "open/1", "open/2") as page:
        sse.publish("open/1", "1")
        sse.publish("open/2", "2")
        assert [event.data for event in page.events(2)] == ["1", "2"]
        wait_for(lambda: sse.stats().delivered == 2, what="each came once")
