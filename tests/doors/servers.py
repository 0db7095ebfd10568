"""The servers that streams leave through, and what is known of each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

from penstock import Penstock
from tests.flask.ask import get
from tests.support.processes import Server
from tests.support.wait import wait_for

ASGI_APP, WSGI_APP = "tests.apps.asgi:app", "tests.apps.basic:app"
QUIET = {"PENSTOCK_KEEP_ALIVE": "60"}  # so that what is noticed is not noticed by a keep-alive
HASTY = {"PENSTOCK_KEEP_ALIVE": "0.3"}
THREADS = 32  # of servers that have a number of them: more than the streams of any test here

Env = Mapping[str, str]


Make = Callable[[Path, Env], Server]


class Serve(Protocol):
    """Makes a server in a folder, with an environment; of the app for the tests of doors, or another."""

    def __call__(self, folder: Path, env: Env, app: str = ...) -> Server: ...


class Kind(NamedTuple):
    """A way to serve.

    Attributes:
        make: makes the server, with one process that answers.
        tasks: whether its app tells how many tasks there are.
        told: whether its streams are told when it is asked to stop; else they are cut.
        reloads: makes one that starts new workers in the place of the old ones at SIGHUP, if that can be.
    """

    make: Serve
    tasks: bool = False
    told: bool = True
    reloads: Serve | None = None


def uvicorn(http: str, *options: str, workers: int = 1) -> Serve:
    def make(folder: Path, env: Env, app: str = ASGI_APP) -> Server:
        return Server.uvicorn(app, folder, env=env, http=http, options=options, workers=workers)

    return make


def hypercorn(folder: Path, env: Env, app: str = ASGI_APP) -> Server:
    return Server.hypercorn(app, folder, env=env)


def granian(folder: Path, env: Env, app: str = ASGI_APP) -> Server:
    # The old worker goes so much later than the new one comes.
    return Server.granian(app, folder, env=env, options=["--respawn-interval=0.3"])


def daphne(folder: Path, env: Env, app: str = ASGI_APP) -> Server:
    return Server.daphne(app, folder, env=env)


def gunicorn_asgi(folder: Path, env: Env, app: str = ASGI_APP) -> Server:
    options = ["--worker-class=asgi", "--graceful-timeout=20"]
    return Server.gunicorn(app, folder, env=env, threads=1, options=options)


def push_worker(folder: Path, env: Env, app: str = WSGI_APP) -> Server:
    return Server.push_worker(app, folder, env=env, options=["--graceful-timeout=20"])


def gevent(worker: str) -> Serve:
    options = [f"--worker-class={worker}", "--graceful-timeout=20"]

    def make(folder: Path, env: Env, app: str = WSGI_APP) -> Server:
        return Server.gunicorn(app, folder, env=env, threads=1, options=options)

    return make


def waitress(folder: Path, env: Env, app: str = WSGI_APP) -> Server:
    return Server.waitress(app, folder, env=env, threads=THREADS)


def development(folder: Path, env: Env, app: str = WSGI_APP) -> Server:
    return Server.werkzeug(app, folder, env=env)


# Through doors/asgi.py a stream is a task of the server's.
TASKS: dict[str, Kind] = {
    "uvicorn": Kind(uvicorn("auto"), tasks=True, reloads=uvicorn("auto", workers=2)),
    "hypercorn": Kind(hypercorn, tasks=True, reloads=hypercorn),
    "granian": Kind(granian, tasks=True, reloads=granian),
    "daphne": Kind(daphne, tasks=True),
    "gunicorn-asgi": Kind(gunicorn_asgi, tasks=True, reloads=gunicorn_asgi),
}

PUSH = "penstock.doors.uvicorn:PushProtocol"
PUSH_GEVENT = "penstock.doors.gevent.PushWorker"
ALL: dict[str, Kind] = TASKS | {
    "uvicorn-push": Kind(
        uvicorn(PUSH, "--loop=uvloop"), tasks=True, reloads=uvicorn(PUSH, "--loop=uvloop", workers=2)
    ),
    "uvicorn-push-asyncio": Kind(
        uvicorn(PUSH, "--loop=asyncio"), tasks=True, reloads=uvicorn(PUSH, "--loop=asyncio", workers=2)
    ),
    "gunicorn-push": Kind(push_worker, reloads=push_worker),
    "gevent-push": Kind(gevent(PUSH_GEVENT), reloads=gevent(PUSH_GEVENT)),
    "gevent": Kind(gevent("gevent"), reloads=gevent("gevent")),
    "waitress": Kind(waitress, told=False),
    "development": Kind(development, told=False),
}


class Servers:
    """Running servers by their names, each started by the first test that asks for it.

    Args:
        makes: makes them.
        env: their environment.
        folder: makes a folder of a name.
    """

    def __init__(self, makes: Mapping[str, Make], env: Env, folder: Callable[[str], Path]) -> None:
        self._makes = makes
        self._env = env
        self._folder = folder
        self._running: dict[str, Server] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Server:
        if name not in self._running:
            self._running[name] = self._makes[name](self._folder(name), self._env)
            self._stack.enter_context(self._running[name])
        server = self._running[name]
        return server if server.process is not None else server.start()

    def close(self) -> None:
        """End them all."""
        self._stack.close()


def reload_by_hangup(server: Server) -> None:
    """Let new workers take the place of the old ones."""
    old = _workers(server)
    assert old, f"{server} has no workers"
    os.kill(server.pid, signal.SIGHUP)
    wait_for(
        lambda: not any(map(psutil.pid_exists, old)),
        what=lambda: f"the old workers {old} of {server} are gone\n{server.log}",
    )
    wait_for(lambda: _serving(server) not in {None, *old}, what=lambda: f"{server} has new workers")


def _serving(server: Server) -> int | None:
    """The process that answers; None if there is none just now."""
    try:
        return int(get(server, "/pid"))
    except OSError:
        return None


def _workers(server: Server) -> set[int]:
    children = psutil.Process(server.pid).children()
    return {child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())}


def publish_beside(server: Server, channel: str, *data: str) -> list[str]:
    """Publish as another process of the machine does."""
    with Penstock(f"sqlite:///{server.folder}/penstock.db") as bus:
        return [str(bus.publish(channel, each)) for each in data]
