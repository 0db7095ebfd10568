"""Streams that are followed in process, over WSGI and over ASGI, by views of both kinds."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.test import AsyncClient, Client, RequestFactory, override_settings

from penstock import django as penstock
from penstock.core.parser import Message, Parser
from penstock.django import get_bus
from penstock.errors import ConfigError
from penstock.testing import ASGIClient, WSGIClient
from tests.support.wait import wait_for

VIEWS = ["/events/", "/aevents/", "/news/"]


@pytest.fixture(params=["wsgi", "asgi"])
def client(request: pytest.FixtureRequest) -> Iterator[WSGIClient | ASGIClient]:
    if request.param == "wsgi":
        with WSGIClient(WSGIHandler()) as wsgi:
            yield wsgi
    else:
        with ASGIClient(ASGIHandler(), lifespan=False) as asgi:
            yield asgi


def cookies(user: User) -> dict[str, str]:
    """Those of a browser in which somebody has logged in."""
    browser = Client()
    browser.force_login(user)
    return {name: morsel.value for name, morsel in browser.cookies.items()}


@pytest.mark.parametrize("path", VIEWS)
def test_a_stream_replays_goes_on_and_resumes(client: WSGIClient | ASGIClient, path: str) -> None:
    penstock.publish("chat", "before")
    page = client.stream(path)
    assert page.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert page.next_event().data == "before"
    penstock.publish("chat", {"n": 1})
    assert page.next_event().json() == {"n": 1}
    page.drop()
    penstock.publish("chat", "missed")
    page.reconnect()
    assert page.next_event().data == "missed"
    penstock.end("chat")
    assert page.next_event().event == "penstock.end"
    assert page.reconnect().status == 204


@pytest.mark.parametrize("path", VIEWS)
def test_a_client_that_leaves_is_noticed(client: WSGIClient | ASGIClient, path: str) -> None:
    page = client.stream(path)
    wait_for(lambda: penstock.stats().streams == 1, what="it is open")
    page.drop()
    wait_for(lambda: penstock.stats().streams == 0, what="it is over")


@pytest.mark.parametrize("path", ["/events/", "/aevents/"])
def test_a_kick_finds_the_streams_of_a_primary_key(
    client: WSGIClient | ASGIClient, path: str, alice: User
) -> None:
    hers, nobodys = client.stream(path, cookies=cookies(alice)), client.stream(path)
    penstock.kick(alice.pk)
    assert hers.next_event().event == "penstock.revoked"
    penstock.publish("chat", "for the rest")
    assert nobodys.next_event().data == "for the rest"


def test_the_blocking_twin_on_a_loop_says_what_to_write() -> None:
    with ASGIClient(ASGIHandler(), lifespan=False) as asgi:
        answer = asgi.stream("/forgotten/", wait_open=False)
        assert answer.status == 500
    with WSGIClient(WSGIHandler()) as wsgi:
        assert wsgi.stream("/forgotten/", wait_open=False).status == 500
    with pytest.raises(Exception, match="return await astream"):
        Client().get("/forgotten/")


def test_what_is_no_request_of_a_server_is_told() -> None:
    with pytest.raises(ConfigError, match="a request of WSGI or ASGI"):
        penstock.stream(HttpRequest(), "chat")


# Who may read


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/members/", 403),
        ("/staff/", 403),
        ("/named/?channel=room/2", 403),
        ("/even/?channel=room/1", 403),
        ("/even/?channel=room/2&channel=room/1", 403),
        ("/even/?channel=room/2", 200),
        ("/even-by-path/?channel=room/1", 403),
        ("/even-by-path/?channel=room/2", 200),
        ("/even-by-object/?channel=room/1", 403),
        ("/even-by-object/?channel=room/2", 200),
        ("/aeven/?channel=room/2", 403),
        ("/only-even/", 403),
        ("/even/", 400),
        ("/even/?channel=room/*", 400),
        ("/even/?channel=penstock.kicks", 400),
    ],
)
def test_who_may_not_read_is_refused_without_a_redirect(
    client: WSGIClient | ASGIClient, path: str, status: int
) -> None:
    answer = client.stream(path)
    assert answer.status == status
    if status != 200:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.body.endswith(b".\n") or b"?channel=" in answer.body


def test_who_is_logged_in_may_read_what_asks_for_that(client: WSGIClient | ASGIClient, alice: User) -> None:
    page = client.stream("/members/", cookies=cookies(alice))
    penstock.publish("chat", "hi")
    assert page.next_event().data == "hi"
    penstock.kick(alice.pk)
    assert page.next_event().event == "penstock.revoked", "it is hers"


def test_a_permission_is_asked_for(client: WSGIClient | ASGIClient, alice: User) -> None:
    assert client.stream("/staff/", cookies=cookies(alice)).status == 403
    alice.user_permissions.add(Permission.objects.get(codename="view_record"))
    assert client.stream("/staff/", cookies=cookies(alice)).status == 200


def test_a_coroutine_function_may_ask_the_database(client: WSGIClient | ASGIClient, alice: User) -> None:
    assert client.stream("/aeven/?channel=room/2", cookies=cookies(alice)).status == 200
    assert client.stream("/aeven/?channel=room/1", cookies=cookies(alice)).status == 403


@pytest.mark.parametrize("authorize", ["tests.django.urls.even", "tests.django.urls.aeven"])
def test_the_setting_is_asked_about_channels_that_the_client_names(
    client: WSGIClient | ASGIClient, url: str, authorize: str, alice: User
) -> None:
    with override_settings(PENSTOCK={"URL": url, "AUTHORIZE": authorize}):
        hers = cookies(alice)
        assert client.stream("/named/?channel=room/2", cookies=hers).status == 200
        assert client.stream("/named/?channel=room/1", cookies=hers).status == 403
        assert client.stream("/news/").status == 200, "the app has named this one"


def test_user_and_until_are_made_of_the_request(client: WSGIClient | ASGIClient) -> None:
    page = client.stream("/mine/?user=bob")
    penstock.kick("bob")
    assert page.next_event().event == "penstock.revoked"
    assert client.stream("/until/").next_event().event == "penstock.revoked"


def test_a_stream_is_read_by_get(client: WSGIClient | ASGIClient) -> None:
    answer = client.stream("/news/", method="POST")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert client.stream("/news/", method="OPTIONS").status == 204


def test_without_the_middleware_of_logins_that_is_told() -> None:
    with (
        override_settings(MIDDLEWARE=[]),
        pytest.raises(Exception, match="AuthenticationMiddleware, which is not among MIDDLEWARE"),
    ):
        Client().get("/members/")


# The response


def test_a_response_that_is_never_iterated_gives_its_place_back(url: str) -> None:
    with override_settings(PENSTOCK={"URL": url, "MAX_STREAMS": 1, "OVERFLOW": "refuse"}):
        closed = []
        request = RequestFactory().get("/")
        request.environ["wsgi.multithread"] = True
        request.environ["wsgi.input"] = None
        for _ in range(3):
            response = penstock.stream(request, "chat", on_close=lambda: closed.append(1))
            assert response.status_code == 200
            response.close()
        wait_for(lambda: len(closed) == 3, what="it is told each time")
        held = penstock.stream(request, "chat")
        assert penstock.stream(request, "chat").status_code == 503
        held.close()


def test_a_response_over_asgi_that_is_never_iterated_gives_its_place_back(url: str) -> None:
    async def run() -> None:
        closed = []
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
        request = ASGIRequest(scope, io.BytesIO())
        for _ in range(3):
            response = await penstock.astream(request, "chat", on_close=lambda: closed.append(1))
            assert response.status_code == 200
            await asyncio.to_thread(response.close)
        held = await penstock.astream(request, "chat")
        refused = await penstock.astream(request, "chat", on_close=lambda: closed.append(1))
        assert refused.status_code == 503
        assert "Try again later" in refused.content.decode()
        held.close()
        await asyncio.to_thread(wait_for, lambda: len(closed) == 4, what="it is told each time")

    with override_settings(PENSTOCK={"URL": url, "MAX_STREAMS": 1, "OVERFLOW": "refuse"}):
        asyncio.run(run())


def test_a_response_passes_as_encoded_and_is_not() -> None:
    response = penstock.stream(RequestFactory().get("/"), "chat")
    assert response.has_header("content-encoding")
    assert "Content-Encoding" in response
    assert not response.has_header("ETag")
    assert "Content-Encoding" not in response.headers
    response.close()


# Django's test clients, which collect answers


def messages(body: bytes) -> list[Message]:
    return [each for each in Parser().feed(body) if not each.event.startswith("penstock.")]


@pytest.mark.parametrize("path", VIEWS)
def test_django_s_client_gets_what_there_is_and_an_end(path: str) -> None:
    penstock.publish("chat", "hi")
    response = Client().get(path)
    assert response.status_code == 200
    assert [each.data for each in messages(response.getvalue())] == ["hi"]


@pytest.mark.parametrize("path", VIEWS)
def test_django_s_async_client_gets_what_there_is_and_an_end(path: str) -> None:
    penstock.publish("chat", "hi")

    async def run() -> bytes:
        response: Any = await AsyncClient().get(path)
        return b"".join([chunk async for chunk in response.streaming_content])

    assert [each.data for each in messages(asyncio.run(run()))] == ["hi"]


def test_django_s_client_may_head_and_leave_unread() -> None:
    client = Client()
    assert client.head("/events/").getvalue() == b""
    client.get("/events/").close()
    client.get("/events/")  # and is collected
    assert penstock.stats().streams == 0


def test_a_log_in_memory_does_for_tests(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(PENSTOCK={"URL": "memory:"}):
        penstock.publish("chat", "hi")
        assert messages(Client().get("/events/").getvalue())[0].data == "hi"
        assert get_bus().engine.log.url == "memory:"
    assert "several" not in caplog.text, "the test client's word for it is not believed"
