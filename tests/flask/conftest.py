"""The servers that a Flask app runs on. Each kind is started once, by the first test that asks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import Server

APP, STRANGER = "tests.flask.app:app", "tests.flask.app:stranger"
Make = Callable[[str, Path, Mapping[str, str]], Server]

KINDS: dict[str, Make] = {
    "werkzeug": lambda app, folder, env: Server.werkzeug(app, folder, env=env),
    "werkzeug-reload": lambda app, folder, env: Server.werkzeug(app, folder, env=env, reload=True),
    "waitress": lambda app, folder, env: Server.waitress(app, folder, env=env),
    "gunicorn": lambda app, folder, env: Server.gunicorn(app, folder, env=env),
    "gunicorn-preload": lambda app, folder, env: Server.gunicorn(app, folder, env=env, options=["--preload"]),
}
SHARED_ENV = {"PENSTOCK_KEEP_ALIVE": "0.5", "USE_AT_IMPORT": "1"}


class Servers:
    """The running servers by kind, for tests that leave them as they are."""

    def __init__(self, folder: Callable[[str], Path], stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Server] = {}

    def __getitem__(self, kind: str) -> Server:
        if kind not in self._running:
            server = KINDS[kind](APP, self._folder(kind), SHARED_ENV)
            self._running[kind] = self._stack.enter_context(server)
        return self._running[kind]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp, stack)


# Not a parametrised fixture of the session: those are torn down at every change of the parameter,
# and in random order that is every other test.
@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers[request.param]


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"test/{uuid.uuid4().hex[:12]}"
