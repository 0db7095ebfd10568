"""The log in PostgreSQL against the model of ``tests.log.test_model``; a crash cuts all connections."""

from __future__ import annotations

import contextlib
import itertools
from typing import ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from penstock.log import open_log
from penstock.log.base import Log
from tests.log.test_model import LogMachine
from tests.support.postgres import PostgreSQL, need_postgres

_numbers = itertools.count()


class PostgresMachine(LogMachine):
    server: ClassVar[PostgreSQL]

    def begin(self) -> None:
        self.prefix = f"model{next(_numbers)}"

    def make(self) -> Log:
        return open_log(self.server.url(f"prefix={self.prefix}"))

    def crash(self) -> None:
        with contextlib.closing(psycopg.connect(self.server.url(), autocommit=True)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name = 'penstock'"
            )
        for log in self.logs:
            log.close()


@pytest.fixture(scope="module", autouse=True)
def _where(server: PostgreSQL) -> None:
    PostgresMachine.server = server


TestPostgresLog = need_postgres(PostgresMachine.TestCase)
TestPostgresLog.settings = settings(
    max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
