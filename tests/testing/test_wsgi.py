"""The client of WSGI apps keeps to PEP 3333 as a server does, and tells where an app does not."""

from __future__ import annotations

import contextvars
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from penstock.testing import ProtocolFault, StreamTimeout, WSGIClient
from tests.support.wait import wait_for
from tests.testing.apps import HELLO, STREAM, Answers, events, threads_of_clients

KIND = [("Content-Type", STREAM)]


def test_an_app_that_is_checked_for_the_standard_finds_nothing() -> None:
    # It compares the headers and the status, the environ, the order of calls, and wants close() called.
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert environ["wsgi.input"].read(3) == b"{}"
        start_response("200 OK", [*KIND, ("X-Path", environ["PATH_INFO"])])
        return [HELLO, events(1)]

    client = WSGIClient(validator(app))
    with client.stream("/é/%20", method="post", body=b"{}", query={"a": [1, 2], "b": "ü"}) as stream:
        assert stream.next_event().data == "1"
        assert stream.headers["X-Path"] == "/é/ ".encode().decode("latin-1")


def test_the_environ_is_that_of_a_request() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("204 No Content", [])
        return []

    stream = WSGIClient(app).stream(
        "/a%2Fb?x=1#top",
        query={"y": "é"},
        headers={"accept": "*/*", "Content-Type": "a/b", "X-One": "é"},
        cookies={"session": "s", "theme": "dark"},
        body=b"four",
        last_event_id="e:1",
        extra={"REMOTE_USER": "ada", "wsgi.url_scheme": "https"},
    )
    assert (stream.status, stream.closed, stream.body) == (204, True, b"")
    assert {name: seen[name] for name in sorted(seen) if name.startswith(("HTTP_", "CONTENT_"))} == {
        "CONTENT_LENGTH": "4",
        "CONTENT_TYPE": "a/b",
        "HTTP_ACCEPT": "*/*",
        "HTTP_CACHE_CONTROL": "no-cache",
        "HTTP_COOKIE": "session=s; theme=dark",
        "HTTP_HOST": "testserver",
        "HTTP_LAST_EVENT_ID": "e:1",
        "HTTP_X_ONE": "Ã©",
    }
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a/b", "x=1&y=%C3%A9")
    assert (seen["REMOTE_USER"], seen["wsgi.url_scheme"]) == ("ada", "https")


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="'http://testserver/'"):
        WSGIClient(Answers([[HELLO]]).wsgi).stream("http://testserver/")


# What apps do wrong


def no_iterable(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", KIND)


def one_text(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", KIND)
    return "data: 1\n\n"


def text_in_pieces(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", KIND)
    return ["data: 1\n\n"]


def no_start(environ: Any, start_response: Any) -> Any:
    return []


def late_start(environ: Any, start_response: Any) -> Any:
    yield HELLO
    start_response("200 OK", KIND)


def two_starts(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", KIND)
    start_response("200 OK", KIND)
    return [HELLO]


def number_as_status(environ: Any, start_response: Any) -> Any:
    start_response(200, KIND)
    return [HELLO]


def forged_header(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*KIND, ("X-Name", "a\r\nSet-Cookie: b=c")])
    return [HELLO]


def bytes_in_header(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [(b"Content-Type", b"text/event-stream")])
    return [HELLO]


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (no_iterable, "the app returned None, which is no iterable of bytes"),
        (one_text, "the app returned .data: 1.*, which is no iterable of bytes"),
        (text_in_pieces, r"a piece of the body is bytes, not 'data: 1"),
        (no_start, r"the app ended without a call of start_response\(\)"),
        (late_start, r"the body began before start_response\(\) was called"),
        (two_starts, r"start_response\(\) was called twice, without exc_info"),
        (number_as_status, "a status is text such as '200 OK', not 200"),
        (forged_header, "a header is a pair of texts, each one line, not .'X-Name'"),
        (bytes_in_header, "a header is a pair of texts, each one line, not .b'Content-Type'"),
    ],
)
def test_an_app_that_breaks_a_rule_is_told(app: Callable[..., Any], told: str) -> None:
    client = WSGIClient(app)
    with pytest.raises(ProtocolFault, match=rf"^WSGI \(PEP 3333\): {told}.*; GET /events$"):  # noqa: SIM117
        with client.stream("/events") as stream:
            stream.wait_closed()


def test_a_rule_that_is_broken_is_told_though_the_app_hides_it() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", KIND)
        try:
            start_response("500 Oh", [])
        except BaseException:
            yield HELLO

    with pytest.raises(ProtocolFault, match="twice"), WSGIClient(app).stream("/") as stream:
        stream.wait_closed()


# What apps may do


def test_an_app_may_change_its_answer_until_the_first_bytes() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", KIND)
        try:
            raise LookupError("early")
        except LookupError:
            start_response("404 Not Found", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"gone"

    stream = WSGIClient(app).stream("/")
    assert (stream.status, stream.headers["Content-Type"], stream.body) == (404, "text/plain", b"gone")


def test_after_the_first_bytes_the_error_is_given_back_to_the_app_and_told() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", KIND)
        yield HELLO
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oh", [], sys.exc_info())

    with pytest.raises(LookupError, match="late"), WSGIClient(app).stream("/") as stream:
        stream.wait_closed()


def test_an_app_may_write_and_may_send_nothing() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", KIND)
        write(events(1))
        return [b"", events(2)]

    with WSGIClient(app).stream("/") as stream:
        assert [event.data for event in stream] == ["1", "2"]


# Threads


class Body:
    """Notes who iterates it and who closes it."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self.wait = wait
        self.nexts: list[str] = []
        self.closes: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Body:
        self.socket: socket.socket = environ["werkzeug.socket"]
        start_response("200 OK", KIND)
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.nexts.append(threading.current_thread().name)
        if len(self.nexts) > 1:
            self.wait()
        return HELLO

    def close(self) -> None:
        self.closes.append(threading.current_thread().name)


def test_a_client_that_leaves_is_noticed_at_the_next_piece_and_the_body_closed_by_its_thread() -> None:
    more = threading.Event()
    body = Body(more.wait)
    stream = WSGIClient(body).stream("/events")
    wait_for(lambda: len(body.nexts) == 2)
    with pytest.raises(
        StreamTimeout, match=r"the client left, and 0\.2 s later .*here it still does"
    ) as caught:
        stream.drop(0.2)
    assert "self.wait()" in str(caught.value), "where the app waits is shown"
    assert threads_of_clients() == ["WSGIClient GET /events"]
    assert not body.closes
    more.set()
    wait_for(lambda: not threads_of_clients())
    assert body.nexts == ["WSGIClient GET /events"] * 2
    assert body.closes == ["WSGIClient GET /events"]


def test_an_app_that_watches_its_client_notices_at_once() -> None:
    body = Body(lambda: body.socket.recv(1))
    stream = WSGIClient(body).stream("/")
    wait_for(lambda: len(body.nexts) == 2)
    stream.drop()
    assert threads_of_clients() == []
    assert len(body.closes) == 1


def test_a_view_that_hangs_does_not_hang_the_test() -> None:
    free = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        free.wait()
        start_response("200 OK", KIND)
        return [HELLO]

    with pytest.raises(StreamTimeout, match=r"no answer came within 0\.2 s\nGET / → no answer yet") as caught:
        WSGIClient(app, timeout=0.2).stream("/")
    assert "free.wait()" in str(caught.value)
    free.set()
    wait_for(lambda: not threads_of_clients())


def test_fifty_streams_leave_no_thread() -> None:
    answers = Answers([[HELLO, events(1)]])
    with WSGIClient(answers.wsgi) as client:
        streams = [client.stream("/") for _ in range(50)]
        assert {stream.next_event().data for stream in streams} == {"1"}
        assert len(threads_of_clients()) == 50
    assert threads_of_clients() == []
    assert answers.over == 50


def test_the_app_has_nothing_of_the_tests_context() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("the test")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [name.get().encode()]

    assert WSGIClient(app).stream("/").body == b"nobody"
