"""What the URL of a log says, beside what it says to libpq."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.log.postgres.sql import Names

CONNECT_TIMEOUT_S = 5
TIMEOUT_S = 10.0

Create = Literal["use", "init"]
Doorbell = Literal["listen", "poll"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log is, and how it is used.

    Attributes:
        conninfo: for libpq; may hold a password.
        shown: the URL for people, without one.
        names: of its objects.
        create: whether they are made by the first ``use``, or by ``penstock init`` alone.
        timeout_s: how long the server may take for an answer.
        doorbell: ``listen`` to notifications, or ``poll``.
        listen: for libpq: where to listen, if it is elsewhere; past a pooler, for one.
        sync: ``synchronous_commit`` of appends; None for that of the server.
    """

    conninfo: str
    shown: str
    names: Names
    create: Create = "use"
    timeout_s: float = TIMEOUT_S
    doorbell: Doorbell = "listen"
    listen: str | None = None
    sync: str | None = None
