"""The logs against a model, in whatever order things are done: it is a list, and a number.

Two handles are open on one storage at any time. A crash is what ``kill -9`` leaves: the files as they are,
with nobody who could tidy up.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds, GapReason, Position, find_gap
from penstock.core.record import Record
from penstock.log.base import Log, Retention, latest
from penstock.log.memory import MemoryLog, MemoryStore
from penstock.log.sqlite import SQLiteLog
from tests.support.strategies import channels, events, patterns

handles = st.integers(0, 1)
seqs = st.integers(0, 60)
# Few channels and keys, so that they meet.
keyed = st.builds(
    Event, st.sampled_from(["a", "a/b"]), st.text(max_size=3), key=st.sampled_from([None, "1", "2", "3"])
)
ends = st.builds(Event, channels, st.just(""), end=st.just(True))
batches = st.lists(st.one_of(keyed, events, ends), max_size=6)
subscriptions = st.lists(st.one_of(channels, patterns), min_size=1, max_size=3).map(Subscription)


class Stored(NamedTuple):
    event: Event
    time: float


class LogMachine(RuleBasedStateMachine):
    """What every log has to do; a subclass says where it is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()
        self.logs = [self.make(), self.make()]
        self.epoch = self.logs[0].bounds().epoch
        self.epochs = {self.epoch}
        self.stored: list[Stored] = []  # since ever
        self.trimmed = 0

    def begin(self) -> None:
        raise NotImplementedError

    def make(self) -> Log:
        raise NotImplementedError

    def crash(self) -> None:
        """The handles are gone without having closed anything."""
        raise NotImplementedError

    @property
    def records(self) -> list[Record]:
        return [
            Record.of(stored.event, self.epoch, seq, stored.time)
            for seq, stored in enumerate(self.stored, 1)
            if seq > self.trimmed
        ]

    @rule(handle=handles, batch=batches)
    def append(self, handle: int, batch: list[Event]) -> None:
        appended = self.logs[handle].append(batch)
        first = len(self.stored) + 1
        keys = {(r.channel, r.key): r.seq for r in self.records if r.key is not None}
        expected = []
        for event in batch:
            seq = keys.get((event.channel, event.key)) if event.key is not None else None
            if seq is None:
                self.stored.append(Stored(event, appended.time))
                seq = len(self.stored)
                if event.key is not None:
                    keys[event.channel, event.key] = seq
            expected.append(seq)
        assert (appended.epoch, appended.first, list(appended.seqs)) == (self.epoch, first, expected)

    @rule(handle=handles, after=seqs, limit=seqs)
    def read(self, handle: int, after: int, limit: int) -> None:
        expected = [record for record in self.records if record.seq > after]
        assert self.logs[handle].read(after, limit) == expected[:limit]

    @rule(handle=handles, subscription=subscriptions, limit=st.integers(0, 5), ends=st.booleans())
    def latest(self, handle: int, subscription: Subscription, limit: int, ends: bool) -> None:
        expected = [r for r in self.records if subscription.covers(r.channel) and (ends or not r.end)]
        found = latest(self.logs[handle], subscription, limit, ends=ends)
        assert found == (expected[-limit:] if limit else [])

    @rule(handle=handles, kept=st.integers(0, 20))
    def trim(self, handle: int, kept: int) -> None:
        removed = self.logs[handle].trim(Retention(None, kept, None))
        assert removed == max(0, len(self.stored) - self.trimmed - kept)
        self.trimmed += removed

    @rule(handle=handles)
    def renew(self, handle: int) -> None:
        self.logs[handle].open(renew=self.epoch)
        self.epoch = self.logs[handle].bounds().epoch
        assert self.epoch not in self.epochs
        self.epochs.add(self.epoch)

    @rule(handle=handles, epoch=st.sampled_from(["", "other"]))
    def renew_what_is_past(self, handle: int, epoch: str) -> None:
        past = self.epochs - {self.epoch}
        self.logs[handle].open(renew=epoch or min(past, default="other"))

    @rule(handle=handles, seq=seqs)
    def look_up_a_position(self, handle: int, seq: int) -> None:
        gap = find_gap(Position(self.epoch, seq), self.logs[handle].bounds())
        if seq > len(self.stored):
            assert gap is not None
            assert gap.reason is GapReason.AHEAD
        elif seq < self.trimmed:
            assert gap is not None
            assert gap.reason is GapReason.EXPIRED
        else:
            assert gap is None

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        self.logs[handle].close()
        self.logs[handle] = self.make()

    @rule()
    def reopen_both(self) -> None:
        for log in self.logs:
            log.close()
        self.logs = [self.make(), self.make()]

    @rule()
    def crash_and_begin_again(self) -> None:
        self.crash()
        self.logs = [self.make(), self.make()]

    @invariant()
    def the_bounds_are_known(self) -> None:
        expected = Bounds(self.epoch, self.trimmed + 1, len(self.stored))
        assert [log.bounds() for log in self.logs] == [expected, expected]

    def teardown(self) -> None:
        for log in self.logs:
            log.close()


class MemoryMachine(LogMachine):
    def begin(self) -> None:
        self.store = MemoryStore()

    def make(self) -> Log:
        return MemoryLog(self.store)

    def crash(self) -> None:
        """Of its own process nothing is left; that of a handle that was forgotten is."""


class SQLiteMachine(LogMachine):
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-model-")
        self.crashes = 0
        self.home = Path(self.folder.name) / "0"
        self.home.mkdir()

    def make(self) -> Log:
        return SQLiteLog(self.home / "log.db")

    def crash(self) -> None:
        before, self.crashes = self.home, self.crashes + 1
        self.home = Path(self.folder.name) / str(self.crashes)
        self.home.mkdir()
        for end in ("", "-wal"):
            shutil.copy(before / f"log.db{end}", self.home)
        for log in self.logs:
            log.close()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


_some = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemoryLog = MemoryMachine.TestCase
TestMemoryLog.settings = _some
TestSQLiteLog = SQLiteMachine.TestCase
TestSQLiteLog.settings = _some
