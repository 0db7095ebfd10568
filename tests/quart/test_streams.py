"""A stream as a response of a Quart app. In this process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from quart import Blueprint, Quart, Request, Response, abort, request, session
from quart.typing import ResponseReturnValue

from penstock import Event
from penstock.core.parser import Parser
from penstock.engine import notices
from penstock.errors import ConfigError
from penstock.quart import Penstock
from penstock.testing import ASGIClient, AsyncASGIClient, ProtocolFault
from tests.support.wait import DEADLINE_S, wait_for

SPEC_VERSIONS = ["2.3", "2.4"]  # with the latter a send to a client that left is an error
FRIEND = {"Origin": "https://friend.example"}


@pytest.fixture
def app() -> Quart:
    app = Quart("shop")
    app.secret_key = "secret"
    app.config.update(
        PENSTOCK_URL="memory:",
        PENSTOCK_KEEP_ALIVE=3600,
        PENSTOCK_MAX_STREAMS=1,  # so that a place that is not given back is missed
        PENSTOCK_CORS_ORIGINS=[FRIEND["Origin"]],
    )
    return app


@pytest.fixture
def sse(app: Quart) -> Iterator[Penstock]:
    sse = Penstock(app)

    @app.get("/events")
    async def events() -> Response:
        return sse.stream("chat")

    yield sse
    sse.bus.close()


@pytest.fixture
def client(app: Quart, sse: Penstock) -> Iterator[ASGIClient]:
    with ASGIClient(app, timeout=DEADLINE_S) as client:
        yield client


def all_places_are_free(sse: Penstock, client: ASGIClient) -> None:
    """A stream is none of a bounded answer only if there is a place for it."""
    wait_for(lambda: sse.stats().streams == 0, what="all streams are over")
    polls = sse.stats().polls

    def opens() -> bool:  # the place of one that came to nothing may still be on its way back
        nonlocal polls
        with client.stream("/events") as page:
            sse.publish("chat", "hi")
            bounded, polls = sse.stats().polls > polls, sse.stats().polls
            return not bounded and page.next_event().data == "hi"

    wait_for(opens, what="there is a place")


# The response


def test_headers_cookies_and_the_session_of_the_view_go_out(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    @app.get("/mine")
    async def mine() -> Response:
        session["seen"] = "yes"
        response = sse.stream("chat")
        response.headers["X-Room"] = "7"
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    with client.stream("/mine", headers=FRIEND) as page:
        cookies = {cookie.partition("=")[0] for cookie in page.headers.get_all("Set-Cookie")}
        assert cookies == {"session", "one", "two"}
        assert page.headers["X-Room"] == "7"
        assert page.headers.get_all("Content-Type") == ["text/event-stream; charset=utf-8"]
        assert page.headers["Content-Length"] is None
        assert page.headers["Access-Control-Allow-Origin"] == FRIEND["Origin"]
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"


def test_what_comes_after_a_request_adds_to_whatever_the_answer_is(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    seen: list[tuple[int, str | None]] = []

    @app.after_request
    async def see(response: Response) -> Response:
        seen.append((response.status_code, response.mimetype))
        response.headers["X-After"] = "yes"
        return response

    end = sse.end("chat")
    answer = client.stream("/events", last_event_id=str(end))
    assert (answer.status, answer.body, answer.headers["X-After"]) == (204, b"", "yes")
    assert answer.headers["Content-Type"] is None
    sse.publish("chat", "it begins again")
    with client.stream("/events") as page:
        assert (page.status, page.headers["X-After"]) == (200, "yes")
    assert seen == [(200, "text/event-stream")] * 2


def test_nothing_of_the_request_is_held_while_a_stream_is_open(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    torn_down = threading.Event()

    @app.teardown_request
    async def tear_down(error: BaseException | None) -> None:
        torn_down.set()

    with client.stream("/events") as page:
        assert torn_down.wait(DEADLINE_S)
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"


def test_a_stream_takes_longer_than_responses_may(app: Quart, sse: Penstock) -> None:
    app.config["RESPONSE_TIMEOUT"] = 0.05

    @app.get("/ticks")
    async def ticks() -> Any:
        async def forever() -> Any:
            while True:
                yield b"data: tick\n\n"
                await asyncio.sleep(0.001)

        return forever(), {"Content-Type": "text/event-stream"}

    with ASGIClient(app, timeout=DEADLINE_S) as client, client.stream("/events") as page:
        for _ in range(3):
            with pytest.raises(ProtocolFault, match="without the last body"):
                client.stream("/ticks").wait_closed()  # Quart cuts it off
        sse.publish("chat", "hi")
        assert page.next_event().data == "hi"


def test_a_view_of_a_blueprint_streams(app: Quart, sse: Penstock, client: ASGIClient) -> None:
    room = Blueprint("room", __name__, url_prefix="/rooms")

    @room.get("/<name>/events")
    async def events(name: str) -> Response:
        return sse.stream(f"room/{name}", last=1)

    app.register_blueprint(room)
    sse.publish("room/7", "hi")
    with client.stream("/rooms/7/events") as page:
        assert page.next_event().data == "hi"


def test_a_stream_is_returned_by_any_view_and_may_be_awaited(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    threads: list[int] = []

    @app.get("/in-a-thread")
    def in_a_thread() -> Response:
        threads.append(threading.get_ident())
        return sse.stream("chat", last=1)

    @app.get("/awaited")
    async def awaited() -> Response:
        threads.append(threading.get_ident())
        response = await sse.stream("chat", last=1)
        response.headers["X-Room"] = "7"
        return response

    sse.publish("chat", "hi")
    for path in ("/in-a-thread", "/awaited"):
        with client.stream(path) as page:
            assert page.next_event().data == "hi"
            assert page.headers["X-Room"] == ("7" if path == "/awaited" else None)
        all_places_are_free(sse, client)
    assert len(set(threads)) == 2


def test_arguments_that_cannot_work_are_told(app: Quart, sse: Penstock, client: ASGIClient) -> None:
    @app.get("/checked")
    async def checked() -> ResponseReturnValue:
        try:
            return sse.stream("chat", last=1, after="earliest")
        except ConfigError as error:
            return str(error), 400

    assert client.stream("/checked").status == 400


def test_head_opens_no_stream(sse: Penstock, client: ASGIClient) -> None:
    answer = client.stream("/events", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    all_places_are_free(sse, client)


# Its end


@pytest.mark.parametrize("spec_version", SPEC_VERSIONS)
def test_a_client_that_leaves_a_silent_stream_is_noticed(
    app: Quart, sse: Penstock, spec_version: str
) -> None:
    with ASGIClient(app, spec_version=spec_version, timeout=DEADLINE_S) as client:
        for _ in range(3):
            with client.stream("/events") as page:
                sse.publish("chat", "hi")
                assert page.next_event().data == "hi"
            all_places_are_free(sse, client)


def test_it_is_told_once_that_a_stream_is_over(app: Quart, sse: Penstock, client: ASGIClient) -> None:
    told: list[int] = []

    def note() -> None:
        told.append(threading.get_ident())

    loops: list[int] = []

    @app.get("/noted")
    async def noted() -> Response:
        loops.append(threading.get_ident())
        return sse.stream("chat", on_close=note)

    with client.stream("/noted") as page:
        sse.publish("chat", "hi")
        page.next_event()
        assert not told
    wait_for(lambda: told, what="it is told")
    client.stream("/noted", method="HEAD")
    wait_for(lambda: len(told) == 2, what="so it is where there was none")
    all_places_are_free(sse, client)
    assert len(told) == 2
    assert not set(told) & set(loops), "it may block"


async def fails(response: Response) -> None:
    raise RuntimeError("the view failed")


async def is_another(response: Response) -> ResponseReturnValue:
    return "nothing for you", 403


@pytest.mark.parametrize("then", [fails, is_another])
def test_a_stream_that_is_never_sent_gives_its_place_back(
    app: Quart, sse: Penstock, client: ASGIClient, then: Callable[[Response], Awaitable[Any]]
) -> None:
    told: list[str] = []

    @app.get("/never-sent")
    async def never_sent() -> Any:
        return await then(sse.stream("chat", on_close=lambda: told.append("over")))

    for number in range(1, 4):
        assert client.stream("/never-sent").status in (403, 500)
        wait_for(lambda number=number: len(told) == number, what="it is told")  # type: ignore[misc]
        all_places_are_free(sse, client)


@pytest.mark.parametrize("then", [fails, is_another])
def test_a_stream_that_something_else_takes_the_place_of_gives_its_place_back(
    app: Quart, sse: Penstock, client: ASGIClient, then: Callable[[Response], Awaitable[Any]]
) -> None:
    @app.after_request
    async def after(response: Response) -> Any:
        if "instead" not in request.args:
            return response
        return await app.make_response(await then(response))

    for _ in range(3):
        assert client.stream("/events?instead=yes").status in (403, 500)
        all_places_are_free(sse, client)


def test_a_hook_that_makes_a_refusal_of_a_stream_has_the_last_word(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    told = threading.Event()

    @app.get("/told")
    async def tell() -> Response:
        return sse.stream("chat", on_close=told.set)

    @app.after_request
    async def refuse(response: Response) -> Response:
        if request.path == "/told":
            response.status_code = 403
        return response

    answer = client.stream("/told")
    assert (answer.status, answer.body) == (403, b"")
    assert answer.headers["Penstock-Stream"] is None
    assert told.wait(DEADLINE_S)
    all_places_are_free(sse, client)


def test_a_client_that_leaves_before_the_stream_begins_takes_no_place(app: Quart, sse: Penstock) -> None:
    told: list[str] = []
    waits = asyncio.Event()

    @app.get("/waits")
    async def waiting() -> Any:
        response = sse.stream("chat", on_close=lambda: told.append("over"))
        waits.set()
        await asyncio.Event().wait()
        return response

    async def test() -> None:
        async with AsyncASGIClient(app, timeout=DEADLINE_S) as client:
            for number in range(1, 4):
                waits.clear()
                leaving = asyncio.Event()
                request = asyncio.create_task(leave(app, leaving))
                await waits.wait()
                leaving.set()
                await request
                await asyncio.to_thread(wait_for, lambda number=number: len(told) == number)
                async with client.stream("/events") as page:
                    await sse.apublish("chat", "hi")
                    assert (await page.next_event()).data == "hi"
                    assert sse.stats().polls == 0

    asyncio.run(test())


async def leave(app: Quart, leaving: asyncio.Event) -> None:
    """Ask, and leave before there is an answer."""
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await leaving.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    scope: Any = {
        "type": "http", "method": "GET", "scheme": "http", "path": "/waits", "query_string": b"",
        "headers": [], "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    send_: Any = send
    receive_: Any = receive
    await app(scope, receive_, send_)


# Quart's own client


def test_quart_s_own_client_gets_what_there_is_and_an_end(
    app: Quart, sse: Penstock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_last", {})  # it is told once a minute, and there may have been other tests

    async def test() -> None:
        positions = await sse.apublish_many([Event("chat", str(number)) for number in range(3)])
        quarts = app.test_client()
        missed = await quarts.get("/events", headers={"Last-Event-ID": str(positions[0])})
        events = [each for each in Parser().feed(await missed.data) if each.event == "message"]
        assert [event.data for event in events] == ["1", "2"]
        assert (await quarts.head("/events")).status_code == 200
        async with quarts.request("/events") as connection:
            await connection.send_complete()
        assert b"penstock.position" in await (await connection.as_response()).data

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    told = [record.message for record in caplog.records if "Quart's test client" in record.message]
    assert len(told) == 1


def test_quart_s_own_client_may_live_with_the_app(app: Quart, sse: Penstock) -> None:
    async def test() -> None:
        for _ in range(2):
            async with app.test_app() as served:
                await sse.apublish("chat", "hi")
                assert (await served.test_client().get("/events")).status_code == 200

    asyncio.run(test())


# Channels that the client names


async def awaited(request: Request, channel: str) -> bool:
    return channel.startswith("open")


def called(request: Request, channel: str) -> bool:
    assert request.path == "/named"
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


@pytest.mark.parametrize("authorize", AUTHORIZE)
def test_a_client_gets_what_it_may_read_and_no_more(
    app: Quart, sse: Penstock, client: ASGIClient, authorize: str
) -> None:
    app.add_url_rule("/named", "named", sse.endpoint(AUTHORIZE[authorize], last=1))
    sse.publish("open/1", "hi")
    with client.stream("/named?channel=open/1&channel=open/2") as page:
        assert page.next_event().data == "hi"
    for query, status in (("channel=secret", 403), ("channel=open/1&channel=secret", 403), ("", 400)):
        refused = client.stream(f"/named?{query}", headers=FRIEND)
        assert refused.status == status
        assert refused.headers["Access-Control-Allow-Origin"] == FRIEND["Origin"]
        assert refused.headers["Content-Length"] == str(len(refused.body))
    assert client.stream("/named?channel=open", method="POST").status == 405


def test_an_authorize_that_is_no_coroutine_function_runs_in_a_thread_and_sees_the_session(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    threads: list[int] = []

    @app.get("/login/<name>")
    async def login(name: str) -> str:
        session["name"] = name
        threads.append(threading.get_ident())
        return name

    def authorize(request: Request, channel: str) -> bool:
        threads.append(threading.get_ident())
        return channel == f"user/{session.get('name')}"

    app.add_url_rule("/named", "named", sse.endpoint(authorize))
    cookie = client.stream("/login/ada").headers["Set-Cookie"] or ""
    cookies = {"session": cookie.partition(";")[0].removeprefix("session=")}
    assert client.stream("/named?channel=user/ada", cookies=cookies).status == 200
    assert client.stream("/named?channel=user/ada").status == 403
    assert client.stream("/named?channel=user/eve", cookies=cookies).status == 403
    loop, *others = threads
    assert loop not in others


async def unknown(request: Request, channel: str) -> bool:
    abort(401, "Who are you?")


def unknown_in_a_thread(request: Request, channel: str) -> bool:
    abort(401, "Who are you?")


@pytest.mark.parametrize("authorize", [unknown, unknown_in_a_thread])
def test_what_authorize_aborts_with_is_the_answer(
    app: Quart, sse: Penstock, client: ASGIClient, authorize: Callable[[Request, str], object]
) -> None:
    @app.errorhandler(401)
    async def tell(error: Exception) -> ResponseReturnValue:
        return {"told": "log in"}, 401

    app.add_url_rule("/named", "named", sse.endpoint(authorize))
    answer = client.stream("/named?channel=chat")
    assert (answer.status, answer.body.strip()) == (401, b'{"told":"log in"}')


async def of_header(request: Request) -> str | None:
    return request.headers.get("X-User")


async def past(request: Request) -> float:
    return time.time() - 1


def test_whose_a_stream_is_and_until_when_is_said_of_the_request(
    app: Quart, sse: Penstock, client: ASGIClient
) -> None:
    app.add_url_rule("/of", "of", sse.endpoint(awaited, user=of_header))
    app.add_url_rule("/of-old", "of-old", sse.endpoint(awaited, until=lambda request: time.time() - 1))
    app.add_url_rule("/past", "past", sse.endpoint(awaited, until=past))
    with client.stream("/of?channel=open", headers={"X-User": "ada"}) as page:
        sse.kick("ben")
        sse.kick("ada")
        assert page.next_event().json() == {"reason": "kicked"}
    for path in ("/of-old", "/past"):
        with client.stream(f"{path}?channel=open") as page:
            assert page.next_event().json() == {"reason": "expired"}
            page.wait_closed()
