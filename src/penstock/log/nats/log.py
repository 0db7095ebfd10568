"""A log in a stream of NATS JetStream.

Each append is one message of the stream, whatever number of events it has, and each message says what the
log is with it. ``chain`` tells how messages are added and how the log stays one log, ``append`` how keys and
channels are found, ``reader`` how records are, ``trim`` how they go.

All of it happens on one event loop, in a thread of the log's own: so nothing there needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.log.base import READ_BYTES, WAIT_S, Appended, Log, Retention
from penstock.log.nats.append import Appending
from penstock.log.nats.chain import Chain
from penstock.log.nats.connection import Connection
from penstock.log.nats.errors import translated
from penstock.log.nats.latest import Latest
from penstock.log.nats.loop import LoopThread
from penstock.log.nats.reader import Reader
from penstock.log.nats.stream import Stream
from penstock.log.nats.trim import Trimming
from penstock.log.nats.url import Settings

T = TypeVar("T")


class NatsLog(Log):
    """See ``Log``.

    Args:
        settings: what the log's URL says.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.url
        self._thread = LoopThread("penstock-nats", f"the log {self.url} is closed")
        self._connection = Connection(settings, self._lost)
        self._stream = Stream(settings, self._connection)
        self._chain = Chain(settings, self._connection, self._stream)
        self._reader = Reader(self._stream, self._chain)
        self._latest = Latest(self._stream, self._chain)

    def open(self, *, renew: str | None = None) -> None:
        if renew is None:
            self._do("open the log", self._chain.refresh)
        else:
            self._do("begin a new epoch", lambda: self._chain.renew(renew))

    def exists(self) -> bool:
        """See ``Findable.exists``."""
        found = self._do("look for the log", self._stream.look)
        return found is not None and found.last > 0

    def append(self, events: Sequence[Event]) -> Appended:
        appending = Appending(self._stream, self._connection, self._chain, list(events))
        return self._do(f"store {len(events)} event(s)", appending.run)

    def read(self, after: int, limit: int) -> list[Record]:
        found = self._do(f"read after {after}", lambda: self._reader.read(after, limit))
        records: list[Record] = []
        size = 0
        for entry in found.entries:
            for record in entry.records(found.tip.epoch, max(after, found.tip.trimmed)):
                size += len(record.data)
                if len(records) >= limit or (records and size > READ_BYTES):
                    return records
                records.append(record)
        return records

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """See ``History.latest``."""
        return self._do("find the newest records", lambda: self._latest.find(subscription, limit, ends=ends))

    def bounds(self) -> Bounds:
        return self._do("find the bounds", self._reader.bounds)

    def wait(self, after: int) -> None:
        self._do("wait for news", lambda: self._chain.wait(after, WAIT_S))

    def trim(self, retention: Retention) -> int:
        return self._do("trim", Trimming(self._stream, self._chain, self._reader, retention).run)

    def close(self) -> None:
        self._thread.close(self._connection.drop)

    def _do(self, what: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something on the loop; no foreign error comes of it."""
        with translated(what, self.url):
            return self._thread.call(work)

    def _lost(self) -> None:
        self._chain.lost()
