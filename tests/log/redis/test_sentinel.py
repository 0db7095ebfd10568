"""Servers that take over from others, as sentinels see to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from penstock.core.event import Event
from penstock.errors import LogDenied, LogUnavailable
from penstock.log import open_log
from penstock.testing.storage import everything, numbers, some
from tests.log.redis.parties import Follower, Publisher, data_of, until_it_works
from tests.support.ports import free_port
from tests.support.redis import RedisServer, need_redis, opened, replica_of, url_of
from tests.support.redis_groups import SentinelGroup
from tests.support.wait import wait_for

pytestmark = need_redis
RedisError = pytest.importorskip("redis").RedisError


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    with contextlib.ExitStack() as stack:
        yield SentinelGroup(stack)


def has_taken_over(server: RedisServer) -> None:
    def is_primary() -> bool:
        try:
            return server.info("role") == "master"
        except RedisError:  # a sentinel ends connections, too
            return False

    wait_for(is_primary, what=lambda: f"{server} takes over:\n{server.log}")


def test_when_the_primary_dies_the_replica_takes_over(group: SentinelGroup) -> None:
    primary, replica = group.roles()
    url = group.url(replicas=1)  # nothing is told as stored that the replica does not have
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        with Publisher(log, "one") as publisher:
            publisher.until_more()
            primary.kill()
            has_taken_over(replica)
            primary.start(*replica_of(replica))
            publisher.until_more()
        records = everything(log)
        publisher.check(records)
        assert numbers(records) == list(range(1, len(records) + 1))
        follower.until_it_has(records)  # in a new epoch, if it had had what no replica did


def test_a_replica_that_takes_over_without_the_newest_has_a_new_epoch(group: SentinelGroup) -> None:
    primary, replica = group.roles()
    url = group.url(prefix="lacks")
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        old = log.append(some(5))
        wait_for(lambda: replica.ask("HGET", "{lacks}:log", "head") == b"5", what="it is replicated")
        with replica.frozen():
            primary.ask("CLIENT", "KILL", "TYPE", "replica")
            log.append([Event("check", "lost")] * 3)
            follower.until(1, [1, 2, 3, 4, 5, 6, 7, 8])
            primary.kill()
        until_it_works(lambda: log.append([Event("check", "new")]))
        follower.until(2, [1, 2, 3, 4, 5, 6])
        assert follower.epochs[0] == old.epoch
        assert data_of(log)[5:] == ["new"]


def test_a_failover_that_an_operator_asks_for_is_followed(group: SentinelGroup) -> None:
    _, replica = group.roles()
    url = group.url()
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        log.append(some(5))
        follower.until(1, [1, 2, 3, 4, 5])
        group.sentinels[0].ask("SENTINEL", "FAILOVER", "main")
        has_taken_over(replica)
        until_it_works(lambda: log.append(some(1)))
        follower.until_it_has(everything(log))


def test_sentinels_that_are_away_or_know_nothing_are_passed_over() -> None:
    with RedisServer() as server, contextlib.ExitStack() as stack:
        lines = ["sentinel monitor {} 127.0.0.1 " + str(server.port) + " 1"]
        knows = stack.enter_context(RedisServer(sentinel=[lines[0].format("main")]))
        other = stack.enter_context(RedisServer(sentinel=[lines[0].format("other")]))
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{other.port},127.0.0.1:{knows.port}"
        with opened(url_of(f"redis+sentinel://{hosts}/main")) as [log]:
            assert log.append(some(1)).first == 1
        stranger = open_log(url_of(f"redis+sentinel://{hosts}/nobody"))
        with pytest.raises(LogUnavailable, match="named none"):
            stranger.open()
        stranger.close()


def test_whom_sentinels_name_is_asked_whether_it_is_the_primary() -> None:
    with RedisServer() as primary, RedisServer(*replica_of(primary)) as replica:
        lines = [f"sentinel monitor main 127.0.0.1 {server.port} 1" for server in (replica, primary)]
        with RedisServer(sentinel=lines[:1]) as wrong, RedisServer(sentinel=lines[1:]) as right:
            hosts = f"127.0.0.1:{wrong.port},127.0.0.1:{right.port}"
            with opened(url_of(f"redis+sentinel://{hosts}/main")) as [log]:
                assert log.append(some(1)).first == 1


def test_sentinels_may_want_a_password_of_their_own() -> None:
    with RedisServer(password="data") as server:
        lines = [f"sentinel monitor main 127.0.0.1 {server.port} 1", "sentinel auth-pass main data"]
        with RedisServer(password="watch", sentinel=lines) as sentinel:
            base = f"redis+sentinel://:data@127.0.0.1:{sentinel.port}/main"
            with opened(url_of(base, sentinel_password="watch")) as [log]:
                assert log.append(some(1)).first == 1
            wrong = open_log(url_of(base, sentinel_password="wrong"))
            with pytest.raises(LogDenied) as denied:
                wrong.open()
            assert "watch" not in str(denied.value)
            wrong.close()
