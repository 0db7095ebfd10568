"""The contract of a log, proved for PostgreSQL: where it listens, and through a pooler, where it polls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from penstock.log import open_log
from penstock.testing import LOG_CHECKS, Fresh, Opener
from tests.support.postgres import PgBouncer, PostgreSQL, need_pgbouncer, need_postgres

pytestmark = need_postgres


def storages(url: Callable[[str], str], options: str = "") -> Fresh:
    numbers = itertools.count()

    def fresh() -> Opener:
        return partial(open_log, url(f"prefix=check{next(numbers)}&{options}"))

    return fresh


@pytest.fixture(scope="module")
def listening(server: PostgreSQL) -> Fresh:
    return storages(server.url)


@pytest.fixture(scope="module")
def pooled(server: PostgreSQL) -> Iterator[Fresh]:
    with PgBouncer(server) as bouncer:
        yield storages(bouncer.url, "schema=pooled")


@pytest.mark.parametrize("name", LOG_CHECKS)
def test_contract(listening: Fresh, name: str) -> None:
    LOG_CHECKS[name](listening)


@need_pgbouncer
@pytest.mark.thorough
@pytest.mark.parametrize("name", LOG_CHECKS)
def test_contract_through_a_pooler_in_transaction_mode(pooled: Fresh, name: str) -> None:
    LOG_CHECKS[name](pooled)
