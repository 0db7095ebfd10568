from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.log.nats.log import NatsLog
from tests.support.nats import NatsServer, new_stream, open_nats
from tests.support.tcp_proxy import TcpProxy

Logs = Callable[..., NatsLog]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests of a file that do not end it; each has streams of its own."""
    folder: Path = tmp_path_factory.mktemp("nats")
    with NatsServer(folder) as server:
        yield server


@pytest.fixture
def network(server: NatsServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as network:
        yield network


@pytest.fixture
def stream() -> str:
    """The name of a stream that is not there yet."""
    return new_stream()


@pytest.fixture
def url(server: NatsServer, stream: str) -> str:
    return f"{server.url}/{stream}"


@pytest.fixture
def logs(url: str) -> Iterator[Logs]:
    """Makes logs of the test's stream, or of another URL, which are closed at its end."""
    made: list[NatsLog] = []

    def make(other: str | None = None) -> NatsLog:
        made.append(open_nats(other or url))
        return made[-1]

    yield make
    for log in made:
        log.close()
