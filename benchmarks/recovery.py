"""How long publishers and streams are without their log when its server, or one of them, is killed."""

from __future__ import annotations

import contextlib
import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.measure import Row, Table
from penstock import Penstock
from penstock.log.base import new_epoch
from tests.support.nats import NatsCluster, NatsServer
from tests.support.postgres import PostgreSQL
from tests.support.redis import DURABLE, RedisServer
from tests.support.redis_groups import RedisCluster, SentinelGroup
from tests.support.wait import wait_for

ROUNDS = 5
PATIENCE_S = 60.0  # of publish()
SETTLED_S = 0.5  # in which replicas come to have what was stored

NOTE = (
    "Seconds from `kill -9` of the server that has the log: until the next `publish` has returned, and "
    "until a subscriber had its event. A server that stands alone is started again at once."
)


class Victim(NamedTuple):
    """A log whose server is about to be killed.

    Attributes:
        url: of a new log.
        kill: kills the server; what stands alone is started again.
    """

    url: str
    kill: Callable[[], object]


Start = Callable[[Path], AbstractContextManager[Victim]]


def run(folder: Path, *, quick: bool) -> list[Table]:
    rounds = 1 if quick else ROUNDS
    logging.getLogger("penstock").setLevel(logging.CRITICAL)  # it would tell that the log is away, and back
    rows: list[Row] = []
    for name, start in (ALONE if quick else ALONE | TAKEN_OVER).items():
        found = [_killed(start, folder) for _ in range(rounds)]
        stored, seen = zip(*found, strict=True)
        rows.append(
            {
                "": name,
                "stored again, s": statistics.median(stored),
                "stored, at most, s": max(stored),
                "delivered again, s": statistics.median(seen),
                "delivered, at most, s": max(seen),
            }
        )
    return [Table("Until a log is back", NOTE, rows)]


def _killed(start: Start, folder: Path) -> tuple[float, float]:
    with start(folder) as victim, Penstock(victim.url, publish_timeout=PATIENCE_S) as bus:
        seen: list[str] = []
        records = bus.subscribe("chat", on_gap=lambda gap: None)
        thread = threading.Thread(target=lambda: seen.extend(record.data for record in records))
        thread.start()
        try:
            bus.publish("chat", "before")
            wait_for(lambda: "before" in seen, what="it is delivered")
            time.sleep(SETTLED_S)
            began = time.monotonic()
            victim.kill()
            bus.publish("chat", "after")
            stored_s = time.monotonic() - began
            wait_for(lambda: "after" in seen, PATIENCE_S, what="it is delivered again")
            return stored_s, time.monotonic() - began
        finally:
            bus.drain()
            thread.join()


# Servers that stand alone


@contextmanager
def _redis(folder: Path) -> Iterator[Victim]:
    with RedisServer(*DURABLE) as server:
        yield Victim(server.url(), partial(_again, server))


@contextmanager
def _postgres(folder: Path) -> Iterator[Victim]:
    with PostgreSQL({"fsync": "on"}) as server:
        yield Victim(server.url(), partial(_again, server))


@contextmanager
def _nats(folder: Path) -> Iterator[Victim]:
    with TemporaryDirectory(dir=folder) as own, NatsServer(Path(own)) as server:
        yield Victim(f"{server.url}/penstock", partial(_again, server))


def _again(server: RedisServer | PostgreSQL | NatsServer) -> None:
    server.kill()
    server.start()


# Servers of which another takes over


@contextmanager
def _sentinels(folder: Path) -> Iterator[Victim]:
    with contextlib.ExitStack() as stack:
        group = SentinelGroup(stack)
        primary, _ = group.roles()
        yield Victim(group.url(), primary.kill)


@contextmanager
def _redis_cluster(folder: Path) -> Iterator[Victim]:
    with contextlib.ExitStack() as stack:
        cluster = RedisCluster(stack, new_epoch())
        owner = cluster.owner()
        yield Victim(cluster.url(), owner.kill)


@contextmanager
def _nats_cluster(folder: Path) -> Iterator[Victim]:
    with TemporaryDirectory(dir=folder) as own, NatsCluster(Path(own)) as cluster:
        url = f"nats://{cluster.hosts}/penstock?replicas=3"
        with Penstock(url, publish_timeout=PATIENCE_S) as bus:
            bus.publish("quiet", "makes the stream")
        yield Victim(url, cluster.leader("penstock").kill)


ALONE: dict[str, Start] = {"PostgreSQL": _postgres, "Redis, `always`": _redis, "NATS": _nats}
TAKEN_OVER: dict[str, Start] = {
    "Redis, a replica by Sentinel": _sentinels,
    "Redis Cluster, a replica": _redis_cluster,
    "NATS, three replicas, their leader": _nats_cluster,
}
