"""Redis servers that take over from one another: watched by sentinels, or as a cluster.

with ExitStack() as stack:
    group = SentinelGroup(stack)
    primary, replica = group.roles()
    primary.kill()
"""

from __future__ import annotations

import contextlib

from redis.exceptions import RedisError

from tests.support.ports import free_port
from tests.support.redis import RedisServer, replica_of, url_of
from tests.support.wait import wait_for

SLOTS = 16384
_CLUSTERED = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1000",
    "--cluster-replica-validity-factor",
    "0",
]


def cluster_options() -> list[str]:
    return [*_CLUSTERED, *(["--cluster-port", str(free_port())] if _knows_cluster_port() else [])]


class SentinelGroup:
    """A primary, a replica, and sentinels that agree soon."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        first = stack.enter_context(RedisServer(password="secret"))
        second = stack.enter_context(RedisServer(*replica_of(first), password="secret"))
        self.servers = [first, second]
        lines = [
            f"sentinel monitor main 127.0.0.1 {first.port} 2",
            "sentinel auth-pass main secret",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 5000",
        ]
        self.sentinels = [stack.enter_context(RedisServer(sentinel=lines)) for _ in range(3)]

    def url(self, prefix: str | None = None, **options: object) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return url_of(f"redis+sentinel://:secret@{hosts}/main", prefix=prefix, timeout=2, **options)

    def roles(self) -> tuple[RedisServer, RedisServer]:
        """The primary and the replica; once all know who is what, and the replica has all."""

        def is_settled() -> bool:
            try:
                return self._is_settled()
            except RedisError:  # a sentinel ends connections, too
                return False

        wait_for(is_settled, 60, what="primary, replica and sentinels agree")
        one, other = self.servers
        return (one, other) if one.info("role") == "master" else (other, one)

    def _is_settled(self) -> bool:
        roles = sorted(server.info("role") for server in self.servers)
        links = [
            server.info("master_link_status") for server in self.servers if server.info("role") == "slave"
        ]
        if roles != ["master", "slave"] or links != ["up"]:
            return False
        (primary,) = (server for server in self.servers if server.info("role") == "master")
        for sentinel in self.sentinels:
            told = sentinel.ask("SENTINEL", "MASTER", "main")
            known = dict(zip(told[::2], told[1::2], strict=True))
            if known[b"port"] != str(primary.port).encode() or known[b"flags"] != b"master":
                return False
            if (known[b"num-slaves"], known[b"num-other-sentinels"]) != (b"1", b"2"):
                return False
        return True


class RedisCluster:
    """Three primaries, and a replica of the one that has what begins with ``prefix``."""

    def __init__(self, stack: contextlib.ExitStack, prefix: str) -> None:
        self.prefix = prefix
        self.nodes = []
        for _ in range(4):
            self.nodes.append(stack.enter_context(RedisServer(*cluster_options())))
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
