"""Streams that are coroutines, without a server around: what it may do is done by the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock import Event, Penstock
from penstock.core.parser import Parser
from penstock.doors.asgi import Door
from penstock.doors.ask import check_ask
from penstock.errors import ConfigError
from penstock.testing import AsyncASGIClient
from tests.support.sqlite import something_else_in_its_place
from tests.support.wait import DEADLINE_S, wait_for

SCOPE = {"type": "http", "method": "GET", "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 9)}
SPEC_VERSIONS = ["2.3", "2.4"]  # with the latter a send to a client that left is an error


def app_of(bus: Penstock) -> ASGIApp:
    """Streams of the channel ``chat``, from the beginning for clients without a position."""
    door = Door(lambda: bus.engine)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        last_event_id = headers.get(b"last-event-id")
        ask = check_ask(["chat"], after="earliest")
        last_event_id = last_event_id.decode() if last_event_id is not None else None
        await door.answer(scope, receive, send, ask._replace(last_event_id=last_event_id))

    return app


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["X-Base"] = "was here"
    return response


def within(app: ASGIApp, middlewares: str) -> ASGIApp:
    """The app with these around it, innermost first."""
    for name in middlewares.split():
        app = BaseHTTPMiddleware(app, pass_on) if name == "base" else GZipMiddleware(app, minimum_size=0)
    return app


async def until(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_for, condition, DEADLINE_S, what)


async def no_stream_is_left(bus: Penstock) -> None:
    await until(lambda: bus.stats().streams == 0, "all streams are over")
    mine = asyncio.current_task()
    while rest := asyncio.all_tasks() - {mine}:
        await asyncio.wait(rest, timeout=DEADLINE_S)


class Server:
    """The server's side of one request.

    Attributes:
        sent: what the app has sent.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.taking = asyncio.Event()  # whether the client takes what is sent
        self.taking.set()
        self.left = asyncio.Event()
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    async def until_sent(self, what: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while what not in self.body:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def request_of(
    app: ASGIApp, server: Server, send: Send | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """The task in which the app answers a request; it must be over in the end."""

    async def run() -> None:
        await app(dict(SCOPE), server.receive, send or server.send)

    task = asyncio.create_task(run())
    try:
        yield task
    finally:
        await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.done(), "the app goes on"


def run(test: Callable[[Penstock], Awaitable[None]], url: str = "memory:", **options: object) -> None:
    """Run a coroutine with a bus, and nothing may be left after it."""

    async def main() -> None:
        with Penstock(url, **options) as bus:
            await test(bus)
            await no_stream_is_left(bus)

    asyncio.run(main())


@pytest.mark.parametrize("spec_version", SPEC_VERSIONS)
@pytest.mark.parametrize("middlewares", ["", "base", "base base", "gzip", "base gzip base"])
def test_a_stream_passes_middlewares_and_notices_its_client_leave(
    middlewares: str, spec_version: str
) -> None:
    async def test(bus: Penstock) -> None:
        app = within(app_of(bus), middlewares)
        async with AsyncASGIClient(app, spec_version=spec_version, lifespan=False) as client:
            stream = await client.stream("/events", headers={"Accept-Encoding": "gzip"})
            assert stream.headers["Content-Encoding"] is None
            assert (stream.headers["X-Base"] == "was here") is ("base" in middlewares)
            position = await bus.apublish("chat", "hi")
            event = await stream.next_event()
            assert (event.data, event.id) == ("hi", str(position))
            assert bus.stats().streams == 1
            await stream.drop()
            await no_stream_is_left(bus)

    run(test)


@pytest.mark.parametrize("spec_version", SPEC_VERSIONS)
def test_a_client_that_comes_back_gets_what_it_missed(spec_version: str) -> None:
    async def test(bus: Penstock) -> None:
        async with AsyncASGIClient(app_of(bus), spec_version=spec_version, lifespan=False) as client:
            had = await bus.apublish("chat", "had")
            await bus.apublish("chat", "missed")
            async with client.stream("/events", last_event_id=str(had)) as stream:
                assert (await stream.next_event()).data == "missed"
                assert await asyncio.to_thread(bus.drain)
                await stream.wait_closed()
                assert 1_000 <= (stream.retry_ms or 0) <= 10_000

    run(test)


def test_a_server_that_says_only_by_an_error_that_the_client_left_is_understood() -> None:
    async def test(bus: Penstock) -> None:
        server = Server()
        gone = False

        async def send(message: Message) -> None:
            if gone:
                raise ConnectionResetError("the client has left")
            await server.send(message)

        async with request_of(app_of(bus), server, send) as task:
            await server.until_sent(b"penstock.position")
            gone = True
            await bus.apublish("chat", "nobody is there")
        assert task.exception() is None

    run(test)


def test_a_send_that_its_client_holds_up_is_given_up_when_the_client_leaves() -> None:
    async def test(bus: Penstock) -> None:
        server = Server()
        async with request_of(app_of(bus), server) as task:
            await server.until_sent(b"penstock.position")
            server.taking.clear()
            await bus.apublish("chat", "not taken")
            await bus.apublish("chat", "nor is this")
            await until(lambda: bus.stats().lagging == 1, "it lags")
            assert not task.done()
            server.left.set()
        assert not task.cancelled()
        assert task.exception() is None

    run(test)


def test_a_client_that_takes_nothing_does_not_hold_up_a_drain() -> None:
    async def test(bus: Penstock) -> None:
        server = Server()
        async with request_of(app_of(bus), server) as task:
            await server.until_sent(b"penstock.position")
            server.taking.clear()
            await bus.apublish("chat", "not taken")
            await asyncio.to_thread(bus.drain, DEADLINE_S)
            assert bus.stats().streams == 0
        assert task.exception() is None

    run(test)


def test_a_server_that_cancels_a_waiting_stream_still_sends_its_farewell() -> None:
    async def test(bus: Penstock) -> None:
        server = Server()
        async with request_of(app_of(bus), server) as task:
            position = await bus.apublish("chat", "hi")
            await server.until_sent(b"data: hi\n\n")
            await until(lambda: bus.stats().lagging == 0, "it has all")
            task.cancel()
        assert task.cancelled()
        assert server.complete
        parser = Parser()
        parser.feed(server.body)
        assert parser.last_event_id == str(position)
        assert parser.retry_ms != 3000

    run(test)


def test_a_server_that_cancels_a_stream_in_the_midst_of_a_send_claims_nothing() -> None:
    """The event may not have been sent, and then its position must not be either."""

    async def test(bus: Penstock) -> None:
        server = Server()
        async with request_of(app_of(bus), server) as task:
            await server.until_sent(b"penstock.position")
            server.taking.clear()
            position = await bus.apublish("chat", "not taken")
            await bus.apublish("chat", "nor is this")
            await until(lambda: bus.stats().lagging == 1, "it lags")
            task.cancel()
            await asyncio.wait([task], timeout=DEADLINE_S)
            server.taking.set()
        assert task.cancelled()
        assert f"id: {position}".encode() not in server.body

    run(test)


def test_a_request_that_is_cancelled_before_its_stream_begins_gives_its_place_back() -> None:
    async def test(bus: Penstock) -> None:
        app = app_of(bus)
        for _ in range(3):
            async with request_of(app, Server()) as task:
                await asyncio.sleep(0)  # it runs up to where a thread decides
                task.cancel()
            assert task.cancelled()
        opened = False
        async with asyncio.timeout(DEADLINE_S):
            while not opened:  # a thread may still be at one of those above
                server = Server()
                async with request_of(app, server):
                    await server.until_sent(b"penstock.position")
                    opened = not server.complete
                    server.left.set()

    run(test, max_streams=1)


def test_past_the_limit_a_client_gets_what_there_is_and_when_to_come_back() -> None:
    async def test(bus: Penstock) -> None:
        position = await bus.apublish("chat", "hi")
        async with AsyncASGIClient(app_of(bus), lifespan=False) as client:
            async with client.stream("/events") as stream:
                await stream.next_event()
                late = await client.stream("/events")
                assert (await late.next_event()).data == "hi"
                await late.wait_closed()
                assert late.last_event_id == str(position)
                assert 2_000 <= (late.retry_ms or 0) <= 4_000
                assert bus.stats().polls == 1
            async with client.stream("/events") as stream:
                assert (await stream.next_event()).data == "hi"
                assert bus.stats().polls == 1

    run(test, max_streams=1)


def test_past_the_limit_a_client_is_refused_where_that_is_wished() -> None:
    async def test(bus: Penstock) -> None:
        async with AsyncASGIClient(app_of(bus), lifespan=False) as client, client.stream("/events"):
            late = await client.stream("/events", wait_open=False)
            await late.wait_closed()
            assert late.status == 503
            assert late.headers["Retry-After"] == "5"

    run(test, max_streams=1, overflow="refuse")


def test_a_replay_that_fails_midway_is_ended_by_a_notice_and_goes_on_later(tmp_path: Path) -> None:
    file = tmp_path / "penstock.db"
    with Penstock(f"sqlite:///{file}") as before:
        before.publish_many([Event("chat", "x" * 1_000) for _ in range(2_000)])

    async def test(bus: Penstock) -> None:
        server = Server()
        app = app_of(bus)

        async def send(message: Message) -> None:
            await server.send(message)
            if len(server.sent) == 3:  # the head, the greeting and the first events
                server.taking.clear()

        async with request_of(app, server, send) as task:
            await server.until_sent(b"data: x")
            with something_else_in_its_place(tmp_path):
                server.taking.set()
                await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.exception() is None
        assert server.complete
        parser = Parser()
        _, *events, notice = parser.feed(server.body)
        assert notice.event == "penstock.error"
        assert json.loads(notice.data) == {"message": "the stream failed; it will be tried again"}
        assert 0 < len(events) < 2_000
        async with AsyncASGIClient(app, lifespan=False) as client:
            stream = await client.stream("/events", last_event_id=parser.last_event_id)
            rest = await stream.events(2_000 - len(events), timeout=DEADLINE_S)
        found = [event.id for event in events] + [event.id for event in rest]
        seqs = [int(position.partition(":")[2]) for position in found]
        assert seqs == list(range(1, 2_001))

    run(test, f"sqlite:///{file}")


def test_a_loop_that_is_none_of_asyncio_is_refused_by_name() -> None:
    with Penstock("memory:") as bus:
        server = Server()
        answer = app_of(bus)(dict(SCOPE), server.receive, server.send)
        with pytest.raises(ConfigError, match="need an event loop of asyncio"):
            next(iter(answer.__await__()))
        assert not server.sent
