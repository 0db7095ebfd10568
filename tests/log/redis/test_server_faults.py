"""Servers that are killed, frozen, wiped, full, or made a replica of another, while a log is used."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.core.event import Event
from penstock.errors import AppendUnsure, LogCorrupt, LogError, LogFull, LogUnavailable
from penstock.log.base import Log, Retention
from penstock.testing.storage import everything, numbers, some
from tests.log.redis.parties import Follower, Publisher, data_of, until_it_works
from tests.support.redis import DURABLE, RedisServer, need_redis, opened
from tests.support.wait import wait_for

pytestmark = need_redis


@pytest.fixture
def durable() -> Iterator[RedisServer]:
    """One that keeps all that it acknowledged, and may be killed."""
    with RedisServer(*DURABLE) as server:
        yield server


def test_a_server_killed_under_load_keeps_what_was_told_as_stored(durable: RedisServer) -> None:
    url = durable.url(prefix="load", timeout=30)  # to start again takes its time
    with opened(url, url, url) as [one, other, watcher], Follower(watcher) as follower:
        with Publisher(one, "one") as first, Publisher(other, "other") as second:
            for _ in range(3):
                first.until_more()
                durable.restart()
            first.until_more()
            second.until_more()
        records = everything(one)
        assert numbers(records) == list(range(1, len(records) + 1))
        first.check(records)
        second.check(records)
        follower.until(1, numbers(records))
        assert follower.got == {records[0].epoch: records}
        assert first.refused
        assert not first.unsure + second.unsure, "the server could be asked"


def test_a_server_that_lost_all_begins_a_new_log(
    durable: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = durable.url(prefix="all")
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        old = log.append(some(5))
        follower.until(1, [1, 2, 3, 4, 5])
        durable.kill()
        durable.lose_its_data()
        durable.start()
        new = log.append(some(2))
        assert new.epoch != old.epoch
        follower.until(2, [1, 2])
        assert follower.epochs == [old.epoch, new.epoch]
        assert "is gone" in caplog.text


def test_a_log_that_is_wiped_while_it_is_followed_has_a_new_epoch(server: RedisServer) -> None:
    url = server.url()
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        old = log.append([Event("check", "1", key="a")])
        follower.until(1, [1])
        server.ask("FLUSHALL")
        follower.until(2, [])
        new = log.append([Event("check", "2", key="a")])
        assert (new.epoch, list(new.seqs)) == (follower.epochs[1], [1])
        assert new.epoch != old.epoch
        follower.until(2, [1])


# What is done first, after events were lost and others were written; it must be in the new epoch.
FIRST: dict[str, Callable[[Log], str]] = {
    "append": lambda log: log.append([Event("check", "first")]).epoch,
    "read": lambda log: log.read(0, 100)[0].epoch,
    "read on": lambda log: ([*log.read(8, 100), *log.read(4, 1)])[0].epoch,
    "bounds": lambda log: log.bounds().epoch,
    "wait": lambda log: (log.wait(4), log.read(4, 100))[1][0].epoch,
    "trim": lambda log: (log.trim(Retention(None, 1, None)), log.bounds())[1].epoch,
}


@pytest.mark.parametrize(
    ("written", "first"),
    [
        *((written, use) for written in (0, 2, 3) for use in ("append", "read on")),
        *((10, use) for use in FIRST),
    ],
)
def test_a_server_that_lost_the_newest_has_a_new_epoch(
    durable: RedisServer, written: int, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever others have written meanwhile: the head may be lower than it was, the same, or higher."""
    url = durable.url(prefix="newest")
    with opened(url) as [log]:
        old = log.append(some(5))
        durable.kill()
        durable.take_backup()
        durable.start()
        log.append([Event("check", f"lost {number}", key=str(number)) for number in range(3)])
        durable.kill()
        durable.restore_backup()
        durable.start()
        for number in range(written):
            with opened(url) as [stranger]:  # who does not know what was there
                assert stranger.append([Event("check", f"new {number}")]).first == 6 + number
        new = FIRST[first](log)
        assert new != old.epoch
        assert "lost its newest" in caplog.text
        again = log.append([Event("check", "again", key="0")])
        assert again.seqs[0] > 5 + written, "the key is not known, as its event is not there"
        assert again.epoch == new, "it began once"


@pytest.mark.parametrize(("written", "first"), [(0, "append"), (3, "append"), *((10, use) for use in FIRST)])
def test_a_backup_put_back_under_a_running_log_makes_a_new_epoch(
    server: RedisServer, written: int, first: str
) -> None:
    """Its connections stay as they are."""
    prefix = f"back{written}{first.replace(' ', '')}"
    url, keys = server.url(prefix=prefix), [f"{{{prefix}}}:log", f"{{{prefix}}}:events"]
    with opened(url, url) as [log, other]:
        old = log.append(some(5))
        backup = [server.ask("DUMP", key) for key in keys]
        log.append([Event("check", "lost")] * 3)
        for key, value in zip(keys, backup, strict=True):
            server.ask("RESTORE", key, 0, value, "REPLACE")
        assert other.bounds().epoch == old.epoch, "it has not seen them"
        for number in range(written):
            assert other.append([Event("check", f"new {number}")]).first == 6 + number
        # Where newer ones have come, it does not look for what it knows each time.
        if written < 3 or first not in ("append", "trim"):
            assert FIRST[first](log) != old.epoch
        assert log.bounds().epoch != old.epoch


def test_of_many_that_notice_one_begins_the_new_epoch(durable: RedisServer) -> None:
    url = durable.url(prefix="many")
    with opened(url, url, url, url) as logs:
        logs[0].append(some(5))
        durable.kill()
        durable.take_backup()
        durable.start()
        old = logs[1].append(some(3))
        assert {len(everything(log)) for log in logs} == {8}
        durable.kill()
        durable.restore_backup()
        durable.start()
        found: list[str] = []
        threads = [threading.Thread(target=lambda log=log: found.append(log.bounds().epoch)) for log in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({*found}) == 1
        assert old.epoch not in found


def test_a_restart_that_lost_nothing_keeps_the_epoch(durable: RedisServer) -> None:
    url = durable.url(prefix="nothing")
    with opened(url, url) as [log, other]:
        epoch = log.append(some(3)).epoch
        for _ in range(3):
            log.append(some(2))
            log.trim(Retention(None, 3, None))
            durable.restart()
            assert other.append(some(1)).epoch == epoch
            assert log.bounds().epoch == epoch
        log.trim(Retention(None, 0, None))
        durable.restart()
        assert log.bounds() == (epoch, 13, 12)


def test_a_frozen_server_is_away_and_what_came_of_an_append_is_told(server: RedisServer) -> None:
    url = server.url(timeout=1)
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        log.append(some(1))
        follower.until(1, [1])
        with server.frozen():
            began = time.monotonic()
            with pytest.raises(AppendUnsure):  # the server could not be asked
                log.append([Event("check", "while frozen", key="key")])
            for use in (lambda: log.read(0, 10), lambda: log.append(some(1))):
                with pytest.raises(LogUnavailable, match="did not answer"):
                    use()
            assert time.monotonic() - began < 20
            assert follower.away
        until_it_works(log.bounds)
        appended = log.append([Event("check", "while frozen", key="key")])
        assert list(appended.seqs) == [2]
        follower.until(1, [1, 2])


def test_a_server_frozen_for_a_moment_is_only_late(server: RedisServer) -> None:
    url = server.url(timeout=2)
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        with Publisher(log, "one") as publisher:
            for _ in range(3):
                publisher.until_more(20)
                server.ask("CLIENT", "PAUSE", "300")
            publisher.until_more(20)
        assert not publisher.refused + publisher.unsure
        records = everything(log)
        publisher.check(records)
        follower.until(1, numbers(records))
        assert not follower.away


def test_an_append_that_a_frozen_server_had_before_it_is_found(server: RedisServer) -> None:
    with opened(server.url(timeout=1)) as [log]:
        log.append(some(1))
        with server.frozen():
            thaw = threading.Timer(
                1.5, server.go_on
            )  # after the answer was given up, before it was asked for
            thaw.start()
            appended = log.append([*some(2), Event("check", "keyed", key="key")])
            thaw.join()
        assert (appended.first, list(appended.seqs)) == (2, [2, 3, 4])
        assert [record.time for record in log.read(1, 10)] == [appended.time] * 3


def test_scripts_that_the_server_forgot_are_given_again(server: RedisServer) -> None:
    url = server.url()
    with (
        opened(url, url) as [log, watcher],
        Follower(watcher) as follower,
        Publisher(log, "one") as publisher,
    ):
        for _ in range(5):
            publisher.until_more(20)
            server.ask("SCRIPT", "FLUSH")
            log.trim(Retention())
        publisher.stop()
        assert not publisher.refused + publisher.unsure
        follower.until(1, numbers(everything(log)))
        assert not follower.away


def test_connections_that_the_server_closes_are_made_anew(server: RedisServer) -> None:
    url = server.url()
    with (
        opened(url, url) as [log, watcher],
        Follower(watcher) as follower,
        Publisher(log, "one") as publisher,
    ):
        for _ in range(10):
            publisher.until_more(20)
            server.ask("CLIENT", "KILL", "TYPE", "normal")
        publisher.until_more(20)
        publisher.stop()
        assert not publisher.unsure, "it can be asked at once"
        records = everything(log)
        publisher.check(records)
        follower.until(1, numbers(records))


def test_connections_that_were_closed_while_idle_trouble_nobody(server: RedisServer) -> None:
    with opened(server.url()) as [log]:
        for _ in range(3):
            for use in (log.append, lambda events: log.read(0, 1), lambda events: log.wait(0)):
                server.ask("CLIENT", "KILL", "TYPE", "normal")
                use(some(1))


@pytest.mark.parametrize("first", ["append", "read", "read on", "trim"])
@pytest.mark.parametrize("key", ["{gone}:events", "{gone}:log"])
def test_a_log_of_which_a_key_was_evicted_is_begun_anew(
    server: RedisServer, key: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url(prefix="gone")
    with opened(url, url) as [log, other]:
        old = other.append([*some(3), Event("check", "x", key="key")])
        log.wait(0)
        assert len(log.read(0, 10)) == 4
        server.ask("DEL", key)
        caplog.clear()
        if first == "append":
            assert log.append(some(1)).seqs == [1]
        elif first == "trim":
            assert log.trim(Retention(None, 1, None)) == 0
        else:
            assert log.read(0 if first == "read" else 4, 10) == []
        if (key, first) != ("{gone}:events", "read on"):  # there was nothing to be missed
            assert "A new log begins" in caplog.text
        new = other.append([Event("check", "x", key="key")])
        assert new.epoch == log.bounds().epoch != old.epoch
        assert list(new.seqs) == [2 if first == "append" else 1]
    server.ask("DEL", "{gone}:events", "{gone}:log")


def test_an_evicting_server_is_never_silent(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as server:
        used = int(server.info("used_memory"))
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        server.ask("CONFIG", "SET", "maxmemory", used + 3_000_000)
        with opened(server.url(prefix="a"), server.url(prefix="a")) as [log, watcher]:
            assert "maxmemory-policy allkeys-lru" in caplog.text
            with Follower(watcher) as follower:
                told: dict[str, list[int]] = {}

                def is_evicted() -> bool:
                    appended = log.append([Event("check", "x" * 50_000)])
                    told.setdefault(appended.epoch, []).extend(appended.seqs)
                    return len(told) > 3

                wait_for(is_evicted, what="the log was thrown away several times")
                for seqs in told.values():
                    assert seqs == list(range(1, len(seqs) + 1))
                last = everything(log)
                wait_for(lambda: follower.got.get(last[0].epoch) == last, what="it is followed to the end")
                for epoch, records in follower.got.items():
                    assert numbers(records) == list(range(1, len(records) + 1)), epoch
                assert len(follower.got) > 1
        assert "threw away" in caplog.text or "is gone" in caplog.text


def test_memory_that_is_full_and_freed_again(durable: RedisServer) -> None:
    url = durable.url(prefix="full")
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        used = int(durable.info("used_memory"))
        durable.ask("CONFIG", "SET", "maxmemory", used + 10_000_000)
        stored: list[int] = []
        for _ in range(2):
            with contextlib.suppress(LogFull):
                for _ in range(10_000):
                    stored += log.append([Event("check", "x" * 200_000)]).seqs
            assert len(stored) < 10_000
            assert log.trim(Retention(None, 3, None))
        stored += log.append([Event("check", "x" * 50_000)]).seqs
        assert stored == list(range(1, len(stored) + 1))
        wait_for(lambda: follower.seqs[-1] == stored[-1], what="it is followed to the end")


def test_a_replica_that_took_over_and_lacks_what_was_stored_has_a_new_epoch() -> None:
    """The connection stays the same: the server is made a replica of another, and then a primary again."""
    with RedisServer() as server, RedisServer() as lagging:
        url = server.url(prefix="both")
        with opened(url, url) as [log, watcher], Follower(watcher) as follower:
            old = log.append(some(5))
            follower.until(1, [1, 2, 3, 4, 5])
            lagging.ask("REPLICAOF", "127.0.0.1", server.port)
            wait_for(lambda: lagging.ask("EXISTS", "{both}:log"), what="the replica has it")
            lagging.ask("REPLICAOF", "NO", "ONE")
            log.append([Event("check", "lost")])
            follower.until(1, [1, 2, 3, 4, 5, 6])
            with opened(lagging.url(prefix="both")) as [stranger]:
                for number in range(3):
                    assert stranger.append([Event("check", f"new {number}")]).first == 6 + number
            server.ask("REPLICAOF", "127.0.0.1", lagging.port)
            with pytest.raises(LogUnavailable):
                log.append([Event("check", "to a replica")])
            wait_for(lambda: server.info("master_link_status") == "up", what="it is a replica")
            server.ask("REPLICAOF", "NO", "ONE")
            until_it_works(lambda: log.append([Event("check", "after it")]))
            wait_for(lambda: len(follower.epochs) > 1 and follower.seqs[-1:] == [9], what="it is followed")
            assert follower.epochs[0] == old.epoch
            assert data_of(log)[5:] == ["new 0", "new 1", "new 2", "after it"]


def test_an_append_waits_for_replicas_if_it_is_told_to() -> None:
    with RedisServer() as server, RedisServer() as replica:
        url = server.url(prefix="wait", replicas=1, timeout=1)
        with opened(url) as [log]:
            with pytest.raises(AppendUnsure, match="replica"):
                log.append([Event("check", "alone", key="key")])
            replica.ask("REPLICAOF", "127.0.0.1", server.port)
            wait_for(lambda: replica.ask("EXISTS", "{wait}:log"), what="the replica has it")
            assert list(log.append([Event("check", "alone", key="key")]).seqs) == [1]
            for number in range(2, 50):
                appended = log.append(some(1))
                assert replica.ask("HGET", "{wait}:log", "head") == str(number).encode()
                assert appended.first == number
            with replica.frozen():
                for event in (Event("check", "unsure", key="new"), Event("check", "alone", key="key")):
                    with pytest.raises(AppendUnsure, match="0 and not 1"):
                        log.append([event])


def test_damage_is_told_to_who_follows(server: RedisServer) -> None:
    with opened(server.url(prefix="damage")) as [log]:
        log.append(some(1))
        log.append(some(1))
        server.ask("XDEL", "{damage}:events", "1-0")
        with pytest.raises(LogCorrupt):
            log.read(0, 10)
        with pytest.raises(LogError):
            log.append(some(1))
