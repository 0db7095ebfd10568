"""A log in the memory of one process: for tests, and for events that need not outlive it.

Other processes do not see it, and it is empty, with a new epoch, whenever the process starts. Several
logs may share one ``MemoryStore``, as several processes share a file.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult

from penstock import threads
from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.errors import Closed, ConfigError
from penstock.log.base import READ_BYTES, WAIT_S, Appended, Log, Retention, new_epoch

RECORD_OVERHEAD_BYTES = 300  # a record's own objects, beside its data


def from_url(url: SplitResult) -> Callable[[], Log]:
    """What makes logs of ``memory:``."""
    if url.netloc or url.path or url.query:
        raise ConfigError("the log in memory is 'memory:' and nothing more")
    return MemoryLog


class MemoryStore:
    """The records, and the lock that guards them."""

    def __init__(self) -> None:
        self.changed = threads.Condition()
        self.epoch = new_epoch()
        self.first = 1
        self.records: list[Record] = []
        self.bytes = 0
        self.keys: dict[tuple[str, str], int] = {}
        self.channels: defaultdict[str, deque[int]] = defaultdict(deque)
        self.listeners: set[MemoryLog] = set()

    @property
    def head(self) -> int:
        return self.first + len(self.records) - 1


def _size(record: Record) -> int:
    return RECORD_OVERHEAD_BYTES + len(record.data) + len(record.channel)


class MemoryLog(Log):
    """See ``Log``.

    Args:
        store: the records to share with other logs of this process; none for records of its own.
    """

    url = "memory:"
    shared = False

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()
        self._news = True  # another log of the store appended since the last wait
        self._closed = False

    def open(self, *, renew: str | None = None) -> None:
        with self._store.changed:
            self._check_open()
            if renew is not None and renew == self._store.epoch:
                self._store.epoch = new_epoch()
                self._store.records = [
                    record._replace(epoch=self._store.epoch) for record in self._store.records
                ]
                self._news = True  # its own follower has to look as well
                self._announce()

    def append(self, events: Sequence[Event]) -> Appended:
        store = self._store
        with store.changed:
            self._check_open()
            now = time.time()
            first = store.head + 1
            seqs: list[int] = []
            new: list[Record] = []
            keys: dict[tuple[str, str], int] = {}
            for event in events:
                seq = first + len(new)
                if event.key is not None:
                    key = event.channel, event.key
                    seq = store.keys.get(key) or keys.setdefault(key, seq)
                seqs.append(seq)
                if seq == first + len(new):
                    new.append(Record.of(event, store.epoch, seq, now))
            for record in new:  # from here on nothing can fail: all are stored, or none was
                store.bytes += _size(record)
                store.channels[record.channel].append(record.seq)
            store.keys.update(keys)
            store.records += new
            self._announce()
            return Appended(store.epoch, first, seqs, now)

    def read(self, after: int, limit: int) -> list[Record]:
        with self._store.changed:
            self._check_open()
            start = max(0, after + 1 - self._store.first)
            found = self._store.records[start : start + max(0, limit)]
        size = 0
        for index, record in enumerate(found):
            size += len(record.data)
            if size > READ_BYTES and index:
                return found[:index]
        return found

    def bounds(self) -> Bounds:
        with self._store.changed:
            self._check_open()
            return Bounds(self._store.epoch, self._store.first, self._store.head)

    def wait(self, after: int) -> None:
        with self._store.changed:
            self._check_open()
            self._store.changed.wait_for(lambda: self._news or self._closed, WAIT_S)
            self._news = False

    def trim(self, retention: Retention) -> int:
        store = self._store
        with store.changed:
            self._check_open()
            oldest = time.time() - retention.age_s if retention.age_s is not None else None
            removed = 0
            for record in store.records:
                left = len(store.records) - removed
                if not (
                    (oldest is not None and record.time < oldest)
                    or (retention.events is not None and left > retention.events)
                    or (retention.bytes is not None and store.bytes > retention.bytes)
                ):
                    break
                removed += 1
                store.bytes -= _size(record)
                seqs = store.channels[record.channel]
                seqs.popleft()
                if not seqs:
                    del store.channels[record.channel]
                if record.key is not None:
                    del store.keys[record.channel, record.key]
            store.first += removed
            del store.records[:removed]
            return removed

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """See ``History.latest``."""
        store = self._store
        with store.changed:
            self._check_open()
            seqs: list[int] = []
            for channel in [name for name in store.channels if subscription.covers(name)]:
                own = 0
                for seq in reversed(store.channels[channel]):
                    if own == limit:
                        break
                    if ends or not store.records[seq - store.first].end:
                        seqs.append(seq)
                        own += 1
            seqs = sorted(seqs)[-limit:] if limit else []
            return [store.records[seq - store.first] for seq in seqs]

    def close(self) -> None:
        with self._store.changed:
            self._closed = True
            self._store.listeners.discard(self)
            self._store.changed.notify_all()

    def _announce(self) -> None:
        for log in self._store.listeners:
            if log is not self:
                log._news = True
        self._store.changed.notify_all()

    def _check_open(self) -> None:
        """Only under the store's lock."""
        if self._closed:
            raise Closed("the log is closed")
        self._store.listeners.add(self)
