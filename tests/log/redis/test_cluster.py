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
from tests.support.ports import free_port
from tests.support.redis import RedisServer, need_redis, opened, url_of
from tests.support.wait import wait_for

pytestmark = need_redis

SLOTS = 16384
OPTIONS = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1000",
    "--cluster-replica-validity-factor",
    "0",
]


def options() -> list[str]:
    return [*OPTIONS, *(["--cluster-port", str(free_port())] if _knows_cluster_port() else [])]


class Cluster:
    """Three primaries, and a replica of the one that has what begins with ``prefix``."""

    def __init__(self, stack: contextlib.ExitStack, prefix: str) -> None:
        self.prefix = prefix
        self.nodes = []
        for _ in range(4):
            self.nodes.append(stack.enter_context(RedisServer(*options())))
        first, *others, spare = self.nodes
        for node in [*others, spare]:
            bus = node.options[-1] if _knows_cluster_port() else node.port + 10_000
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for index, node in enumerate([first, *others]):
            node.ask("CLUSTER", "ADDSLOTS", *range(index * SLOTS // 3, (index + 1) * SLOTS // 3))
        wait_for(lambda: all(self._is_whole(node) for node in self.nodes), what="the cluster is whole")
        spare.ask("CLUSTER", "REPLICATE", self.id_of(self.owner()))
        wait_for(lambda: spare.info("master_link_status") == "up", what="the replica has all")

    @property
    def slot(self) -> int:
        return int(self.nodes[0].ask("CLUSTER", "KEYSLOT", f"{{{self.prefix}}}"))

    def url(self, *nodes: RedisServer, **options: object) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes or self.nodes)
        return url_of(f"redis+cluster://{hosts}", prefix=self.prefix, timeout=2, **options)

    def owner(self) -> RedisServer:
        """The node that has the slot of the prefix, as they all say."""

        def agreed() -> int | None:
            said = set()
            for node in self.nodes:
                if node.process is not None:
                    ranges = node.ask("CLUSTER", "SLOTS")
                    said |= {int(of[0][1]) for begin, end, *of in ranges if begin <= self.slot <= end}
            return said.pop() if len(said) == 1 else None

        port = wait_for(agreed, what="the nodes agree")
        return next(node for node in self.nodes if node.port == port)

    def id_of(self, node: RedisServer) -> str:
        return str(node.ask("CLUSTER", "MYID").decode())

    def _is_whole(self, node: RedisServer) -> bool:
        said = node.ask("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in said and "cluster_known_nodes:4" in said


def _knows_cluster_port() -> bool:
    """Servers since 7.0 let the port be chosen; else it is 10,000 above the other."""
    return RedisServer.version() >= (7, 0)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(stack, "shop")


def test_a_log_in_a_cluster_moves_and_fails_over(cluster: Cluster) -> None:
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


def test_when_the_node_of_a_log_dies_its_replica_takes_over(cluster: Cluster) -> None:
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
    with RedisServer(*options()) as node:
        log = open_log(url_of(f"redis+cluster://127.0.0.1:{node.port}"))
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                log.append(some(1))
        node.ask("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_for(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), what="the cluster is whole")
        assert log.append(some(1)).first == 1
        log.close()
