"""What the server refuses, and what is not as it should be: each is told by its own error, and mends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from penstock import Event
from penstock.errors import (
    LogDenied,
    LogError,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    SchemaTooNew,
)
from penstock.log.base import Retention
from penstock.log.postgres import PostgresLog
from penstock.log.postgres.pool import MOST
from tests.log.contents import data_of, some
from tests.support.ports import free_port
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.wait import wait_for

pytestmark = need_postgres

Logs = Callable[..., PostgresLog]


@pytest.fixture
def sql(server: PostgreSQL) -> Iterator[Callable[[str], list[Any]]]:
    """Does something in the database, as its owner."""
    with contextlib.closing(psycopg.connect(server.url(), autocommit=True)) as connection:

        def run(statement: str) -> list[Any]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        yield run


Sql = Callable[[str], list[Any]]


def refusal_of(log: PostgresLog, kind: type[LogError]) -> str:
    """What an append is told, exactly by this error."""
    with pytest.raises(kind) as refused:
        log.append(some("never"))
    assert type(refused.value) is kind
    return str(refused.value)


# No way in


def test_nobody_listens_there(logs: Logs) -> None:
    log = logs(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    assert "nothing was stored" in refusal_of(log, LogUnavailable)


def test_no_such_database_or_user(logs: Logs, server: PostgreSQL) -> None:
    assert "createdb" in refusal_of(logs(server.url(database="nowhere")), LogUnusable)
    assert "nobody" in refusal_of(logs(server.url(user="nobody")), LogDenied)


def test_a_wrong_password(logs: Logs, sql: Sql, server: PostgreSQL) -> None:
    hba = Path(server.data, "pg_hba.conf")
    before = hba.read_text()
    sql("CREATE USER guarded PASSWORD 'right'")
    hba.write_text("host all guarded all scram-sha-256\n" + before)
    sql("SELECT pg_reload_conf()")
    url = server.url(user="guarded").replace("guarded@", "guarded:wrong@")
    try:
        said = wait_for(lambda: refusal_or_none(logs(url), LogDenied)) or ""
        assert "guarded" in said
        assert "wrong" not in said
        assert "guarded" in refusal_of(logs(server.url(user="guarded")), LogDenied), "none at all"
        assert "public" in refusal_of(logs(url.replace("wrong", "right")), LogDenied), "may not make tables"
    finally:
        hba.write_text(before)
        sql("SELECT pg_reload_conf()")


def refusal_or_none(log: PostgresLog, kind: type[LogError]) -> str | None:
    try:
        log.exists()
    except kind as refused:
        return str(refused)
    return None


def test_a_right_that_is_missing(logs: Logs, log: PostgresLog, sql: Sql, url: str, prefix: str) -> None:
    log.append(some("1"))
    sql(f"CREATE USER {prefix}")
    sql(f"GRANT SELECT ON {prefix}_log, {prefix}_record, {prefix}_state, {prefix}_outbox TO {prefix}")
    sql(f"GRANT SELECT ON {prefix}_refused TO {prefix}")
    reader = logs(url.replace("postgres@", f"{prefix}@"))
    assert f"{prefix}_record" in refusal_of(reader, LogDenied)
    assert data_of(reader) == ["1"]
    sql(f"GRANT INSERT ON {prefix}_record TO {prefix}")
    reader.append(some("2"))


def test_too_many_connections_and_back(logs: Logs, log: PostgresLog, server: PostgreSQL, sql: Sql) -> None:
    log.append(some("1"))
    [(most,)] = sql("SELECT current_setting('max_connections')::integer")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            for _ in range(most):
                stack.enter_context(contextlib.closing(psycopg.connect(server.url())))
        late = logs()
        assert "too many clients" in refusal_of(late, LogUnavailable)
        log.append(some("2"))
    wait_for(lambda: not refused(late))
    assert data_of(log) == ["1", "2", "3"]


def refused(log: PostgresLog) -> bool:
    try:
        log.append(some("3"))
    except LogUnavailable:
        return True
    return False


# Not a log


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE {}_log (id integer)",
        "CREATE TABLE {}_log (version text, id integer)",
        "CREATE VIEW {}_log AS SELECT 1 AS one",
        "CREATE SEQUENCE {}_log",
        "CREATE TABLE {}_record (id integer)",
        "CREATE TABLE {}_outbox (id integer)",
        "CREATE FUNCTION {}_offer(text, text) RETURNS void LANGUAGE sql AS 'SELECT'",
    ],
)
def test_something_else_under_its_name_is_left_alone(
    log: PostgresLog, sql: Sql, prefix: str, made: str
) -> None:
    if "(version text" in made:
        made += f"; INSERT INTO {prefix}_log VALUES ('one', 1)"
    for statement in made.format(prefix).split("; "):
        sql(statement)
    assert "left as it is" in refusal_of(log, NotALog)
    [(count,)] = sql(f"SELECT count(*) FROM pg_class WHERE relname LIKE '{prefix}\\_%' AND relkind = 'r'")
    assert count == made.count("TABLE")


def test_a_newer_schema_is_left_alone(logs: Logs, log: PostgresLog, sql: Sql, prefix: str) -> None:
    log.append(some("1"))
    sql(f"UPDATE {prefix}_log SET version = 2")
    late = logs()
    assert "upgrade Penstock" in refusal_of(late, SchemaTooNew)
    sql(f"UPDATE {prefix}_log SET version = 1")
    late.append(some("2"))


def test_a_log_whose_parts_are_gone_says_so(log: PostgresLog, sql: Sql, prefix: str) -> None:
    log.append(some("1"))
    sql(f"DROP TABLE {prefix}_refused CASCADE")
    assert "parts of the log are gone" in refusal_of(log, NotALog)


def test_a_database_that_cannot_hold_all_text_is_refused(logs: Logs, sql: Sql, server: PostgreSQL) -> None:
    sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    assert "ENCODING 'UTF8'" in refusal_of(logs(server.url(database="latin")), LogUnusable)


# Wiped


def test_a_log_that_was_dropped_is_made_anew_in_a_new_epoch(logs: Logs, sql: Sql, prefix: str) -> None:
    log, follower = logs(), logs()
    before = log.append(some("1", "2"))
    assert len(follower.read(0, 10)) == 2
    for statement in sql(
        "SELECT format('DROP %s %s CASCADE', CASE prokind WHEN 'f' THEN 'FUNCTION' END, oid::regprocedure) "
        f"FROM pg_proc WHERE proname LIKE '{prefix}\\_%'"
    ):
        sql(statement[0])
    for table in ("log", "record", "outbox", "refused"):
        sql(f"DROP TABLE {prefix}_{table} CASCADE")
    after = log.append(some("3"))
    assert after.epoch != before.epoch
    assert (after.first, follower.bounds()) == (1, (after.epoch, 1, 1))
    assert data_of(follower) == ["3"]


def test_a_log_that_was_emptied_begins_a_new_epoch(logs: Logs, sql: Sql, prefix: str) -> None:
    log, follower = logs(), logs()
    before = log.append(some("1", "2"))
    follower.bounds()
    sql(f"TRUNCATE {prefix}_log, {prefix}_record")
    assert follower.bounds()[1:] == (1, 0)
    after = log.append(some("3"))
    assert (after.first, data_of(follower)) == (1, ["3"])
    assert after.epoch != before.epoch


@pytest.mark.parametrize("first", ["append", "read", "bounds"])
def test_a_log_that_lost_its_newest_records_begins_a_new_epoch(
    logs: Logs, sql: Sql, prefix: str, first: str
) -> None:
    """As after a failover to a standby that lagged; connections may have stayed, through a pooler."""
    log, other = logs(), logs()
    before = log.append(some("1", "2", "3"))
    sql(f"DELETE FROM {prefix}_record WHERE seq > 1")
    other.append(some("other 2", "other 3", "other 4"))  # it has not seen those that are gone
    if first == "append":
        after = log.append(some("5"))
        assert (after.epoch, after.first) == (log.bounds().epoch, 5)
    elif first == "read":
        assert {record.epoch for record in log.read(0, 10)} == {log.bounds().epoch}
    assert log.bounds().epoch != before.epoch
    assert log.bounds().epoch == other.bounds().epoch
    assert [record.data for record in other.read(0, 4)] == ["1", "other 2", "other 3", "other 4"]


def test_of_many_who_notice_a_loss_one_begins_the_new_epoch(logs: Logs, sql: Sql, prefix: str) -> None:
    many = [logs() for _ in range(4)]
    many[0].append(some("1", "2", "3"))
    for log in many:
        assert len(log.read(0, 10)) == 3
    sql(f"DELETE FROM {prefix}_record WHERE seq > 1")
    epochs: list[str] = []
    threads = [
        threading.Thread(target=lambda log=log: epochs.append(log.append(some("x")).epoch)) for log in many
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(epochs) == {many[0].bounds().epoch}
    assert many[0].bounds().head == 5


def test_trimming_is_no_loss(logs: Logs, sql: Sql) -> None:
    log, other = logs(), logs()
    epoch = log.append(some("1", "2", "3")).epoch
    other.trim(Retention(None, 0, None))
    assert log.bounds() == (epoch, 4, 3)
    assert log.read(0, 10) == []
    assert log.append(some("4")).epoch == epoch


# Settings of the server


@pytest.mark.parametrize(
    ("setting", "kind", "said"),
    [
        ("default_transaction_read_only = on", LogUnavailable, "takes no writes"),
        ("statement_timeout = 1", LogUnavailable, "statement_timeout"),
    ],
)
def test_a_setting_of_the_user_that_makes_it_impossible(
    log: PostgresLog,
    logs: Logs,
    sql: Sql,
    url: str,
    prefix: str,
    setting: str,
    kind: type[LogError],
    said: str,
) -> None:
    log.open()
    sql(f"CREATE USER {prefix} SUPERUSER")
    sql(f"ALTER USER {prefix} SET {setting}")
    user = logs(url.replace("postgres@", f"{prefix}@"))
    if "statement_timeout" in setting:  # which counts what is waited for
        sql(f"BEGIN; LOCK TABLE {prefix}_record")
    try:
        assert said in refusal_of(user, kind)
    finally:
        with contextlib.suppress(psycopg.Error):
            sql("ROLLBACK")
    sql(f"ALTER USER {prefix} RESET {setting.partition(' ')[0]}")
    logs(url.replace("postgres@", f"{prefix}@")).append(some("1"))


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_another_isolation_level_of_the_user_harms_nothing(
    log: PostgresLog, logs: Logs, sql: Sql, url: str, prefix: str, level: str
) -> None:
    log.open()
    sql(f"CREATE USER {prefix} SUPERUSER")
    sql(f"ALTER USER {prefix} SET default_transaction_isolation = '{level}'")
    users = [logs(url.replace("postgres@", f"{prefix}@")) for _ in range(3)]

    def append(log: PostgresLog) -> None:
        for number in range(30):
            log.append(some(str(number)))

    threads = [threading.Thread(target=append, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.bounds().head == 90


def test_who_cannot_have_the_lock_is_told_in_time(logs: Logs, sql: Sql, url: str, prefix: str) -> None:
    log = logs(f"{url}&timeout=0.5")
    log.append(some("1"))
    sql("BEGIN")
    sql(f"SELECT pg_advisory_xact_lock('{prefix}_log'::regclass::oid::integer, 1)")
    assert "others held the log" in refusal_of(log, LogUnavailable)
    assert data_of(log) == ["1"], "who reads does not wait"
    sql("ROLLBACK")
    log.append(some("2"))
    assert data_of(log) == ["1", "2"]


def test_sessions_that_the_server_ends_for_being_idle_are_no_trouble(
    log: PostgresLog, logs: Logs, sql: Sql, url: str, prefix: str
) -> None:
    log.open()
    if sql("SELECT current_setting('server_version_num')::integer")[0][0] < 140000:
        pytest.skip("idle_session_timeout came with PostgreSQL 14; the cure: a newer one")
    sql(f"CREATE USER {prefix} SUPERUSER")
    sql(f"ALTER USER {prefix} SET idle_session_timeout = 300")
    sql(f"ALTER USER {prefix} SET idle_in_transaction_session_timeout = 300")
    user = logs(url.replace("postgres@", f"{prefix}@"))
    for number in range(3):
        user.append(some(str(number)))
        user.wait(number + 1)
        wait_for(lambda: not sql(f"SELECT 1 FROM pg_stat_activity WHERE usename = '{prefix}'"))
    assert data_of(user) == ["0", "1", "2"]


@pytest.mark.parametrize("sync", ["off", "local", "on"])
def test_how_much_a_commit_waits_for_is_set_in_the_url(
    logs: Logs, sql: Sql, url: str, prefix: str, sync: str
) -> None:
    log = logs(f"{url}&sync={sync}")
    log.open()
    sql(f"CREATE TABLE {prefix}_seen (level text)")
    sql(
        f"CREATE FUNCTION {prefix}_see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {prefix}_seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    sql(f"CREATE TRIGGER see AFTER INSERT ON {prefix}_record EXECUTE FUNCTION {prefix}_see()")
    log.append(some("1"))
    assert sql(f"SELECT level FROM {prefix}_seen") == [(sync,)]


def test_a_dangerous_setting_is_told_once(
    logs: Logs, caplog: pytest.LogCaptureFixture, server: PostgreSQL
) -> None:
    assert server.settings["fsync"] == "off"
    log = logs()
    for _ in range(3):
        log.open()
        log.bounds()
    told = [record.getMessage() for record in caplog.records if record.name == "penstock.log"]
    assert len([line for line in told if "Set fsync = on" in line]) == 1


def test_the_pool_has_a_limit_and_who_waits_gets_his_turn(
    log: PostgresLog, sql: Sql, prefix: str, server: PostgreSQL
) -> None:
    log.append(some("1"))
    threads = [threading.Thread(target=log.append, args=(some("x"),)) for _ in range(3 * MOST)]
    lock = f"SELECT pg_advisory_xact_lock('{prefix}_log'::regclass::oid::integer, 1)"
    waiting = (
        f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%{prefix}_append%' AND wait_event = 'advisory'"
    )
    with psycopg.connect(server.url()) as holder:
        holder.execute(lock.encode())
        for thread in threads:
            thread.start()
        wait_for(lambda: len(sql(waiting)) == MOST)
    for thread in threads:
        thread.join()
    assert log.bounds().head == 1 + 3 * MOST


# No room


@pytest.fixture
def small_disk(server: PostgreSQL) -> Iterator[str]:
    """A folder of 32 MB, that the server may write."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk that is full is a file system of the test's own; the cure: run the tests as root")
    folder = Path(server.folder, "small")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk that is full needs a mount; the cure: a container that may (--cap-add SYS_ADMIN)")
    try:
        shutil.chown(folder, "postgres", "postgres")
        yield str(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(log: PostgresLog) -> int:
    """Append until there is no more room; how many were stored."""
    for number in itertools.count():
        try:
            log.append([Event("check", os.urandom(100_000).hex(), key=str(number))])
        except LogFull:
            break
    return number


def test_a_full_disk_is_told_and_trimming_helps(
    log: PostgresLog, sql: Sql, prefix: str, small_disk: str
) -> None:
    log.open()
    sql(f"CREATE TABLESPACE {prefix} LOCATION '{small_disk}'")
    try:
        sql(f"ALTER TABLE {prefix}_record SET TABLESPACE {prefix}")
        ballast = Path(small_disk, "ballast")
        ballast.write_bytes(b"x" * 4_000_000)
        stored = fill(log)
        assert stored > 20
        assert log.bounds().head == stored
        ballast.unlink()  # vacuum too needs some room
        log.trim(Retention(None, 5, None))
        sql(f"VACUUM {prefix}_record")
        again = log.append([Event("check", "x" * 100_000, key=str(stored))])
        assert list(again.seqs) == [stored + 1]
    finally:
        sql(f"DROP TABLE {prefix}_record CASCADE")
        sql(f"DROP TABLESPACE {prefix}")


def test_messages_name_the_log_and_no_secret(logs: Logs, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = logs(re.sub("postgres@", "postgres:pa55word@", url) + "&create=init")
    with pytest.raises(LogUnusable) as refused:
        secret.append(some("1"))
    assert secret.url in str(refused.value)
    assert "pa55word" not in str(refused.value) + caplog.text
