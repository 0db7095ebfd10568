"""Which log in which servers: what a URL comes down to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

DEFAULT_PREFIX = "penstock"
PORT, SENTINEL_PORT = 6379, 26379
TIMEOUT_S = 10.0  # a server that has not answered by then is as good as away
CONNECT_TIMEOUT_S = 5.0

Way = Literal["server", "sentinel", "cluster"]


class Address(NamedTuple):
    """Where a server listens; a path if there is no port."""

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Credentials(NamedTuple):
    """Who we are."""

    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "<credentials>"


NOBODY = Credentials()


@dataclass(frozen=True, slots=True)
class Target:
    """A log, and how to reach it.

    Attributes:
        url: how to name it to a person.
        way: whether the addresses are those of one server, of sentinels or of nodes of a cluster.
        addresses: where to ask.
        service: what the sentinels call the primary.
        db: the number of the database.
        prefix: what the names of its keys begin with.
        credentials: for the server.
        sentinel_credentials: for the sentinels.
        tls: options of TLS as the driver has them; None for none.
        timeout_s: for an answer.
        connect_timeout_s: for a connection.
        replicas: how many must have an append before it counts as stored.
    """

    url: str
    way: Way
    addresses: tuple[Address, ...]
    service: str = ""
    db: int = 0
    prefix: str = DEFAULT_PREFIX
    credentials: Credentials = NOBODY
    sentinel_credentials: Credentials = NOBODY
    tls: Mapping[str, str | bool] | None = field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    replicas: int = 0

    def key(self, name: str) -> bytes:
        """The name of a key: the braces keep all of a log in one slot of a cluster."""
        return f"{{{self.prefix}}}:{name}".encode()
