"""Where a stream holds a thread there is a limit. Past it nothing is lost and nobody else waits."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest

from penstock import Event, Penstock
from tests.flask.ask import (
    answer,
    events_url,
    get,
    post,
    publish,
    read_block,
    stats,
    wait_for_streams,
)
from tests.flask.conftest import APP
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

ONE_AT_A_TIME = "serves one request at a time"
ALL_TAKEN = "places for streams on gunicorn"
THREADS, PLACES = 4, 3  # of four threads one stays free


def sync(folder: Path) -> Server:
    return Server.gunicorn(APP, folder, threads=1, options=["--worker-class=sync", "--timeout=15"])


def gthread(folder: Path, **env: str) -> Server:
    return Server.gunicorn(APP, folder, threads=THREADS, env=env)


def hold(server: Server, count: int) -> list[SSEClient]:
    """Take so many places. One that was just left may not be free yet: then a client comes again."""
    clients = [SSEClient(server.url + events_url("held"), auto_reconnect=True) for _ in range(count)]
    for client in clients:
        client.wait_open()
    wait_for_streams(server, count)
    return clients


def test_a_server_with_one_thread_answers_in_slices_and_nothing_is_lost(tmp_path: Path) -> None:
    with sync(tmp_path) as server:
        with SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client:
            client.wait_open()
            positions = publish(server, "chat", *map(str, range(60)))
            messages = client.wait_for_messages(60)
            wait_for(lambda: len(client.statuses) >= 10, what="it comes back ten times")
        assert [(m.data, m.id) for m in messages] == [
            (str(index), position) for index, position in enumerate(positions)
        ]
        assert set(client.statuses) == {200}
        assert not client.errors
        assert stats(server)["streams"] == 0
        lines = [line for line in server.log.splitlines() if ONE_AT_A_TIME in line]
        assert len(lines) == 1
        assert lines[0].startswith("WARNING penstock.streams:")
        assert "gunicorn --threads 64" in lines[0]


def test_a_slice_is_what_was_missed_a_time_to_come_back_and_an_end(tmp_path: Path) -> None:
    with sync(tmp_path) as server:
        first, second, third = publish(server, "chat", "1", "2", "3")
        with answer(server, events_url("chat"), headers={"Last-Event-ID": first}) as response:
            body = response.read().decode()
    greeting = f"retry: 3000\nid: {first}\nevent: penstock.position\ndata: \n\n"
    events = f"id: {second}\ndata: 2\n\nid: {third}\ndata: 3\n\n"
    farewell = f"retry: (\\d+)\nid: {third}\nevent: penstock.position\ndata: \n\n"
    found = re.fullmatch(re.escape(greeting + events) + farewell, body)
    assert found is not None, body
    assert 2_000 <= int(found[1]) <= 4_000


def test_a_large_backlog_comes_in_many_slices(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/penstock.db") as bus:
        bus.publish_many([Event("chat", f"{index} " + 100_000 * "x") for index in range(60)])
    with sync(tmp_path) as server:
        url = server.url + events_url("chat", after="earliest")
        with SSEClient(url, auto_reconnect=True) as client:
            messages = client.wait_for_messages(60)
    assert [int(message.data.split()[0]) for message in messages] == list(range(60))
    assert len(client.statuses) > 2
    assert set(client.statuses) == {200}


def test_an_ended_channel_is_over_on_a_server_with_one_thread_too(tmp_path: Path) -> None:
    with sync(tmp_path) as server:
        with SSEClient(server.url + events_url("job"), auto_reconnect=True) as client:
            client.wait_open()
            publish(server, "job", "done")
            post(server, "/end", channel="job")
            client.wait_closed()
        assert [message.data for message in client.messages] == ["done"]
        assert client.notices[-1].event == "penstock.end"
        assert client.statuses[-1] == 204


def test_other_requests_are_answered_while_all_places_are_taken(tmp_path: Path) -> None:
    with gthread(tmp_path) as server:
        held = hold(server, PLACES)
        more = [SSEClient(server.url + events_url("chat"), auto_reconnect=True) for _ in range(10)]
        for client in more:
            client.wait_open()
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert get(server, "/ping") == "pong"
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 3.0  # not as long as a stream
        wait_for_streams(server, PLACES)
        positions = publish(server, "chat", *map(str, range(30)))
        for client in more:
            assert [message.id for message in client.wait_for_messages(30)] == positions
            assert set(client.statuses) == {200}
            client.close()
        assert all(not client.errors and len(client.statuses) == 1 for client in held)
        for client in held:
            client.close()
        assert stats(server)["polls"] >= 10
        lines = [line for line in server.log.splitlines() if ALL_TAKEN in line]
        assert len(lines) == 1
        assert lines[0].startswith(f"WARNING penstock.streams: all {PLACES} {ALL_TAKEN}")
        assert "PENSTOCK_MAX_STREAMS" in lines[0]


def test_a_place_that_becomes_free_is_taken_by_who_comes_next(tmp_path: Path) -> None:
    with gthread(tmp_path) as server:
        held = hold(server, PLACES)
        with SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client:
            client.wait_open()
            held.pop().close()
            wait_for(lambda: stats(server)["audiences"] == 2, what="the other client has a place")
            publish(server, "chat", "hi")
            client.wait_for_messages(1)
        for other in held:
            other.close()
        wait_for_streams(server, 0)
        for client in hold(server, PLACES):  # all places are there again
            client.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_place_is_given_back_when_the_view_fails_after_all(tmp_path: Path, method: str) -> None:
    with gthread(tmp_path) as server:
        for _ in range(2 * PLACES):
            with answer(server, "/fails-with-a-stream", method=method) as response:
                assert response.status == 500
        for client in hold(server, PLACES):
            client.close()


def test_no_place_at_all_can_be_refused_too(tmp_path: Path) -> None:
    with (
        gthread(tmp_path, PENSTOCK_OVERFLOW="refuse", PENSTOCK_MAX_STREAMS="0") as server,
        answer(server, events_url("chat")) as response,
    ):
        assert response.status == 503


def test_overflow_refuse_answers_503_and_when_to_try_again(tmp_path: Path) -> None:
    with gthread(tmp_path, PENSTOCK_OVERFLOW="refuse") as server:
        held = hold(server, PLACES)
        with answer(server, events_url("chat")) as response:
            assert response.status == 503
            assert response.getheader("Retry-After") == "5"
            assert response.headers.get_content_type() == "text/plain"
            assert b"Try again later" in response.read()
        with answer(server, events_url("chat"), method="HEAD") as response:
            assert response.status == 200
        for client in held:
            client.close()
        wait_for_streams(server, 0)

        def status() -> int:
            with answer(server, events_url("chat")) as response:
                return response.status

        wait_for(lambda: status() == 200, what="there is a place again")


@pytest.mark.parametrize("most", [0, 1])
def test_max_streams_sets_the_limit(tmp_path: Path, most: int) -> None:
    with gthread(tmp_path, PENSTOCK_MAX_STREAMS=str(most)) as server:
        held = hold(server, most)
        with answer(server, events_url("chat")) as response:
            assert response.read().count(b"penstock.position") == 2
        assert f"all {most} {ALL_TAKEN}" in server.log
        assert ONE_AT_A_TIME not in server.log
        for client in held:
            client.close()


def test_a_limit_that_leaves_no_thread_for_others_is_warned_of(tmp_path: Path) -> None:
    with gthread(tmp_path, PENSTOCK_MAX_STREAMS=str(THREADS)) as server:
        with SSEClient(server.url + events_url("chat")) as client:
            client.wait_open()
        assert "WARNING penstock.wsgi: max_streams is 4, and gunicorn/" in server.log


def test_max_streams_makes_no_second_thread(tmp_path: Path) -> None:
    env = {"PENSTOCK_MAX_STREAMS": "10"}
    options = ["--worker-class=sync"]
    with Server.gunicorn(APP, tmp_path, threads=1, env=env, options=options) as server:
        with answer(server, events_url("chat")) as response:
            assert b"penstock.position" in response.read()
        assert get(server, "/ping") == "pong"


def test_the_development_server_without_threads_answers_in_slices(tmp_path: Path) -> None:
    with Server.werkzeug(APP, tmp_path) as template:
        pass
    template.command.append("--without-threads")
    with template as server, answer(server, events_url("chat")) as response:
        assert read_block(response)
        assert b"penstock.position" in response.read()
