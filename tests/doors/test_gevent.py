"""Streams under gevent: pushed by a worker of ours, or with a greenlet each; and the hub is never held up."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.doors.servers import PUSH_GEVENT, QUIET, Env, publish_beside
from tests.flask.ask import answer, events_url, get, publish, wait_for_streams
from tests.support import sqlite
from tests.support.certificate import Certificate
from tests.support.client import SSEClient
from tests.support.needs import need_openssl
from tests.support.oldest import need_oldest, oldest, with_oldest
from tests.support.ports import free_port
from tests.support.processes import ROOT, Server
from tests.support.wait import DEADLINE_S, wait_for

APP = "tests.flask.app:app"
FEW, MANY = 8, 40  # greenlets of a server: where streams hold them, a quarter stays free
POOLED_THREADS = 8  # of ours, which come by and by: what blocks is done by them
PATIENT = ["--graceful-timeout=60"]
PATIENTLY = {"PENSTOCK_PUBLISH_TIMEOUT": "120"}  # so long a publisher waits for a log that is locked
ACCESS_LINE = re.compile(r'"GET /events\?channel=chat HTTP/1\.1" 200 0 ')

_PATCHED = "from gevent import monkey; monkey.patch_all()\nfrom tests.flask.app import app\n"
_PYWSGI = (
    _PATCHED
    + """
import signal, sys
import gevent
from gevent.pywsgi import WSGIServer

server = WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None, spawn=int(sys.argv[2]))
gevent.signal_handler(signal.SIGTERM, server.stop, 60)
server.serve_forever()
"""
)


def gunicorn(
    folder: Path, worker: str, *options: str, app: str = APP, connections: int = FEW, env: Env = QUIET
) -> Server:
    options = (f"--worker-class={worker}", f"--worker-connections={connections}", *PATIENT, *options)
    return Server.gunicorn(app, folder, threads=1, options=options, env=env)


def pywsgi(folder: Path) -> Server:
    port = free_port()
    return Server([sys.executable, "-c", _PYWSGI, str(port), str(MANY)], folder, port=port, env=QUIET)


def places(greenlets: int) -> int:
    return greenlets * 3 // 4


def follow(server: Server, count: int, *, back: bool = False) -> list[SSEClient]:
    clients = [SSEClient(server.url + events_url("chat"), auto_reconnect=back) for _ in range(count)]
    for client in clients:
        client.wait_open()
    return clients


def threads_of(server: Server) -> int:
    return len(os.listdir(f"/proc/{get(server, '/pid')}/task"))


def assert_told_to_come_back(clients: list[SSEClient]) -> None:
    """None was cut."""
    for client in clients:
        client.wait_closed()
        assert not client.errors
        assert 1_000 <= (client.retry_ms or 0) <= 10_000


@contextlib.contextmanager
def asked(server: Server, request: str) -> Iterator[socket.socket]:
    """A request whose answer is not waited for; what is asked after it is answered after it has begun."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(request.encode())
        yield connection


# Pushed


def test_pushed_streams_hold_neither_greenlet_nor_thread(tmp_path: Path) -> None:
    with gunicorn(tmp_path, PUSH_GEVENT, "--access-logfile=-") as server:
        clients = follow(server, 1)
        threads = threads_of(server)
        clients += follow(server, MANY)
        assert get(server, "/ping") == "pong"  # or its greenlets were all taken
        wait_for_streams(server, MANY + 1)
        assert len(ACCESS_LINE.findall(server.log)) == MANY + 1
        (position,) = publish(server, "chat", "1")
        for client in clients:
            assert [message.id for message in client.wait_for_messages(1)] == [position]
        assert threads_of(server) <= threads + POOLED_THREADS
        assert "through gunicorn's PushWorker on gevent, at most " in server.log
        assert server.process is not None
        server.process.terminate()
        assert_told_to_come_back(clients)
        assert server.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL], ids=["quit", "arbiter-killed"])
def test_pushed_streams_are_told_also_when_the_server_hurries(tmp_path: Path, number: signal.Signals) -> None:
    with gunicorn(tmp_path, PUSH_GEVENT) as server:
        clients = follow(server, 3)
        os.kill(server.pid, number)
        assert_told_to_come_back(clients)


@pytest.mark.parametrize("app", [APP, "patched:app"], ids=["before", "after"])
def test_streams_are_pushed_whether_the_app_was_loaded_before_or_after_the_patches(
    tmp_path: Path, app: str
) -> None:
    """Before: by the arbiter, where the app published and followed, and had threads of its own."""
    (tmp_path / "patched.py").write_text(_PATCHED)
    with gunicorn(tmp_path, PUSH_GEVENT, "--preload", app=app, env={"USE_AT_IMPORT": "1"}) as server:
        clients = follow(server, 2 * FEW, back=True)
        positions = publish(server, "chat", "1")
        os.kill(server.pid, signal.SIGHUP)
        wait_for(lambda: all(len(client.statuses) > 1 for client in clients), what="all came back")
        positions += publish_beside(server, "chat", "2")
        for client in clients:
            assert [message.id for message in client.wait_for_messages(2)] == positions
            client.close()


@need_oldest("gunicorn")
def test_the_oldest_gunicorn_pushes_too(tmp_path: Path) -> None:
    server = gunicorn(tmp_path, PUSH_GEVENT, env=with_oldest("gunicorn"))
    server.command.remove("--no-control-socket")  # a later release has that
    with server:
        assert f"Starting gunicorn {oldest('gunicorn')}" in server.log
        clients = follow(server, 2 * FEW)
        (position,) = publish(server, "chat", "1")
        for client in clients:
            assert [message.id for message in client.wait_for_messages(1)] == [position]
        server.terminate()
        assert_told_to_come_back(clients)


@need_openssl
def test_under_tls_streams_hold_greenlets_and_a_line_says_so(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    tls = [f"--certfile={certificate.file}", f"--keyfile={certificate.key}"]
    with gunicorn(tmp_path, PUSH_GEVENT, *tls) as server, contextlib.ExitStack() as stack:
        wait_for(lambda: "each stream holds a greenlet. Let a proxy end TLS" in server.log, what="the line")
        url = f"https://127.0.0.1:{server.port}"
        client = stack.enter_context(
            httpx.Client(base_url=url, verify=certificate.trusted(), timeout=DEADLINE_S)
        )
        streams = [stack.enter_context(client.stream("GET", events_url("chat"))) for _ in range(places(FEW))]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            assert next(each) == "retry: 3000"
        assert client.get(events_url("chat")).text.count("retry: ") == 2  # a slice: it begins and ends
        client.post("/publish", data={"channel": "chat", "data": "1"})
        for each in lines:
            assert "data: 1" in each


# With a greenlet each


SERVERS = {
    "gunicorn": lambda folder: gunicorn(folder, "gevent", connections=MANY),
    "gunicorn-pywsgi": lambda folder: gunicorn(folder, "gevent_pywsgi", connections=MANY),
    "pywsgi": pywsgi,
}


@pytest.mark.parametrize("kind", SERVERS)
def test_streams_hold_a_greenlet_each_and_some_stay_free_for_others(tmp_path: Path, kind: str) -> None:
    with SERVERS[kind](tmp_path) as server:
        clients = follow(server, 1)
        threads = threads_of(server)
        clients += follow(server, places(MANY) - 1)
        with answer(server, events_url("chat")) as response:
            assert response.read().count(b"retry: ") == 2  # a slice: it begins and ends
        taken = f"all {places(MANY)} places for streams on"
        (line,) = [line for line in server.log.splitlines() if taken in line]
        assert "Each stream holds a greenlet: give the server more greenlets" in line
        (position,) = publish(server, "chat", "1")
        for client in clients:
            assert [message.id for message in client.wait_for_messages(1)] == [position]
        assert threads_of(server) <= threads + POOLED_THREADS
        clients.pop().close()
        wait_for_streams(server, places(MANY) - 1)  # it is noticed: the next keep-alive is far off
        assert server.process is not None
        server.process.terminate()
        assert_told_to_come_back(clients)
        assert server.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("kind", ["gthread", "waitress"])
def test_the_threads_of_a_pool_are_no_more_where_they_are_greenlets(tmp_path: Path, kind: str) -> None:
    (tmp_path / "patched.py").write_text(_PATCHED)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    if kind == "gthread":
        server = Server.gunicorn("patched:app", tmp_path, env=env, threads=4, options=["--preload"])
    else:
        server = Server.waitress("patched:app", tmp_path, env=env, threads=4)
    with server:
        clients = follow(server, 3)
        assert get(server, "/ping") == "pong"
        assert re.search("through WSGI on .*, at most 3 at once;", server.log)
        for client in clients:
            client.close()


# Both


@pytest.mark.parametrize("worker", [PUSH_GEVENT, "gevent"])
def test_others_are_answered_while_publishers_wait_for_a_file_that_is_locked(
    tmp_path: Path, worker: str
) -> None:
    form = "channel=chat&data=hi"
    request = (
        "POST /publish HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}"
    )
    with gunicorn(tmp_path, worker, env=PATIENTLY) as server, contextlib.ExitStack() as stack:
        (client,) = follow(server, 1)
        publish(server, "chat", "before")
        with sqlite.locked(tmp_path / "penstock.db"):
            publishers = [stack.enter_context(asked(server, request)) for _ in range(3)]
            assert get(server, "/ping") == "pong"
            (another,) = follow(server, 1)
            wait_for_streams(server, 2)
            for publisher in publishers:
                publisher.setblocking(False)
                with pytest.raises(BlockingIOError):
                    publisher.recv(1)
                publisher.settimeout(DEADLINE_S)
        for publisher in publishers:
            assert publisher.recv(12) == b"HTTP/1.1 200"
        assert len(client.wait_for_messages(4)) == 4
        assert len(another.wait_for_messages(3)) == 3
