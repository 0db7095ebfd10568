"""A path operation that answers with a stream, on real servers, with the newest FastAPI and the oldest."""

from __future__ import annotations

import json
import socket

import pytest

from tests.flask.ask import answer, get, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

STREAM = "text/event-stream; charset=utf-8"
LONG = "x" * 8_000  # as long a line as every server takes


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


@pytest.mark.parametrize("path", ["/events-of-def", "/api/events"])
def test_def_and_async_def_stream_alike(server: Server, channel: str, path: str) -> None:
    had, *missed = publish(server, channel, "had", "missed")
    with SSEClient(f"{server.url}{path}?channel={channel}", had) as client:
        client.wait_for_messages(1)
        new = publish(server, channel, "new")
        client.wait_for_messages(2)
        assert ids(client) == missed + new


@pytest.mark.parametrize("path", ["/events-of-def", "/declared"])
@pytest.mark.parametrize(
    ("line", "query"),
    [
        (b"\xff\xfe\x80", ""),
        (b"no position", ""),
        ("€:1".encode(), ""),
        (LONG.encode(), ""),
        (b"", "&last_event_id=%FF%00%0A"),
        (b"", "&last_event_id=one:1&last_event_id=nonsense"),
        (b"", f"&last_event_id={LONG}"),
    ],
)
def test_whatever_a_client_says_it_had_it_gets_a_notice_and_no_422(
    server: Server, channel: str, path: str, line: bytes, query: str
) -> None:
    wait_for_streams(server, 0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as client:
        header = b"Last-Event-ID: " + line + b"\r\n" if line else b""
        client.sendall(f"GET {path}?channel={channel}{query} HTTP/1.1\r\n".encode())
        client.sendall(b"Host: localhost\r\n" + header + b"\r\n")
        with client.makefile("rb") as file:
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            while b"penstock.gap" not in file.readline():
                pass
            assert json.loads(file.readline().removeprefix(b"data: "))["reason"] == "malformed"
            wait_for_streams(server, 1)
            publish(server, channel, "it goes on")
            while b"data: it goes on" not in file.readline():
                pass


@pytest.mark.parametrize("query", ["", "&last_event_id=", "&last_event_id=&last_event_id="])
def test_a_client_that_says_nothing_is_a_new_one(server: Server, channel: str, query: str) -> None:
    with answer(server, f"/declared?channel={channel}{query}") as response:
        assert response.status == 200
        assert response.getheader("Declared") == "None"
        assert "penstock.position" in read_block(response)


def test_head_is_for_those_who_ask_for_it_and_opens_no_stream(server: Server, channel: str) -> None:
    """FastAPI's GET does not imply it."""
    wait_for_streams(server, 0)
    with answer(server, f"/events?channel={channel}", method="HEAD") as response:
        assert (response.status, response.getheader("Content-Type")) == (200, STREAM)
        assert response.read() == b""
    with answer(server, f"/events-of-def?channel={channel}", method="HEAD") as response:
        assert (response.status, response.getheader("Allow")) == (405, "GET")
    wait_for_streams(server, 0)


@pytest.mark.parametrize("path", ["/named", "/api/named", "/mounted/"])
def test_an_endpoint_may_be_a_route_have_a_prefix_and_be_mounted(
    server: Server, channel: str, path: str
) -> None:
    with SSEClient(f"{server.url}{path}?channel={channel}") as client:
        client.wait_open()
        positions = publish(server, channel, "hi")
        client.wait_for_messages(1)
        assert ids(client) == positions
    for query, status in (("?channel=secret", 403), ("?channel=open/**", 400), ("", 400)):
        with answer(server, path + query) as response:
            assert response.status == status
    with answer(server, f"{path}?channel={channel}", method="HEAD") as response:
        assert (response.status, response.read()) == (200, b"")
    with answer(server, path, method="OPTIONS") as response:
        assert response.status == 204


def test_streams_of_fastapis_own_live_beside_ours(new_server: Server, channel: str) -> None:
    server = new_server
    (first,) = publish(server, channel, "1")
    with (
        SSEClient(f"{server.url}/theirs?channel={channel}") as theirs,
        SSEClient(f"{server.url}/events?channel={channel}", first) as ours,
    ):
        theirs.wait_for_messages(1)
        ours.wait_open()
        publish(server, channel, "2", "3")
        ours.wait_for_messages(2)
        theirs.wait_for_messages(3)
        assert [message.data for message in ours.messages] == ["2", "3"]
        assert [json.loads(message.data) for message in theirs.messages] == [{"data": n} for n in "123"]
        assert theirs.headers["Cache-Control"] == "no-cache"
        assert ours.headers["Cache-Control"] == "no-cache, no-transform"


def test_dependencies_are_over_when_a_stream_begins(server: Server, channel: str) -> None:
    with answer(server, f"/holding?channel={channel}") as response:
        assert response.status == 200
        read_block(response)
        assert get(server, "/held") == ""
        (position,) = publish(server, channel, "hi")
        assert read_block(response) == f"id: {position}\ndata: hi\n"


def test_the_dependencies_of_fastapis_own_stream_last_as_long_as_it_does(new_server: Server) -> None:
    """So that the test above is one that can fail."""
    with answer(new_server, "/theirs?channel=theirs") as response:
        assert response.status == 200
        wait_for(lambda: get(new_server, "/held") == "session", what="it is held")
    wait_for(lambda: get(new_server, "/held") == "", what="the client has left")


def test_dependencies_last_until_background_tasks_are_done(new_server: Server) -> None:
    """They may use what the dependencies gave."""
    with SSEClient(f"{new_server.url}/events?channel=told") as told:
        told.wait_open()
        with answer(new_server, "/holding-with-tasks?channel=chat") as response:
            read_block(response)
        assert told.next().data == "session"
    wait_for(lambda: get(new_server, "/held") == "", what="nothing is held")


def test_a_dependency_that_forbids_when_it_ends_is_heeded_before_the_first_byte(new_server: Server) -> None:
    wait_for_streams(new_server, 0)
    with answer(new_server, "/forbidden?channel=chat") as response:
        assert response.status == 403
        assert b"said when all was over but the response" in response.read()
    assert stats(new_server)["streams"] == 0
