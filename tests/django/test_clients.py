"""Clients that take nothing, under ASGI: Django sends, and a stream sees to it all the same."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock import Event, Penstock
from tests.flask.ask import answer, events_url, get, publish, read_block, wait_for_streams
from tests.support.needs import need_descriptors
from tests.support.oldest import need_oldest, with_oldest
from tests.support.processes import Server

APP = "tests.apps.django_app:asgi"
EVENT_BYTES, EVENTS = 100_000, 600
GROWTH_BYTES = 30_000_000  # half of what such a client has not taken
ENDS_WITHIN_S = 25.0
RECEIVE_BYTES = 16 * 1024

SERVERS: dict[str, Callable[[Path], Server]] = {
    "uvicorn": lambda folder: Server.uvicorn(APP, folder, http="auto"),
    "daphne": lambda folder: Server.daphne(APP, folder),
}


@contextlib.contextmanager
def taking_nothing(server: Server, path: str) -> Iterator[socket.socket]:
    """A client that asks for a stream and never reads, whose socket holds little."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        yield client


def fill(folder: Path) -> None:
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        for _ in range(EVENTS // 20):
            bus.publish_many([Event("chat", EVENT_BYTES * "x") for _ in range(20)])


def memory(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def everything(server: Server) -> int:
    """Let a client read all there is, so that whatever holds it for good is there."""
    with answer(server, events_url("chat", after="earliest")) as response:
        for _ in range(EVENTS + 1):
            read_block(response)
    wait_for_streams(server, 0)
    return memory(server)


@pytest.mark.parametrize("name", SERVERS)
def test_a_client_that_takes_nothing_costs_no_memory_and_delays_nobody(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    with SERVERS[name](tmp_path) as server:
        before = everything(server)
        with taking_nothing(server, events_url("chat", after="earliest")):
            wait_for_streams(server, 1)
            with answer(server, events_url("other")) as response:
                read_block(response)
                for number in range(200):  # meanwhile the other stream has been given all that it can be
                    publish(server, "other", str(number))
                    assert f"data: {number}\n" in read_block(response)
            assert memory(server) < before + GROWTH_BYTES


OLDEST = pytest.param("oldest", marks=need_oldest("django"))


@pytest.mark.parametrize("release", ["newest", OLDEST])
def test_a_client_that_takes_nothing_does_not_hold_up_the_end_of_the_server(
    tmp_path: Path, release: str
) -> None:
    fill(tmp_path)
    env = with_oldest("django") if release == "oldest" else {}
    with Server.uvicorn(APP, tmp_path, http="auto", env=env) as server:
        with (
            taking_nothing(server, events_url("chat", after="earliest")),
            answer(server, events_url("chat")) as other,
        ):
            read_block(other)
            wait_for_streams(server, 2)
            assert get(server, "/ping") == "pong"
            server.terminate(ENDS_WITHIN_S)
            assert "event: penstock.position" in other.read().decode(), "the others are told"
        assert "Traceback" not in server.log


@need_descriptors(1_000)
def test_a_hundred_streams_of_views_of_both_kinds_come_and_go(tmp_path: Path) -> None:
    for views in ("sync", "async"):
        with Server.uvicorn(APP, tmp_path, http="auto", env={"VIEWS": views}) as server:
            for _ in range(2):
                with contextlib.ExitStack() as stack:
                    for _ in range(50):
                        read_block(stack.enter_context(answer(server, events_url("chat"))))
                    wait_for_streams(server, 50)
                wait_for_streams(server, 0)
            assert int(get(server, "/tasks")) < 20, "no task is left"
