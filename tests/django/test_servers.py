"""What Django itself puts between a stream and its client: middlewares, its development server, reloaders."""

from __future__ import annotations

import gzip
import os
import signal
import sys
import time
import unittest
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.test import LiveServerTestCase

from penstock import Penstock
from penstock import django as penstock
from tests.flask.ask import answer, events_url, get, publish, read_block, stats, wait_for_streams
from tests.support.client import SSEClient
from tests.support.ports import free_port
from tests.support.processes import ROOT, Server
from tests.support.wait import wait_for

ASGI_APP, WSGI_APP = "tests.apps.django_app:asgi", "tests.apps.django_app:wsgi"
ALL = "gzip conditional common session locale csrf"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "content-encoding": None,
    "content-length": None,
    "etag": None,
    "penstock-handed-over": None,
}
ACCEPTS = {"Accept-Encoding": "gzip, deflate, br, zstd", "Accept": "text/event-stream"}
STOPS_WITHIN_S = 15.0  # long before anything would give up waiting for a stream

MAKES: dict[str, Callable[[Path, dict[str, str]], Server]] = {
    "uvicorn": lambda folder, env: Server.uvicorn(ASGI_APP, folder, env=env, http="auto"),
    "uvicorn-push": lambda folder, env: Server.uvicorn(ASGI_APP, folder, env=env),
    "waitress": lambda folder, env: Server.waitress(WSGI_APP, folder, env=env),
    "push-worker": lambda folder, env: Server.push_worker(WSGI_APP, folder, env=env),
}


@pytest.mark.parametrize("views", ["sync", "async"])
@pytest.mark.parametrize("name", MAKES)
def test_a_stream_passes_all_middlewares_as_it_is(tmp_path: Path, name: str, views: str) -> None:
    env = {"MIDDLEWARES": ALL, "VIEWS": views, "PENSTOCK_KEEP_ALIVE": "60"}
    with MAKES[name](tmp_path, env) as server:
        with answer(server, events_url("chat", cookie="yes"), headers=ACCEPTS) as response:
            assert response.status == 200
            assert {name: response.getheader(name) for name in HEADERS} == HEADERS
            cookies = response.headers.get_all("Set-Cookie") or []
            assert [cookie.partition("=")[0] for cookie in cookies] == ["seen", "sessionid"]
            assert "penstock.position" in read_block(response)
            for number in range(3):
                (position,) = publish(server, "chat", f"event {number}")
                assert read_block(response) == f"id: {position}\ndata: event {number}\n"
        with answer(server, events_url("chat"), method="HEAD", headers=ACCEPTS) as response:
            assert {name: response.getheader(name) for name in HEADERS} == HEADERS
        with answer(server, "/stats", headers=ACCEPTS) as response:
            assert response.getheader("Content-Encoding") == "gzip", "it compresses everything else"
            assert b"streams" in gzip.decompress(response.read())


# The development server

MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
PROJECT = """
from pathlib import Path
import os
from django.http import HttpResponse
from django.urls import path

BASE_DIR = Path(__file__).parent
DEBUG = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
INSTALLED_APPS = ["django.contrib.staticfiles", "penstock.django"]
PENSTOCK = {"KEEP_ALIVE": 60}
ROOT_URLCONF = "routes"
SECRET_KEY = "test"
STATIC_URL = "static/"
"""
ROUTES = """
import os
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse, JsonResponse
from django.urls import path
from penstock.django import stats, stream

def events(request):
    return stream(request, "chat")

urlpatterns = [
    path("events", events),
    path("pid", lambda request: HttpResponse(str(os.getpid()))),
    path("stats", lambda request: JsonResponse(stats().to_dict())),
]
"""
APPLICATION = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""


def project(folder: Path) -> None:
    (folder / "manage.py").write_text(MANAGE)
    (folder / "project.py").write_text(PROJECT)
    (folder / "routes.py").write_text(ROUTES)
    (folder / "application.py").write_text(APPLICATION)


def runserver(folder: Path, *options: str) -> Server:
    project(folder)
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}", *options]
    return Server(command, folder, port=port)


def publish_beside(folder: Path, *data: str) -> list[str]:
    with Penstock(f"sqlite:///{folder}/penstock.db") as bus:
        return [str(bus.publish("chat", each)) for each in data]


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


def stays(server: Server) -> bool:
    assert server.process is not None
    return server.process.poll() is None


@pytest.mark.parametrize("options", [[], ["--noreload"]], ids=["reload", "noreload"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_development_server_stops_at_once_with_tabs_open(
    tmp_path: Path, options: list[str], number: signal.Signals, foreground: None
) -> None:
    with runserver(tmp_path, *options) as server, ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(f"{server.url}/events")) for _ in range(3)]
        for client in clients:
            client.wait_open()
        if number is signal.SIGINT:
            os.killpg(server.pid, number)  # as a terminal does
        else:
            os.kill(server.pid, number)
        wait_for(lambda: not stays(server), STOPS_WITHIN_S, what=lambda: f"it stops\n{server.log}")
        for client in clients:
            client.wait_closed()


def test_the_development_server_reloads_with_a_tab_open(tmp_path: Path) -> None:
    with runserver(tmp_path) as server, SSEClient(f"{server.url}/events", auto_reconnect=True) as client:
        client.wait_open()
        old = get(server, "/pid")
        positions = publish_beside(tmp_path, "before")
        client.wait_for_messages(1)
        source = tmp_path / "routes.py"
        source.write_text(ROUTES + "# touched\n")

        def answered_by_a_new_one() -> bool:
            if "changed, reloading" not in server.log:
                source.touch()  # what changed before its first look goes unseen
            try:
                return get(server, "/pid") != old
            except OSError:  # it is between the two
                return False

        wait_for(answered_by_a_new_one, what=lambda: f"it reloads\n{server.log}")
        positions += publish_beside(tmp_path, "after")
        client.wait_for_messages(2)
        assert ids(client) == positions


def test_the_development_server_has_a_place_for_every_tab_and_notices_departures(tmp_path: Path) -> None:
    with runserver(tmp_path, "--noreload") as server:
        with ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(SSEClient(f"{server.url}/events")).wait_open()
            wait_for_streams(server, 12)
        wait_for_streams(server, 0)  # there is no keep-alive for a minute


def test_the_development_server_without_threads_answers_in_slices(tmp_path: Path) -> None:
    with (
        runserver(tmp_path, "--noreload", "--nothreading") as server,
        SSEClient(f"{server.url}/events", auto_reconnect=True) as client,
    ):
        client.wait_open()
        positions = publish_beside(tmp_path, "1", "2")
        client.wait_for_messages(2)
        assert ids(client) == positions
        assert stats(server)["streams"] == 0, "it is not held up"
        assert set(client.statuses) == {200}


@pytest.mark.parametrize("http", ["auto", "penstock.doors.uvicorn:PushProtocol"], ids=["tasks", "push"])
def test_uvicorn_reloads_with_a_tab_open(tmp_path: Path, http: str) -> None:
    project(tmp_path)
    options = ["--reload", "--lifespan=off"]
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with (
        Server.uvicorn("application:application", tmp_path, http=http, options=options, env=env) as server,
        SSEClient(f"{server.url}/events", auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/pid")
        positions = publish_beside(tmp_path, "before")
        client.wait_for_messages(1)
        source = tmp_path / "routes.py"
        source.write_text(ROUTES + "# touched\n")

        def answered_by_a_new_one() -> bool:
            if "Reloading" not in server.log:
                source.touch()
            try:
                return get(server, "/pid") != old
            except OSError:
                return False

        wait_for(answered_by_a_new_one, what=lambda: f"it reloads\n{server.log}")
        positions += publish_beside(tmp_path, "after")
        client.wait_for_messages(2)
        assert ids(client) == positions
        assert not client.errors, "it was not cut"
        began = time.monotonic()
        server.terminate(STOPS_WITHIN_S)
        assert time.monotonic() - began < STOPS_WITHIN_S


def test_a_live_server_of_a_test_case_ends_with_a_tab_open() -> None:
    class Case(LiveServerTestCase):
        def test_a_tab_is_left_open(self) -> None:
            client = SSEClient(f"{self.live_server_url}/events/").wait_open()
            tabs.append(client)
            penstock.publish("chat", "hi")
            assert client.next().data == "hi"

    tabs: list[SSEClient] = []
    result = unittest.TestResult()
    began = time.monotonic()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert not result.errors + result.failures, result.errors + result.failures
    for tab in tabs:
        tab.close()
