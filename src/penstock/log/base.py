"""The contract of every log: seven methods, no more.

A log keeps records in one total order. ``penstock.testing.check_log`` proves an implementation.

- **Dense.** ``seq`` is 1, 2, 3 … over all channels, in commit order, and is never used twice within an
  epoch, not even when everything was trimmed.
- **Visible means complete.** When a record can be read, every smaller one can be read or was trimmed.
- **All or nothing.** An append is stored whole or not at all.
- **Repeatable.** The same read gives the same records, less those that were trimmed meanwhile.
- **Bytes in are bytes out.** Every value of an event comes back exactly.
- **One incarnation, one epoch.** A log that was made anew has another epoch. Positions are compared
  with ``bounds()`` by ``core.position.find_gap``, the same for every log.
- **Honest.** ``LogUnavailable``: nothing was stored, try again. ``AppendUnsure``: nobody can say.
  ``LogUnusable``: waiting will not help. A driver's own error never leaves the log but as a cause.
- **Any thread.** All methods may be called from several threads at once.
- **Opened by use.** What is called first opens the log; ``open`` does so before there is anything to do.
- **Not across fork.** A child process opens a log of its own.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record

# At most this much data in one read (but always one record), so a replay of large events stays small.
READ_BYTES = 1024 * 1024
# wait() gives up after this: the safety net under a wake-up that was lost.
WAIT_S = 0.5

_EPOCH_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # no letters that are mistaken for others


def new_epoch() -> str:
    """A random name for a new incarnation of a log: 40 bits."""
    return "".join(secrets.choice(_EPOCH_LETTERS) for _ in range(8))


class Retention(NamedTuple):
    """What a log keeps; None for no limit.

    Attributes:
        age_s: no record older than this, in seconds.
        events: no more records than this.
        bytes: no more storage than this, as the log measures it.
    """

    age_s: float | None = 24 * 3600.0
    events: int | None = 1_000_000
    bytes: int | None = 1024**3


class Appended(NamedTuple):
    """What an append did.

    Attributes:
        epoch: the incarnation that it was appended to.
        first: the seq of the first record that is new; the new ones follow densely.
        seqs: for each event its seq. One below ``first``, or seen before in this list, is that of an
            earlier event with the same channel and key: it was not stored again.
        time: the time that the new records carry.
    """

    epoch: str
    first: int
    seqs: Sequence[int]
    time: float


class Log(ABC):
    """A durable, totally ordered sequence of records.

    Attributes:
        url: how to name this log to a person; without a password.
        shared: whether other processes see the same records.
    """

    url: str
    shared: bool = True

    @abstractmethod
    def open(self, *, renew: str | None = None) -> None:
        """Make the log ready, creating it where there is none. Opening an open log does nothing more.

        Args:
            renew: begin a new epoch if the present one is still this: in one step, so that of several
                that ask only one does. The records stay.

        Raises:
            LogUnavailable: it is away for now.
            LogUnusable: it cannot be used as it is; it is left untouched.
        """

    @abstractmethod
    def append(self, events: Sequence[Event]) -> Appended:
        """Store events, all or none, after everything that is stored.

        An event whose key its channel already has is not stored again.

        Returns:
            Where they rest; only once they do.

        Raises:
            LogUnavailable: none was stored.
            AppendUnsure: it is unknown whether they were stored.
        """

    @abstractmethod
    def read(self, after: int, limit: int) -> list[Record]:
        """Read what follows a seq.

        Args:
            after: the seq before the first that is wanted.
            limit: at most so many records; fewer if they would hold over ``READ_BYTES``.

        Returns:
            Records of one epoch, dense and rising. If the first is not ``after + 1``, those between
            were trimmed. None if there are none.
        """

    @abstractmethod
    def bounds(self) -> Bounds:
        """What the log holds now. Never opened for writing, ``head`` is 0 and ``first`` is 1."""

    @abstractmethod
    def wait(self, after: int) -> None:
        """Return when there may be records after this seq; at the latest after about ``WAIT_S``.

        It may return early or for nothing: the caller reads and sees. What other objects appended ends
        it soon, also what they appended between the last ``read`` and this; what was appended through
        this same object need not. ``close()`` ends it.
        """

    @abstractmethod
    def trim(self, retention: Retention) -> int:
        """Remove the oldest records that the retention no longer covers, in small steps.

        Returns:
            How many were removed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. May be called twice, and while another thread waits.

        After it every other method raises ``Closed``.
        """


@runtime_checkable
class Findable(Protocol):
    """What a log may offer beyond the contract: whether it is there already.

    Without it nobody can tell that a name was mistyped before a log of that name was begun.
    """

    def exists(self) -> bool:
        """Whether the log was begun already; to open it would begin it otherwise.

        Raises:
            LogError: as ``open`` does.
        """
        ...


@runtime_checkable
class Installable(Protocol):
    """What a log may offer beyond the contract: to be made by somebody else than who uses it.

    Without it the first use makes what a log needs.
    """

    def install(self) -> str | None:
        """Make what the log needs, also where its URL leaves that to this.

        Returns:
            What was made, in words; None if all was there.

        Raises:
            LogError: as ``open`` does.
        """
        ...


@runtime_checkable
class Transactional(Protocol):
    """What a log may offer beyond the contract: events in the application's own transaction.

    Without it an event that belongs to a change in a database is published once that is committed, and is
    lost if the process dies in between.
    """

    def store_in(self, connection: Any, events: Sequence[Event]) -> None:
        """Lay events into the transaction of a connection, which is not committed by that.

        Once it is, they come into the log in their order: all of them, once, after a moment, whoever lives;
        and if it is not, none does. Other publishers wait for nothing meanwhile.

        Args:
            connection: the application's, in the same database as the log; used in the caller's thread.
            events: what is to be stored.

        Raises:
            ConfigError: the connection cannot do that: it leads elsewhere, or is in no transaction.
            LogError: it was not done; then the transaction may have failed, too.
        """
        ...

    async def astore_in(self, connection: Any, events: Sequence[Event]) -> None:
        """As ``store_in``, for connections of coroutines; called on the loop that they belong to."""
        ...


@runtime_checkable
class History(Protocol):
    """What a log may offer beyond the contract: the newest records of some channels, by an index.

    Without it they are found by reading backwards.
    """

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """The newest records of a subscription, oldest of them first.

        Args:
            subscription: the channels and patterns.
            limit: at most so many.
            ends: whether the ends of channels count too.
        """
        ...


@lru_cache
def _has_history(kind: type[Log]) -> bool:
    """Whether a log keeps such an index; asked at the start of each stream, and slow to find out."""
    return issubclass(kind, History)


def latest(log: Log, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
    """The newest records of a subscription in any log; see ``History.latest``."""
    if _has_history(type(log)):
        return cast(History, log).latest(subscription, limit, ends=ends)
    found: list[Record] = []
    bounds = log.bounds()
    upto, step = bounds.head, 500
    while upto >= bounds.first and len(found) < limit:
        after = max(bounds.first - 1, upto - step)
        chunk: list[Record] = []
        while after < upto and (records := log.read(after, upto - after)):
            chunk += [
                record
                for record in records
                if record.seq <= upto and (ends or not record.end) and subscription.covers(record.channel)
            ]
            after = records[-1].seq
        found = chunk + found
        upto -= step
    return found[-limit:] if limit else []
