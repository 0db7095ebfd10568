"""Through PgBouncer: where notifications are heard and where not; and what is left behind: nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from penstock import Event
from penstock.log.base import WAIT_S, Log
from penstock.log.postgres import PostgresLog
from tests.log.contents import some
from tests.support.postgres import PgBouncer, PostgreSQL, need_pgbouncer, need_postgres

pytestmark = [need_postgres, need_pgbouncer]

Logs = Callable[..., PostgresLog]


@pytest.fixture(scope="module")
def bouncer(server: PostgreSQL) -> Iterator[PgBouncer]:
    with PgBouncer(server) as bouncer:
        yield bouncer


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "not heard" in line]


def longest_idle_wait(log: Log, after: int) -> float:
    """How long a wait for nothing takes: listening it is WAIT_S."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        log.wait(after)
        took.append(time.monotonic() - began)
    return max(took)


def test_in_transaction_mode_it_polls_and_says_so_once(
    bouncer: PgBouncer, logs: Logs, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, other = logs(bouncer.url(f"prefix={prefix}")), logs(bouncer.url(f"prefix={prefix}"))
    log.append(some("1"))
    assert longest_idle_wait(log, 1) > WAIT_S / 2, "it waits all the same"
    [told] = warnings_of(caplog)
    assert "listen=HOST:PORT" in told
    other.append(some("2"))
    began = time.monotonic()
    log.wait(1)
    assert time.monotonic() - began < WAIT_S


@pytest.mark.parametrize("way", ["listen", "session", "poll"])
def test_what_is_said_of_a_pooler_is_heeded_without_a_word(
    server: PostgreSQL,
    bouncer: PgBouncer,
    logs: Logs,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    def use(url: str) -> None:
        log = logs(url)
        log.append(some("1"))
        log.wait(1)
        log.wait(1)
        assert log._bell.polls == (way == "poll")
        assert not warnings_of(caplog)

    if way == "listen":
        use(bouncer.url(f"prefix={prefix}&listen=127.0.0.1:{server.port}"))
    elif way == "poll":
        use(bouncer.url(f"prefix={prefix}&doorbell=poll"))
    else:
        with PgBouncer(server, "session") as of_sessions:
            use(of_sessions.url(f"prefix={prefix}"))


def test_it_leaves_nothing_behind_in_the_sessions_of_others(
    bouncer: PgBouncer, logs: Logs, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    asked = (
        "SELECT current_setting('lock_timeout'), current_setting('synchronous_commit'), "
        "current_setting('enable_seqscan'), (SELECT count(*) FROM pg_listening_channels()), "
        "(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE "
        "pid = pg_backend_pid() AND locktype = 'advisory')"
    )
    url = bouncer.url()
    with psycopg.connect(url.partition("?")[0], autocommit=True, prepare_threshold=None) as application:
        log = logs(f"{url}prefix={prefix}&sync=off")
        for number in range(20):
            log.append([Event("check", str(number), key=str(number))])
        log.read(0, 10)
        log.wait(20)
        log.open(renew=log.bounds().epoch)
        for _ in range(5):
            assert application.execute(asked.encode()).fetchall() == [("0", "on", "on", 0, 0, 0)]


def test_a_transaction_may_go_through_it_too(bouncer: PgBouncer, logs: Logs, prefix: str) -> None:
    url = bouncer.url()
    log = logs(f"{url}prefix={prefix}")
    with psycopg.connect(url.partition("?")[0]) as connection:
        log.store_in(connection, some("1", "2"))
    log.append([])
    assert [record.data for record in log.read(0, 10)] == ["1", "2"]
