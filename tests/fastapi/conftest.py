"""The servers that a FastAPI app runs on. Each kind is started once, by the first test that asks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.doors.servers import PUSH, QUIET, Servers
from tests.support.oldest import need_oldest, with_oldest
from tests.support.processes import Server

APP = "tests.fastapi.app:app"
OLDEST = ("fastapi", "starlette")


def make(http: str, **more: str) -> Callable[[Path, Mapping[str, str]], Server]:
    return lambda folder, env: Server.uvicorn(APP, folder, env={**env, **more}, http=http)


KINDS = {
    "plain": make("auto"),
    "push": make(PUSH),
    "plain-oldest": make("auto", **with_oldest(*OLDEST)),
    "push-oldest": make(PUSH, **with_oldest(*OLDEST)),
}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(KINDS, QUIET, tmp_path_factory.mktemp)
    yield servers
    servers.close()


@pytest.fixture(
    params=[pytest.param(name, marks=[need_oldest(*OLDEST)] if "oldest" in name else []) for name in KINDS]
)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers[request.param]


@pytest.fixture(params=["plain", "push"])
def new_server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    """One with the newest FastAPI."""
    return servers[request.param]


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"open/{uuid.uuid4().hex[:12]}"
