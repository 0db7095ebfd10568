"""Trimming: in small steps that keep nobody waiting, by a measure that comes to an end."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from penstock import Event
from penstock.log.base import Retention
from penstock.log.postgres import PostgresLog
from penstock.log.postgres.log import TRIM_STEP
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.wait import wait_for

pytestmark = need_postgres


def fill(log: PostgresLog, count: int, size: int = 10) -> None:
    for _ in range(count // 500):
        log.append([Event("check", "x" * size)] * 500)


def test_it_goes_in_steps(server: PostgreSQL, log: PostgresLog, prefix: str) -> None:
    fill(log, 2 * TRIM_STEP + 1000)
    with contextlib.closing(psycopg.connect(server.url(), autocommit=True)) as connection:
        step = f"SELECT {prefix}_trim(NULL, 500, NULL, {TRIM_STEP})".encode()
        removed = [connection.execute(step).fetchall()[0][0] for _ in range(4)]
    assert removed == [TRIM_STEP, TRIM_STEP, 500, 0]
    assert log.bounds()[1:] == (2 * TRIM_STEP + 501, 2 * TRIM_STEP + 1000)


def test_who_trims_keeps_nobody_from_appending_and_reading(
    server: PostgreSQL, log: PostgresLog, prefix: str
) -> None:
    fill(log, 1000)
    with contextlib.closing(psycopg.connect(server.url())) as slow:
        slow.execute(f"SELECT {prefix}_trim(NULL, 500, NULL, 1000)".encode())  # and does not commit yet
        assert log.append([Event("check", "1", key="1")]).first == 1001
        assert log.read(0, 1)[0].seq == 1
        slow.commit()
    assert log.bounds()[1:] == (501, 1001)


def test_two_may_trim_at_once(server: PostgreSQL, log: PostgresLog, prefix: str) -> None:
    fill(log, 1000)
    removed: list[int] = []
    second = threading.Thread(target=lambda: removed.append(log.trim(Retention(None, 400, None))))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND wait_event_type = 'Lock'"
    with (
        contextlib.closing(psycopg.connect(server.url())) as first,
        contextlib.closing(psycopg.connect(server.url(), autocommit=True)) as watcher,
    ):
        first.execute(f"SELECT {prefix}_trim(NULL, 500, NULL, 1000)".encode())
        second.start()
        wait_for(lambda: watcher.execute(waiting, [f"%{prefix}_trim%"]).fetchall())
        first.commit()
        second.join()
    assert removed == [100]
    assert log.bounds()[1:] == (601, 1000)


def test_bytes_are_those_of_the_data_and_200_a_record(log: PostgresLog) -> None:
    fill(log, 1000, size=800)
    assert log.trim(Retention(None, None, 1_000_000)) == 0
    assert log.trim(Retention(None, None, 999_999)) == 1
    assert log.trim(Retention(None, None, 100_000)) == 899
    assert log.trim(Retention(None, 0, None)) == 100
    fill(log, 500, size=800)
    assert log.trim(Retention(None, None, 500_000)) == 0
    assert log.trim(Retention(None, None, 499_000)) == 1
