"""Publishing in a transaction of the application's own: events share its fate, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from penstock import Event, Penstock
from penstock.errors import ConfigError, InvalidEvent, LogUnavailable
from penstock.log.base import WAIT_S
from penstock.log.postgres import PostgresLog
from tests.log.contents import data_of, some
from tests.log.postgres.children import Child
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.wait import DEADLINE_S, wait_for

pytestmark = need_postgres

Connection = psycopg.Connection[Any]


@pytest.fixture
def connections(server: PostgreSQL) -> Iterator[Callable[[], Connection]]:
    """Makes connections of an application, which are in no autocommit."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(psycopg.connect(server.url())))


@pytest.fixture
def connection(connections: Callable[[], Connection]) -> Connection:
    return connections()


def moved(log: PostgresLog) -> list[str]:
    """What the log has after an append of something else."""
    log.append([])
    return data_of(log)


def test_events_come_with_the_commit_in_their_order(log: PostgresLog, connection: Connection) -> None:
    data = ["", "\0", "é\U0001f4a7", *(str(number) for number in range(2_000))]
    log.store_in(connection, some(*data[:5]))
    log.store_in(connection, [Event("a/b", "full", "type", 5, "key"), Event("a", "", end=True)])
    log.store_in(connection, some(*data[5:]))
    assert moved(log) == [], "nobody sees them before the commit"
    connection.commit()
    assert moved(log) == [*data[:5], "full", "", *data[5:]]
    full, end = log.read(5, 2)
    assert full[3:] == ("a/b", "full", "type", 5, "key", False)
    assert end[3:] == ("a", "", None, None, None, True)
    assert moved(log) == data_of(log), "once"


def test_a_rollback_leaves_nothing(log: PostgresLog, connection: Connection) -> None:
    log.store_in(connection, some("gone"))
    connection.rollback()
    with contextlib.suppress(ZeroDivisionError), connection.transaction():
        log.store_in(connection, some("gone too"))
        raise ZeroDivisionError
    assert moved(log) == []


def test_the_rollback_of_a_savepoint_leaves_the_rest(log: PostgresLog, connection: Connection) -> None:
    with connection.transaction():
        log.store_in(connection, some("before"))
        with connection.transaction(force_rollback=True):
            log.store_in(connection, some("within"))
        log.store_in(connection, some("after"))
    assert moved(log) == ["before", "after"]


def test_the_changes_of_the_transaction_and_its_events_are_seen_together(
    log: PostgresLog, connections: Callable[[], Connection], prefix: str
) -> None:
    connection, other = connections(), connections()
    connection.execute(f"CREATE TABLE {prefix}_orders (id integer)")
    connection.commit()
    log.store_in(connection, some("order 1"))
    connection.execute(f"INSERT INTO {prefix}_orders VALUES (1)")
    connection.commit()
    assert moved(log) == ["order 1"]
    assert other.execute(f"SELECT id FROM {prefix}_orders").fetchall() == [(1,)]


def test_a_transaction_that_stays_open_delays_nobody(
    log: PostgresLog, connections: Callable[[], Connection]
) -> None:
    slow, quick = connections(), connections()
    log.store_in(slow, some("slow 1"))
    began = time.monotonic()
    for number in range(20):
        log.append(some(f"direct {number}"))
        log.store_in(quick, some(f"quick {number}"))
        quick.commit()
    assert time.monotonic() - began < DEADLINE_S / 3
    log.store_in(slow, some("slow 2"))
    expected = [f"{kind} {number}" for number in range(20) for kind in ("direct", "quick")]
    assert moved(log) == expected, "a commit comes before what is appended after it"
    slow.commit()
    assert moved(log) == [*expected, "slow 1", "slow 2"]


def test_a_row_that_somebody_has_locked_is_left_for_later(
    log: PostgresLog, connections: Callable[[], Connection], prefix: str
) -> None:
    connection, stranger = connections(), connections()
    log.store_in(connection, some("1", "2", "3"))
    connection.commit()
    stranger.execute(f"SELECT * FROM {prefix}_outbox WHERE data = '2' FOR UPDATE")
    assert moved(log) == ["1", "3"]
    stranger.rollback()
    assert moved(log) == ["1", "3", "2"]


def test_a_key_is_stored_once_however_it_comes(log: PostgresLog, connection: Connection) -> None:
    log.append(some("first", key="a"))
    log.store_in(connection, [*some("again", key="a"), *some("new", key="b"), *some("twice", key="b")])
    connection.commit()
    assert moved(log) == ["first", "new"]
    assert list(log.append(some("late", key="b")).seqs) == [2]


def test_a_follower_is_woken_by_the_commit(
    logs: Callable[..., PostgresLog], connections: Callable[[], Connection]
) -> None:
    follower, publisher, connection = logs(), logs(), connections()
    follower.wait(0)  # it listens from now on
    delays = []
    for number in range(5):
        publisher.store_in(connection, some(str(number)))
        timer = threading.Timer(0.05, connection.commit)
        timer.start()
        began = time.monotonic()
        while not follower.read(number, 1):
            follower.wait(number)
            assert time.monotonic() - began < DEADLINE_S
        timer.join()
        delays.append(time.monotonic() - began - 0.05)
    assert min(delays) < WAIT_S / 2, delays


@pytest.mark.parametrize("what", ["open", "append", "poll"])
def test_what_was_left_while_nobody_lived_is_moved(
    logs: Callable[..., PostgresLog], connection: Connection, url: str, what: str
) -> None:
    publisher = logs()
    publisher.store_in(connection, some("left"))
    publisher.close()
    connection.commit()
    other = logs(f"{url}&doorbell=poll") if what == "poll" else logs()
    if what == "open":
        other.open()
    elif what == "append":
        other.append(some("next"))
    else:
        other.wait(0)
    assert data_of(other)[0] == "left"


def test_what_a_notification_did_not_tell_is_found_by_looking(
    logs: Callable[..., PostgresLog], connections: Callable[[], Connection], prefix: str
) -> None:
    follower, connection = logs(), connections()
    follower.wait(0)
    follower.store_in(connection, some("told"))
    connection.execute(f"DELETE FROM {prefix}_outbox")
    connection.commit()
    follower.wait(0)
    connection.execute(
        f"INSERT INTO {prefix}_outbox (\"end\", channel, data) VALUES (false, 'check', 'untold')"
    )
    connection.commit()

    def found() -> list[str]:
        follower.wait(0)
        return data_of(follower)

    assert wait_for(found) == ["untold"]


def test_many_who_move_at_once_move_each_event_once(
    logs: Callable[..., PostgresLog], connections: Callable[[], Connection]
) -> None:
    writers, followers = 4, 4
    over = threading.Event()
    reader = logs()

    def write(name: int, connection: Connection, log: PostgresLog) -> None:
        for turn in range(25):
            log.store_in(connection, some(f"{name} {turn} a", f"{name} {turn} b"))
            connection.commit()

    def follow(log: PostgresLog) -> None:
        after = 0
        while not over.is_set():
            log.wait(after)
            after = log.bounds().head

    writing = [threading.Thread(target=write, args=(name, connections(), logs())) for name in range(writers)]
    following = [threading.Thread(target=follow, args=(logs(),)) for _ in range(followers)]
    for thread in [*following, *writing]:
        thread.start()
    for thread in writing:
        thread.join(DEADLINE_S)
    wait_for(lambda: reader.bounds().head >= writers * 50)
    over.set()
    for thread in following:
        thread.join(DEADLINE_S)
    found = moved(reader)
    assert len(found) == len(set(found)) == writers * 50
    for name in range(writers):
        own = [data for data in found if data.startswith(f"{name} ")]
        assert own == [f"{name} {turn} {part}" for turn in range(25) for part in "ab"]


def test_killed_between_commit_and_move_nothing_is_lost_or_doubled(
    logs: Callable[..., PostgresLog], url: str, prefix: str, connection: Connection
) -> None:
    told: list[str] = []
    for turn in range(3):
        with Child("publish_in_transactions", url, f"life {turn}", 10_000) as child:
            told += [child.line() for _ in range(10)]
            told += child.kill()
    log = logs()
    log.open()
    found = data_of(log)
    assert len(found) == len(set(found))
    assert set(told) <= set(found)
    assert len(found) <= len(told) + 3, "one at the most of each life was committed and not told"
    assert connection.execute(f"SELECT count(*) FROM {prefix}_outbox").fetchone() == (0,)


def test_killed_while_they_move_nothing_is_lost_or_doubled(
    logs: Callable[..., PostgresLog], url: str, connections: Callable[[], Connection]
) -> None:
    log, connection, killer = logs(), connections(), connections()
    killer.autocommit = True
    expected: list[str] = []
    for turn in range(5):
        data = [f"{turn} {number}" for number in range(3_000)]
        log.store_in(connection, some(*data))
        connection.commit()
        expected += data
        with Child("move", url) as child:
            child.line()
            child.tell()
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND query LIKE '%_append%' AND state = 'active'"
            )
            child.kill()
    assert wait_for(lambda: len(moved(log)) >= len(expected))
    assert data_of(log) == expected


# With the bus


def test_publish_joins_a_transaction_and_a_subscriber_gets_it_after_the_commit(
    url: str, connection: Connection
) -> None:
    with Penstock(url) as bus, bus.subscribe("check", after="earliest") as records:
        nothing = bus.publish("check", {"order": 1}, event="paid", connection=connection)
        assert nothing is None
        bus.publish_many([*some("2", "3")], connection=connection)
        assert bus.publish("check", "at once").seq == 1
        connection.commit()
        assert [next(records).data for _ in range(4)] == ["at once", '{"order":1}', "2", "3"]


def test_apublish_joins_one_of_coroutines(url: str, server: PostgreSQL) -> None:
    async def publish(bus: Penstock) -> int:
        async with await psycopg.AsyncConnection.connect(server.url()) as connection:
            await bus.apublish("check", "1", connection=connection)
            await bus.apublish_many(some("2"), connection=connection)
            await connection.commit()
            await bus.apublish("check", "gone", connection=connection)
            await connection.rollback()
        return (await bus.apublish("check", "3")).seq

    with Penstock(url) as bus:
        assert asyncio.run(publish(bus)) == 3


def test_events_are_checked_where_they_are_published(url: str, connection: Connection) -> None:
    with Penstock(url, max_event_bytes=100) as bus:
        for data in (object(), "x" * 101):
            with pytest.raises(InvalidEvent):
                bus.publish("check", data, connection=connection)
        with pytest.raises(InvalidEvent):
            bus.publish("penstock.own", "", connection=connection)
        bus.publish("check", "sound", connection=connection)
        connection.commit()
        assert bus.publish("check", "next").seq == 2


@pytest.mark.parametrize("of", ["memory:", "sqlite:///app.db"])
def test_other_logs_say_that_they_cannot(
    of: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with Penstock(of) as bus, pytest.raises(ConfigError, match="postgresql://"):
        bus.publish("check", "1", connection=connection)


# What cannot be joined


def refusal_of(log: PostgresLog, connection: object) -> str:
    with pytest.raises(ConfigError) as refused:
        log.store_in(connection, some("never"))
    return str(refused.value)


def test_a_connection_in_autocommit_needs_a_transaction(log: PostgresLog, connection: Connection) -> None:
    connection.autocommit = True
    assert "connection.transaction()" in refusal_of(log, connection)
    with connection.transaction():
        log.store_in(connection, some("1"))
    assert moved(log) == ["1"]


def test_a_connection_that_leads_elsewhere_is_refused(
    log: PostgresLog, logs: Callable[..., PostgresLog], server: PostgreSQL, prefix: str
) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {prefix}")
    with contextlib.closing(psycopg.connect(server.url(database=prefix))) as elsewhere:
        assert "without the log" in refusal_of(log, elsewhere)
        elsewhere.rollback()
        namesake = logs(server.url(f"prefix={prefix}", database=prefix))
        namesake.open()
        assert "without the log" in refusal_of(log, elsewhere)
        elsewhere.rollback()
        namesake.store_in(elsewhere, some("1"))
        elsewhere.commit()
        assert moved(namesake) == ["1"]
        assert moved(log) == []


def test_a_connection_that_can_do_nothing_says_so(log: PostgresLog, connection: Connection) -> None:
    connection.execute("SET TRANSACTION READ ONLY")
    assert "read-only" in refusal_of(log, connection)
    with pytest.raises(LogUnavailable, match="roll it back"):
        log.store_in(connection, some("never"))
    connection.close()
    assert "closed" in refusal_of(log, connection)
    assert "not builtins.object" in refusal_of(log, object())


def test_each_kind_has_its_own_call(log: PostgresLog, connection: Connection, server: PostgreSQL) -> None:
    async def refuse() -> None:
        with pytest.raises(ConfigError, match="blocks"):
            await log.astore_in(connection, some("never"))
        with pytest.raises(ConfigError, match="takes"):
            await log.astore_in(object(), some("never"))
        async with await psycopg.AsyncConnection.connect(server.url()) as of_coroutines:
            with pytest.raises(ConfigError, match="await apublish"):
                log.store_in(of_coroutines, some("never"))

    asyncio.run(refuse())
