"""A stream holds no database connection while it waits, whatever its view has asked the database."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flask.ask import answer, get
from tests.support.client import SSEClient
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.processes import Server
from tests.support.wait import wait_for

ASGI_APP, WSGI_APP = "tests.django.database_app:asgi", "tests.django.database_app:wsgi"
Make = Callable[[Path, dict[str, str]], Server]
STREAMS = 4

SERVERS: dict[str, Make] = {
    "uvicorn": lambda folder, env: Server.uvicorn(ASGI_APP, folder, env=env, http="auto"),
    "uvicorn-push": lambda folder, env: Server.uvicorn(ASGI_APP, folder, env=env),
    "waitress": lambda folder, env: Server.waitress(WSGI_APP, folder, env=env),
    "gthread": lambda folder, env: Server.gunicorn(WSGI_APP, folder, env=env),
    "push-worker": lambda folder, env: Server.push_worker(WSGI_APP, folder, env=env),
}
VIEWS = ["/events", "/aevents", "/members"]


def serve(name: str, folder: Path, database: dict[str, Any]) -> Server:
    return SERVERS[name](folder, {"DATABASE": json.dumps(database)})


def logged_in(server: Server) -> dict[str, str]:
    """The headers of a browser in which Alice has logged in."""
    with answer(server, "/enter") as response:
        cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
        assert response.read() == b"welcome"
    assert cookie.startswith("sessionid=")
    return {"Cookie": cookie}


def visits(server: Server, headers: dict[str, str]) -> int:
    with answer(server, "/visits", headers=headers) as response:
        return int(response.read())


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    with PostgreSQL() as database:
        yield database


@need_postgres
@pytest.mark.parametrize("name", SERVERS)
def test_with_a_pool_of_one_connection_other_requests_are_answered(
    tmp_path: Path, name: str, postgres: PostgreSQL
) -> None:
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": postgres.port,
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 1, "timeout": 20}},
    }
    with serve(name, tmp_path, database) as server, ExitStack() as stack:
        headers = logged_in(server)
        clients = []
        for path in VIEWS:
            for _ in range(STREAMS):
                client = stack.enter_context(SSEClient(server.url + path, headers=headers))
                clients.append(client.wait_open())
        assert get(server, "/users") == "1"
        assert visits(server, headers) == 2 * STREAMS, "the session was saved"
        assert get(server, "/streams") == str(len(clients))
        position = get(server, "/say?text=hi")
        for client in clients:
            assert client.next().id == position
            client.close()
        wait_for(lambda: get(server, "/name") == "left", what="on_close has queried the database too")
        wait_for(lambda: get(server, "/streams") == "0", what="all are over")
        assert get(server, "/users") == "1"


def open_files(server: Server, file: Path) -> int:
    """How often a file is open in the processes of a server."""
    found = 0
    process = psutil.Process(server.pid)
    for each in [process, *process.children(recursive=True)]:
        with suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{each.pid}/fd"):
                with suppress(FileNotFoundError):
                    found += os.readlink(f"/proc/{each.pid}/fd/{name}") == str(file)
    return found


@pytest.mark.parametrize("kept", ["closed", "atomic", "kept for ever"])
@pytest.mark.parametrize("name", ["uvicorn", "waitress"])
def test_the_file_of_a_database_is_closed_while_a_stream_waits(tmp_path: Path, name: str, kept: str) -> None:
    file = tmp_path / "database.sqlite3"
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(file),
        "ATOMIC_REQUESTS": kept == "atomic",
        "CONN_MAX_AGE": None if kept == "kept for ever" else 0,
    }
    views = [path for path in VIEWS if kept != "atomic" or path != "/aevents"]  # Django refuses those
    with serve(name, tmp_path, database) as server, ExitStack() as stack:
        headers = logged_in(server)
        before = open_files(server, file)  # of the thread that logged Alice in, if it keeps its connection
        clients = []
        for path in views:
            for _ in range(STREAMS):
                client = stack.enter_context(SSEClient(server.url + path, headers=headers))
                clients.append(client.wait_open())
        wait_for(
            lambda: open_files(server, file) <= before,
            what=lambda: f"{open_files(server, file)} descriptors, {before} before",
        )


def threads_of(server: Server) -> int:
    return psutil.Process(server.pid).num_threads()


def test_under_asgi_a_stream_keeps_no_thread_either(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "database.sqlite3")}
    with serve("uvicorn", tmp_path, database) as server, ExitStack() as stack:
        headers = logged_in(server)

        def open_streams(count: int) -> None:
            for path in VIEWS:
                for _ in range(count):
                    client = SSEClient(server.url + path, headers=headers)
                    stack.enter_context(client).wait_open()

        open_streams(4)
        before = threads_of(server)
        open_streams(8)
        # Pools of the loop's and ours grow by and by, up to a number that is not that of the streams.
        wait_for(
            lambda: threads_of(server) < before + 16,
            what=lambda: f"{threads_of(server)} threads for 24 more streams, {before} before",
        )
        assert threading.active_count() > 24, "these are ours, one for each client"
