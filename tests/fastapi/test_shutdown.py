"""A server of a FastAPI app that stops or reloads: it waits for no tab, and cuts none."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.doors.servers import PUSH, publish_beside
from tests.flask.ask import answer, events_url, get, publish
from tests.support.client import SSEClient
from tests.support.ports import free_port
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "main:app"
SOURCE = "from tests.apps.fastapi_app import app\n"
INCOMPLETE = "ASGI callable returned without completing response"

Make = Callable[[Path, dict[str, str]], Server]


def uvicorn(http: str, *options: str) -> Make:
    return lambda folder, env: Server.uvicorn(APP, folder, env=env, http=http, options=options)


def fastapi(command: str) -> Make:
    def make(folder: Path, env: dict[str, str]) -> Server:
        port = free_port()
        line = [sys.executable, "-m", "fastapi", command, "main.py", "--host=127.0.0.1", f"--port={port}"]
        return Server(line, folder, port=port, env=env)

    return make


KEPT: dict[str, Make] = {
    "uvicorn": uvicorn("auto"),
    "uvicorn, pushing": uvicorn(PUSH),
    "fastapi run": fastapi("run"),
}
RELOADED: dict[str, Make] = {
    "uvicorn --reload": uvicorn("auto", "--reload"),
    "uvicorn --reload, pushing": uvicorn(PUSH, "--reload"),
    "fastapi dev": fastapi("dev"),
}


@contextmanager
def serving(make: Make, folder: Path, middlewares: int = 0) -> Iterator[Server]:
    (folder / "main.py").write_text(SOURCE)
    env = {"PENSTOCK_RETRY": "500", "MIDDLEWARES": " ".join(["base"] * middlewares)}
    with make(folder, env) as server:
        yield server


@contextmanager
def tabs(server: Server) -> Iterator[list[SSEClient]]:
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.url + events_url("chat"))) for _ in range(3)]
        for client in clients:
            client.wait_open()
        yield clients


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


def stops(server: Server, number: signal.Signals) -> None:
    """It has tabs, is told to stop, stops, and says farewell to each."""
    with tabs(server) as clients:
        positions = publish(server, "chat", "1", "2")
        for client in clients:
            client.wait_for_messages(2)
        assert server.process is not None
        if number is signal.SIGINT:
            os.killpg(server.pid, number)  # as a terminal does
        else:
            server.process.send_signal(number)
        for client in clients:
            client.wait_closed()
            assert ids(client) == positions
            assert not client.errors
            assert 1_000 <= (client.retry_ms or 0) <= 10_000  # that of the farewell
        wait_for(lambda: has_ended(server), what=lambda: f"{server} ends\n{server.log}")
    assert INCOMPLETE not in server.log
    assert "Traceback" not in server.log


def has_ended(server: Server) -> bool:
    assert server.process is not None
    return server.process.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("way", KEPT | RELOADED)
def test_a_server_that_is_told_to_stop_waits_for_no_tab(
    tmp_path: Path, way: str, number: signal.Signals
) -> None:
    with serving((KEPT | RELOADED)[way], tmp_path) as server:
        stops(server, number)


@pytest.mark.parametrize("middlewares", [1, 2])
@pytest.mark.parametrize("way", ["uvicorn", "uvicorn, pushing"])
def test_nor_does_one_with_middlewares_around_the_app(tmp_path: Path, way: str, middlewares: int) -> None:
    with serving(KEPT[way], tmp_path, middlewares) as server:
        with answer(server, events_url("chat")) as response:
            assert response.getheader("X-Base") == "was here"
        stops(server, signal.SIGTERM)


@pytest.mark.parametrize("way", RELOADED)
def test_a_reload_takes_the_tabs_along(tmp_path: Path, way: str) -> None:
    with (
        serving(RELOADED[way], tmp_path) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/pid")
        positions = publish_beside(server, "chat", "before")
        client.wait_for_messages(1)
        source = tmp_path / "main.py"
        source.write_text(SOURCE + "# touched\n")

        def answered_by_a_new_one() -> bool:
            if "Reloading" not in server.log:
                source.touch()  # what changed before its first look goes unseen
            try:
                return get(server, "/pid") != old
            except OSError:  # it is between the two
                return False

        wait_for(answered_by_a_new_one, what=lambda: f"it reloads\n{server.log}")
        positions += publish_beside(server, "chat", "after")
        client.wait_for_messages(2)
        assert ids(client) == positions
        assert not client.errors  # it was not cut
