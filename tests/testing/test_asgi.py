"""The clients of ASGI apps keep to the standard as servers do, and tell where an app does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from penstock.testing import ASGIClient, AsyncASGIClient, ProtocolFault, StreamOver, StreamTimeout
from tests.support.wait import wait_for
from tests.testing.apps import HELLO, STREAM, Answers, events, threads_of_clients

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", STREAM.encode())]}
LAST = {"type": "http.response.body"}
App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test that is a coroutine; nothing of it may be left on the loop."""

    async def alone() -> None:
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(alone())


def sends(*messages: Any, then: str = "return") -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await receive()
        for message in messages:
            await send(message)
        if then == "wait":
            await receive()

    return app


# Coroutines


def test_a_coroutine_follows_a_stream_and_comes_back() -> None:
    async def test() -> None:
        answers = Answers([[events(1, 2)], [events(2, 3)]])
        async with AsyncASGIClient(answers.asgi) as client, client.stream("/") as stream:
            assert (await stream.next_event()).data == "1"
            await stream.drop()
            assert stream.closed
            assert [event.data for event in await (await stream.reconnect()).events(2)] == ["2", "3"]
            with pytest.raises(StreamTimeout, match="no event came"):
                await stream.next_event(timeout=0.2)
        assert answers.asked == [("GET", ""), ("GET", "1")]
        assert answers.over == 2

    run(test)


def test_a_coroutine_takes_all_events_to_the_end() -> None:
    async def test() -> None:
        client = AsyncASGIClient(Answers([[events(1, 2)]], idle=False).asgi)
        stream = await client.stream("/")
        await stream.wait_closed()
        assert [event.data async for event in stream] == ["1", "2"]
        with pytest.raises(StreamOver):
            await stream.next_event()
        await stream.drop()

    run(test)


def test_a_stream_is_opened_by_await_or_async_with() -> None:
    async def test() -> None:
        answers = Answers([[HELLO]])
        async with AsyncASGIClient(answers.asgi) as client:
            stream = client.stream("/")
            assert repr(stream) == "<AsyncEventStream GET /, not open yet>"
            with pytest.raises(
                RuntimeError, match="the stream is not open yet: 'async with' opens it, or 'await'"
            ):
                _ = stream.status
            assert (await stream).status == 200
            async with stream:
                assert not stream.closed
            assert stream.closed
            assert len(answers.asked) == 1
            await client.stream("/")  # dropped by the client
        assert answers.over == 2

    run(test)


def test_what_waits_for_an_event_can_be_cancelled_and_waits_again() -> None:
    async def test() -> None:
        more = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(HELLO))
            await more.wait()
            await send(body(events(1)))
            await send(LAST)

        async with AsyncASGIClient(app, lifespan=False).stream("/") as stream:
            waiting = asyncio.create_task(stream.next_event())
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            more.set()
            assert (await stream.next_event()).data == "1"

    run(test)


def test_an_error_of_the_app_is_raised_in_the_coroutine() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(events(1)))
        raise LookupError("of the app")

    async def test() -> None:
        async with AsyncASGIClient(app, lifespan=False).stream("/") as stream:
            assert (await stream.next_event()).data == "1"
            with pytest.raises(LookupError, match="of the app"):
                await stream.next_event()

    run(test)


# The scope


def test_the_scope_is_that_of_a_request() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, message=await receive())
        await send({"type": "http.response.start", "status": 204})
        await send(LAST)

    with ASGIClient(app, spec_version="2.4", lifespan=False) as client:
        stream = client.stream(
            "/é%2Fb?x=1", query={"y": "é"}, headers={"X-One": "1"}, method="post", body=b"{}",
            cookies={"session": "s"}, last_event_id="e:1", extra={"user": "ada", "scheme": "https"},
        )  # fmt: skip
        assert (stream.status, stream.headers.items()) == (204, [])
    assert seen.pop("client")[0] == "127.0.0.1"
    assert dict(seen.pop("headers")) == {
        b"host": b"testserver", b"accept": b"text/event-stream", b"cache-control": b"no-cache",
        b"cookie": b"session=s", b"content-length": b"2", b"x-one": b"1", b"last-event-id": b"e:1",
    }  # fmt: skip
    assert seen == {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "POST", "scheme": "https", "path": "/é/b", "raw_path": b"/%C3%A9%2Fb",
        "query_string": b"x=1&y=%C3%A9", "root_path": "", "server": ("testserver", 80), "extensions": {},
        "user": "ada", "message": {"type": "http.request", "body": b"{}", "more_body": False},
    }  # fmt: skip


# What apps do wrong


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (sends(), "the app returned without an answer"),
        (sends(START), "the app returned without the last body, the one without more_body"),
        (sends(START, body(HELLO)), "the app returned without the last body"),
        (sends(body(HELLO)), "a body was sent before 'http.response.start'"),
        (sends(START, START), "'http.response.start' was sent twice"),
        (sends(START, LAST, LAST), "'http.response.body' was sent after the last body"),
        (sends(START, body("text")), "a body is bytes, not 'text'"),  # type: ignore[arg-type]
        (sends(START | {"status": "200"}), "a status is a number, not '200'"),
        (sends(START | {"headers": 7}), "headers are pairs of bytes, not 7"),
        (sends(START | {"headers": [("a", "b")]}), r"a header is a pair of bytes, not \('a', 'b'\)"),
        (sends(START, {"type": "http.response.push"}), "no such message is known here: 'http.response.push'"),
        (sends({}), "no such message is known here: None"),
    ],
)
def test_an_app_that_breaks_a_rule_is_told(app: App, told: str) -> None:
    async def test() -> None:
        with pytest.raises(ProtocolFault, match=f"^ASGI: {told}.*; GET /events$"):
            async with AsyncASGIClient(app, lifespan=False).stream("/events") as stream:
                await stream.wait_closed()

    run(test)


def test_a_rule_that_is_broken_is_told_once_though_the_app_hides_it() -> None:
    async def test() -> None:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(START)
            await send(body(HELLO))
            await go_on.wait()
            with suppress(Exception):
                await send(START)
            await receive()

        async with AsyncASGIClient(app, lifespan=False).stream("/") as stream:
            go_on.set()
            with pytest.raises(ProtocolFault, match="was sent twice"):
                await stream.next_event()
            with pytest.raises(StreamTimeout, match="no event came"):
                await stream.next_event(0.2)

    run(test)


def test_receive_that_is_called_from_two_places_is_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(events(1)))
        await asyncio.gather(receive(), receive())

    with (
        ASGIClient(app, lifespan=False) as client,
        pytest.raises(ProtocolFault, match=r"receive\(\) was called while another call"),
        client.stream("/") as stream,
    ):
        stream.events(2)
    with ASGIClient(app, lifespan=False, strict=False) as client, client.stream("/") as stream:
        assert stream.next_event().data == "1"


# The client leaves


def test_up_to_2_3_a_send_after_the_client_left_does_nothing() -> None:
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(HELLO))
        assert (await receive())["type"] == "http.disconnect"
        await send(body(HELLO))
        sent.append("more")
        assert (await receive())["type"] == "http.disconnect"

    with ASGIClient(app, lifespan=False) as client, client.stream("/") as stream:
        stream.drop()
    assert sent == ["more"]


@pytest.mark.parametrize("translate", [False, True])
def test_from_2_4_on_a_send_after_the_client_left_raises_and_that_is_no_error(translate: bool) -> None:
    raised: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(HELLO))
        await receive()
        await receive()
        try:
            await send(body(HELLO))
        except OSError as error:
            raised.append(error)
            if translate:
                raise ExceptionGroup("of a framework", [LookupError()]) from error
            raise

    with ASGIClient(app, lifespan=False, spec_version="2.4") as client, client.stream("/") as stream:
        stream.drop()
    assert len(raised) == 1


def test_what_else_an_app_raises_after_its_client_left_is_raised_by_drop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(HELLO))
        await receive()
        raise LookupError("while it cleaned up")

    with ASGIClient(app, lifespan=False) as client, client.stream("/") as stream:
        with pytest.raises(LookupError, match="while it cleaned up"):
            stream.drop()
        stream.drop()


def test_an_app_that_does_not_notice_that_its_client_left_is_told_and_cancelled() -> None:
    cancelled = []

    async def waits_for_something() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(HELLO))
        await waits_for_something()

    async def test() -> None:
        stream = await AsyncASGIClient(app, lifespan=False).stream("/")
        with pytest.raises(
            StreamTimeout, match=r"the client left, and 0\.2 s later .*it was cancelled"
        ) as caught:
            await stream.drop(0.2)
        assert "in waits_for_something" in str(caught.value), "where the app waits is shown"
        assert cancelled
        await stream.drop()

    run(test)


def test_an_app_that_sends_without_an_end_to_nobody_is_told_and_does_not_stop_the_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send(body(HELLO))

    async def test() -> None:
        stream = await AsyncASGIClient(app, lifespan=False).stream("/")
        with pytest.raises(StreamTimeout, match="it was cancelled"):
            await stream.drop(0.2)
        async with AsyncASGIClient(app, lifespan=False, spec_version="2.4").stream("/"):
            pass

    run(test)


# An app that hangs


def test_an_app_that_hangs_does_not_hang_a_coroutine() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        client = AsyncASGIClient(app, lifespan=False, timeout=0.2)
        with pytest.raises(StreamTimeout, match=r"no answer came within 0\.2 s\nGET / → no answer yet"):
            await client.stream("/")

    run(test)


def test_an_app_that_blocks_its_loop_does_not_hang_a_test_that_is_no_coroutine() -> None:
    free = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(HELLO))
        free.wait()
        await send(LAST)

    with ASGIClient(app, lifespan=False) as client, client.stream("/") as stream:
        with pytest.raises(StreamTimeout, match="no event came"):
            stream.next_event(0.2)
        free.set()
        stream.wait_closed()


# Life


def test_background_work_after_the_answer_is_waited_for() -> None:
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": events(1)})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect", "as servers tell after an answer"
        done.append(True)

    with ASGIClient(app, lifespan=False) as client, client.stream("/") as stream:
        assert [event.data for event in stream] == ["1"]
        stream.wait_closed()
        assert done


class Life:
    """An app with a lifespan, that can fail at both ends."""

    def __init__(self, fails_at: str = "", raises: bool = False) -> None:
        self.fails_at = fails_at
        self.raises = raises
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._live(scope, receive, send)
        self.events.append(scope["state"]["name"])
        scope["state"]["name"] = "of this request"
        await receive()
        await send(START)
        await send(body(HELLO))
        await receive()
        self.events.append("left")

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        for what in ("startup", "shutdown"):
            assert (await receive()) == {"type": f"lifespan.{what}"}
            self.events.append(what)
            if what == self.fails_at:
                if self.raises:
                    raise LookupError("of the app")
                await send({"type": f"lifespan.{what}.failed", "message": "no database"})
                return
            scope["state"]["name"] = "of the app"
            await send({"type": f"lifespan.{what}.complete"})


LIVED = ["startup", "of the app", "left", "of the app", "left", "shutdown"]


def test_startup_comes_first_and_shutdown_when_all_streams_are_dropped() -> None:
    app = Life()
    with ASGIClient(app) as client:
        client.stream("/")
        client.stream("/").drop()
    assert sorted(app.events[1:-1]) == sorted(LIVED[1:-1])
    assert (app.events[0], app.events[-1]) == ("startup", "shutdown")

    async def test() -> None:
        app.events.clear()
        async with AsyncASGIClient(app) as client:
            async with client.stream("/"):
                pass
            await client.stream("/")
        assert app.events == LIVED

    run(test)


@pytest.mark.parametrize("fails_at", ["startup", "shutdown"])
@pytest.mark.parametrize(
    ("raises", "kind", "told"),
    [(True, LookupError, "of the app"), (False, ProtocolFault, "failed: no database")],
    ids=["raises", "tells"],
)
def test_a_lifespan_that_fails_is_told(fails_at: str, raises: bool, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told), ASGIClient(Life(fails_at, raises)) as client:
        client.stream("/").drop()

    async def test() -> None:
        with pytest.raises(kind, match=told):
            async with AsyncASGIClient(Life(fails_at, raises)) as client:
                await (await client.stream("/")).drop()

    run(test)
    assert threads_of_clients() == []


@pytest.mark.parametrize("says_so", [True, False])
def test_an_app_may_have_no_lifespan(says_so: bool) -> None:
    app = sends(START, body(HELLO), then="wait")

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    with ASGIClient(app if says_so else silent) as client, client.stream("/") as stream:
        assert stream.status == 200


def test_a_startup_without_an_end_is_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    with (
        pytest.raises(StreamTimeout, match=r"the app's startup was not over within 0\.2 s\nthe app is here:"),
        ASGIClient(app, timeout=0.2),
    ):
        pass


def test_nothing_runs_outside_of_the_block() -> None:
    client = ASGIClient(Answers([[HELLO]]).asgi)
    assert threads_of_clients() == []
    with pytest.raises(RuntimeError, match="'with ASGIClient"):
        client.stream("/")
    for _ in range(2):
        with client:
            client.stream("/")
            assert threads_of_clients() == ["ASGIClient"]
        assert threads_of_clients() == []
    client.close()


def test_a_loop_that_cannot_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.testing.asgi_clients._REAP_S", 0.1)
    free = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(HELLO))
        free.wait()
        await send(LAST)

    with pytest.raises(StreamTimeout, match="the app blocks its event loop, which cannot end") as caught:  # noqa: PT012, SIM117
        with ASGIClient(app, lifespan=False) as client:
            stream = client.stream("/")
            with pytest.raises(StreamTimeout, match="here it still does"):
                stream.drop(0.2)
    assert "free.wait()" in str(caught.value), "where it blocks is shown"
    free.set()
    wait_for(lambda: not threads_of_clients())
