"""A log in a Redis Cluster: one of its nodes has it, and another may take it over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from penstock.core.event import Event
from penstock.errors import LogUnavailable
from penstock.log import open_log
from penstock.log.base import Retention
from penstock.testing.storage import everything, numbers, some
from tests.log.redis.parties import Follower, Publisher
from tests.support.redis import RedisServer, need_redis, opened, url_of
from tests.support.redis_groups import SLOTS, RedisCluster, cluster_options
from tests.support.wait import wait_for

pytestmark = need_redis


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    with contextlib.ExitStack() as stack:
        yield RedisCluster(stack, "shop")


def test_a_log_in_a_cluster_moves_and_fails_over(cluster: RedisCluster) -> None:
    owner = cluster.owner()
    strangers = [node for node in cluster.nodes[:3] if node is not owner]
    url = cluster.url(*strangers, replicas=0)
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        epoch = log.append([Event("check", "1", key="a"), *some(3)]).epoch
        assert list(log.append([Event("check", "1", key="a")]).seqs) == [1]
        assert log.trim(Retention(None, 3, None)) == 1
        assert len(everything(log)) == 3
        # The slot is given to another node, which says MOVED for the old one.
        target = strangers[0]
        keys = owner.ask("CLUSTER", "GETKEYSINSLOT", cluster.slot, 10)
        target.ask("CLUSTER", "SETSLOT", cluster.slot, "IMPORTING", cluster.id_of(owner))
        owner.ask("CLUSTER", "SETSLOT", cluster.slot, "MIGRATING", cluster.id_of(target))
        owner.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *[key.decode() for key in keys])
        with pytest.raises(LogUnavailable, match="moved"):
            log.append(some(1))
        for node in cluster.nodes:
            if node is not cluster.nodes[3]:
                node.ask("CLUSTER", "SETSLOT", cluster.slot, "NODE", cluster.id_of(target))
        assert cluster.owner() is target
        assert log.append(some(1)).first == 5
        follower.until(1, [2, 3, 4, 5] if 1 not in follower.seqs else [1, 2, 3, 4, 5])
        assert follower.epochs == [epoch]


def test_when_the_node_of_a_log_dies_its_replica_takes_over(cluster: RedisCluster) -> None:
    owner, spare = cluster.owner(), cluster.nodes[3]
    url = cluster.url(replicas=1)
    with opened(url, url) as [log, watcher], Follower(watcher) as follower:
        with Publisher(log, "one") as publisher:
            publisher.until_more()
            owner.kill()
            wait_for(lambda: spare.info("role") == "master", what=lambda: f"it takes over:\n{spare.log}")
            owner.start()  # now it is the replica
            publisher.until_more()
        records = everything(log)
        publisher.check(records)
        assert numbers(records) == list(range(1, len(records) + 1))
        follower.until_it_has(records)  # in a new epoch, if it had had what no replica did


def test_a_cluster_that_is_down_is_away() -> None:
    with RedisServer(*cluster_options()) as node:
        log = open_log(url_of(f"redis+cluster://127.0.0.1:{node.port}"))
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                log.append(some(1))
        node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_for(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), what="the cluster is whole")
        assert log.append(some(1)).first == 1
        log.close()
