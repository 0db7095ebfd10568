"""A server for each file of tests, and in it a log of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from penstock.log import open_log
from penstock.log.base import Log
from penstock.log.postgres import PostgresLog
from tests.support.postgres import PostgreSQL

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"log{next(_numbers)}"


@pytest.fixture
def url(server: PostgreSQL, prefix: str) -> str:
    """Of a log that nobody has used yet."""
    return server.url(f"prefix={prefix}")


@pytest.fixture
def logs(url: str) -> Iterator[Callable[..., PostgresLog]]:
    """Makes logs, of that URL or another, which are closed in the end."""
    made: list[Log] = []

    def make(of: str | None = None) -> PostgresLog:
        log = open_log(of or url)
        assert isinstance(log, PostgresLog)
        made.append(log)
        return log

    yield make
    for log in made:
        log.close()


@pytest.fixture
def log(logs: Callable[..., PostgresLog]) -> PostgresLog:
    return logs()
