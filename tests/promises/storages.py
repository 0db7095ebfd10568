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
from typing import NamedTuple

from tests.support.tcp_proxy import TcpProxy

Fault = Callable[[random.Random], None]


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


STORAGES: dict[str, Callable[[Path], AbstractContextManager[Storage]]] = {"sqlite": sqlite}
