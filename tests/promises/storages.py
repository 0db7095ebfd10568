"""The logs that are tried, each with what can befall its engine and the way there.

Each fault makes its trouble and ends it; what follows must be as if nothing had been.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from tests.support.nats import NatsServer, need_nats
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.redis import DURABLE, RedisServer, need_redis
from tests.support.tcp_proxy import TcpProxy

TIMEOUT_S = 2  # shorter than some of the faults

Fault = Callable[[random.Random], None]
MakeStorage = Callable[[Path], AbstractContextManager["Storage"]]


class Storage(NamedTuple):
    """A log.

    Attributes:
        url: as the processes are given it.
        faults: by what happens.
    """

    url: str
    faults: Mapping[str, Fault]


def network_faults(proxy: TcpProxy) -> dict[str, Fault]:
    """What can befall the way to a server."""

    def cut(rng: random.Random) -> None:
        proxy.cut()
        time.sleep(rng.uniform(0, 2))
        proxy.mend()

    def drop(rng: random.Random) -> None:
        proxy.drop()

    def deafen(rng: random.Random) -> None:
        proxy.deafen(to_server=rng.random() < 0.5)
        time.sleep(rng.uniform(0, 3))
        if rng.random() < 0.5:
            proxy.drop()
        proxy.mend()

    def delay(rng: random.Random) -> None:
        proxy.delay_s = rng.uniform(0, 0.1)
        time.sleep(rng.uniform(0, 2))
        proxy.delay_s = 0.0

    return {
        "the network is cut": cut,
        "connections are reset": drop,
        "nothing comes through": deafen,
        "the network is slow": delay,
    }


@contextmanager
def sqlite(folder: Path) -> Iterator[Storage]:
    file = folder / "log.db"

    def lock(rng: random.Random) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(rng.uniform(0, 3))
            connection.execute("ROLLBACK")

    yield Storage(f"sqlite:///{file}", {"another holds the file": lock})


class _Machine(Protocol):
    """A server, as all of them can be treated."""

    def kill(self) -> None: ...
    def start(self) -> object: ...
    def freeze(self) -> None: ...


def server_faults(server: _Machine, go_on: Callable[[], None]) -> dict[str, Fault]:
    """What can befall a server that keeps its data."""

    def kill(rng: random.Random) -> None:
        server.kill()
        time.sleep(rng.uniform(0, 1))
        server.start()

    def freeze(rng: random.Random) -> None:
        server.freeze()
        time.sleep(rng.uniform(0, 3))
        go_on()

    return {"its server is killed": kill, "its server stands still": freeze}


@contextmanager
def redis(folder: Path) -> Iterator[Storage]:
    with RedisServer(*DURABLE) as server, TcpProxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?timeout={TIMEOUT_S}"
        yield Storage(url, network_faults(proxy) | server_faults(server, server.go_on))


@contextmanager
def postgres(folder: Path) -> Iterator[Storage]:
    with PostgreSQL({"max_connections": 200}) as server, TcpProxy(server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?timeout={TIMEOUT_S}"
        yield Storage(url, network_faults(proxy) | server_faults(server, server.thaw))


@contextmanager
def nats(folder: Path) -> Iterator[Storage]:
    with NatsServer(folder) as server, TcpProxy(server.port) as proxy:
        url = f"nats://127.0.0.1:{proxy.port}/penstock?timeout={TIMEOUT_S}"
        yield Storage(url, network_faults(proxy) | server_faults(server, server.thaw))


STORAGES = [
    pytest.param(sqlite, id="sqlite"),
    pytest.param(redis, id="redis", marks=need_redis),
    pytest.param(postgres, id="postgres", marks=need_postgres),
    pytest.param(nats, id="nats", marks=need_nats),
]
