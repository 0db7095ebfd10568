"""Real faults: servers that die or stand still, networks that are cut or deaf, standbys that take over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from penstock import Event, Penstock
from penstock.errors import AppendUnsure, Closed, LogUnavailable
from penstock.log.base import WAIT_S, Appended, Log
from penstock.log.postgres import PostgresLog
from tests.log.contents import data_of, some
from tests.log.load import Load
from tests.log.postgres.children import Child
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import DEADLINE_S, wait_for

pytestmark = need_postgres

Logs = Callable[..., PostgresLog]


@pytest.fixture
def network(server: PostgreSQL) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as network:
        yield network


@pytest.fixture
def url(server: PostgreSQL, network: TcpProxy, prefix: str) -> str:
    """Through the network, and not patient."""
    return server.url(f"prefix={prefix}&timeout=1&connect_timeout=2").replace(
        str(server.port), str(network.port)
    )


@pytest.fixture
def plain(logs: Logs, server: PostgreSQL, prefix: str) -> PostgresLog:
    """The same log, past the network, and patient."""
    return logs(server.url(f"prefix={prefix}"))


def back(log: Log) -> Appended:
    """The first append that is stored again."""

    found: list[Appended] = []

    def append() -> list[Appended]:
        with contextlib.suppress(LogUnavailable):
            found.append(log.append(some("back")))
        return found

    return wait_for(append, what="the log is back")[0]


# The server


def test_killed_under_load_and_started_again_with_its_data(
    server: PostgreSQL, logs: Logs, plain: PostgresLog
) -> None:
    with Load(logs) as load:
        for _ in range(3):
            load.until(20)
            server.restart()
        load.until(20)
        load.until_followed()
    load.check(plain)


def test_started_again_without_its_data_it_is_another_log(server: PostgreSQL, logs: Logs) -> None:
    log, follower = logs(), logs()
    before = log.append(some("1", "2"))
    follower.read(0, 10)
    server.restart(data=False)
    wait_for(lambda: is_empty(follower))
    after = back(log)
    assert after.epoch != before.epoch
    assert after.epoch == follower.bounds().epoch
    assert data_of(follower) == ["back"]


def is_empty(log: Log) -> bool:
    with contextlib.suppress(LogUnavailable):
        return log.bounds()[1:] == (1, 0)
    return False


def test_standing_still_it_is_noticed_in_time_and_all_goes_on(
    server: PostgreSQL, logs: Logs, plain: PostgresLog
) -> None:
    with Load(logs) as load:
        load.until(10)
        server.freeze()
        try:
            wait_for(lambda: load.refused | load.unsure, what="somebody notices")
            follower, began = logs(), time.monotonic()
            with pytest.raises(LogUnavailable):
                follower.wait(0)
            assert time.monotonic() - began < DEADLINE_S / 2
        finally:
            server.thaw()
        load.until(10)
        load.until_followed()
    load.check(plain)


def test_an_append_that_a_still_server_has_got_is_settled_when_it_goes_on(
    server: PostgreSQL, log: PostgresLog, plain: PostgresLog
) -> None:
    log.append(some("first"))
    server.freeze()
    thaw = threading.Timer(1.2, server.thaw)  # a little later than it waits for the answer
    thaw.start()
    stored = ["first"]
    with contextlib.suppress(LogUnavailable):
        log.append(some("a", "b"))
        stored += ["a", "b"]
    thaw.join()
    log.append(some("next"))  # whatever was late would have come before this
    assert data_of(plain) == [*stored, "next"]


def test_what_was_given_up_is_not_stored_however_late_it_comes(
    server: PostgreSQL, log: PostgresLog, prefix: str
) -> None:
    """The statement of an append, executed after its publisher was told that it was not stored."""
    log.append(some("1"))
    with psycopg.connect(server.url(), autocommit=True) as late:
        assert late.execute(f"SELECT * FROM {prefix}_settle(7, 1, NULL, '1s')").fetchall() == []
        with pytest.raises(psycopg.Error, match="given it up"):
            late.execute(
                f"SELECT {prefix}_append(7, 'new', NULL, NULL, NULL, NULL, '1s', "
                "ARRAY['check'], ARRAY['late'::bytea], NULL, NULL, NULL, NULL)"
            )
    assert data_of(log) == ["1"]


def test_sessions_that_an_administrator_ends_under_load(
    server: PostgreSQL, logs: Logs, plain: PostgresLog, prefix: str
) -> None:
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE pid <> pg_backend_pid() AND query LIKE '%{prefix}%'"
    )
    ended = 0
    with Load(logs) as load, psycopg.connect(server.url(), autocommit=True) as administrator:
        for _ in range(15):
            load.until(3)
            [(some_more,)] = administrator.execute(end.encode()).fetchall()
            ended += some_more
        load.until(3)
        load.until_followed()
    assert ended > 15
    load.check(plain)
    assert not load.unsure, "the server could be asked each time"


# The network


@pytest.mark.parametrize("fault", ["cut", "drop"])
def test_a_network_that_breaks_under_load(
    network: TcpProxy, logs: Logs, plain: PostgresLog, fault: str
) -> None:
    with Load(logs) as load:
        for _ in range(4):
            load.until(10)
            getattr(network, fault)()
            network.mend()
        load.until(10)
        load.until_followed()
    load.check(plain)


@pytest.mark.parametrize("way", ["both", "to_client"])
def test_a_network_that_is_deaf_under_load(
    network: TcpProxy, logs: Logs, plain: PostgresLog, way: str
) -> None:
    with Load(logs) as load:
        load.until(10)
        network.deafen(to_server=way == "both")
        wait_for(lambda: load.refused | load.unsure, what="somebody notices")
        network.mend()
        load.until(10)
        load.until_followed()
    load.check(plain)


def test_an_append_whose_answer_is_lost_is_found_and_told_as_stored(
    network: TcpProxy, log: PostgresLog, plain: PostgresLog
) -> None:
    log.append([Event("check", "0", key="old")])
    events = [
        Event("check", "1"),
        Event("check", "again", key="old"),
        Event("check", "2", key="new"),
        Event("check", "3"),
        Event("check", "again", key="new"),
    ]
    network.deafen(to_server=False)

    def mend_once_stored() -> None:
        wait_for(lambda: plain.bounds().head == 4)
        network.drop()
        network.mend()

    with contextlib.ExitStack() as stack:
        mending = threading.Thread(target=mend_once_stored)
        mending.start()
        stack.callback(mending.join)
        appended = log.append(events)
    assert (appended.first, list(appended.seqs)) == (2, [2, 1, 3, 4, 3])
    assert data_of(plain) == ["0", "1", "2", "3"]
    assert {record.time for record in plain.read(1, 10)} == {appended.time}


def test_an_append_that_cannot_be_asked_about_is_unsure(
    network: TcpProxy, log: PostgresLog, plain: PostgresLog
) -> None:
    log.append(some("1"))
    network.deafen(to_server=False)
    began = time.monotonic()
    with pytest.raises(AppendUnsure, match="with a key"):
        log.append(some("2"))
    assert time.monotonic() - began < DEADLINE_S / 2
    network.cut()
    network.mend()
    back(log)
    assert data_of(plain) == ["1", "2", "back"]


def test_a_wait_is_back_in_time_in_a_deaf_network(network: TcpProxy, log: PostgresLog) -> None:
    log.append(some("1"))
    log.wait(1)
    network.deafen()
    began = time.monotonic()
    log.wait(1)
    assert time.monotonic() - began < WAIT_S + 5
    with pytest.raises(LogUnavailable):
        log.read(1, 1)
    network.cut()
    network.mend()
    back(log)


def wait_until_closed(log: Log) -> None:
    with contextlib.suppress(Closed):
        while True:
            log.wait(1)


def test_close_ends_a_wait_for_a_server_that_is_gone(network: TcpProxy, log: PostgresLog) -> None:
    log.append(some("1"))
    log.wait(1)
    network.deafen()
    waiting = threading.Thread(target=wait_until_closed, args=(log,))
    waiting.start()
    began = time.monotonic()
    log.close()
    waiting.join()
    assert time.monotonic() - began < WAIT_S + 2


# Standbys


@pytest.fixture
def standby(server: PostgreSQL) -> Iterator[PostgreSQL]:
    standby = PostgreSQL()
    try:
        standby.copy_of(server)
        yield standby
    finally:
        standby.remove()


def test_a_standby_that_takes_over_without_the_last_commits_begins_a_new_epoch(
    server: PostgreSQL, standby: PostgreSQL, network: TcpProxy, logs: Logs, prefix: str
) -> None:
    publisher, follower = logs(), logs()
    before = publisher.append(some("1", "2"))
    standby.start()
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        wait_for(lambda: head_of(connection, prefix) == 2, what="the standby has what there is")
    standby.kill()
    publisher.append(some("lost 3", "lost 4"))
    assert len(follower.read(0, 10)) == 4
    server.kill()
    try:
        network.drop()
        network.target = standby.port
        standby.start()
        assert "takes no writes" in unavailable(publisher)
        standby.promote()
        after = back(publisher)
        assert (after.epoch != before.epoch, after.first) == (True, 3)
        assert follower.bounds() == (after.epoch, 1, 3)
        assert data_of(follower) == ["1", "2", "back"]
    finally:
        server.start()


def head_of(standby: psycopg.Connection[tuple[int]], prefix: str) -> int:
    try:
        [(head,)] = standby.execute(f"SELECT head FROM {prefix}_state".encode()).fetchall()
    except psycopg.errors.UndefinedTable:
        return 0
    return head


def unavailable(log: Log) -> str:
    """What an append is told."""
    with pytest.raises(LogUnavailable) as refused:
        log.append(some("never"))
    return str(refused.value)


def test_a_server_that_only_starts_up_is_away(
    server: PostgreSQL, standby: PostgreSQL, logs: Logs, prefix: str
) -> None:
    """As in the recovery after a crash. A standby that takes no questions says so as long as one likes."""
    standby.settings["hot_standby"] = "off"
    standby.start(until_ready=False)
    log = logs(standby.url(f"prefix={prefix}"))
    wait_for(lambda: "the database system is" in unavailable(log), what="it is starting up")
    standby.promote()
    assert back(log).first == 1


# The whole


def test_a_subscriber_of_another_process_gets_all_across_a_restart(server: PostgreSQL, url: str) -> None:
    with Penstock(url, publish_timeout=60) as bus, bus.subscribe("check", after="earliest") as records:
        with Child("publish", url, 40) as child:
            for number in range(40):
                child.tell()
                if number in (10, 25):
                    server.restart()
                assert child.line() == number + 1
            child.finish()
        assert [next(records).data for _ in range(40)] == [str(number) for number in range(40)]


def test_a_subscriber_is_told_when_the_log_was_wiped(server: PostgreSQL, url: str) -> None:
    gaps: list[str] = []
    with (
        Penstock(url, publish_timeout=60) as bus,
        bus.subscribe("check", after="earliest", on_gap=lambda gap: gaps.append(gap.reason)) as records,
    ):
        bus.publish("check", "1")
        assert next(records).data == "1"
        server.restart(data=False)
        bus.publish("check", "2")
        assert next(records).data == "2"
    assert gaps == ["epoch"]


def test_a_fork_harms_neither_the_parent_nor_the_child(url: str) -> None:
    with Child("fork", url) as child:
        assert child.finish()[-1] == "over"


def test_many_processes_that_begin_at_once_make_one_log(url: str, plain: PostgresLog) -> None:
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child("append", url, f"child-{n}", 20)) for n in range(4)]
        told = [line for child in children for line in child.finish()]
    assert len({epoch for _, epoch, *_ in told}) == 1
    seqs = sorted(seq for _, _, *seqs in told for seq in seqs)
    assert seqs == list(range(1, plain.bounds().head + 1))
