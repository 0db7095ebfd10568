"""Each check of the contract refuses a log that breaks the promise it is about.

The faults are small and deliberate, in a log that is right otherwise. That each check has a fault that
it refuses is a test too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.errors import PenstockError
from penstock.log.base import WAIT_S, Appended, Retention, new_epoch
from penstock.log.memory import MemoryLog, MemoryStore
from penstock.testing import LOG_CHECKS, Fresh, check_log

FAULTS: list[tuple[type[MemoryLog], str]] = []
_one_append_at_a_time = threading.Lock()  # for faults that are made of several steps


def refused_by(*checks: str) -> Callable[[type[MemoryLog]], type[MemoryLog]]:
    def remember(fault: type[MemoryLog]) -> type[MemoryLog]:
        FAULTS.extend((fault, check) for check in checks)
        return fault

    return remember


def storage_of(fault: type[MemoryLog]) -> Fresh:
    return lambda: partial(fault, MemoryStore())


@pytest.mark.parametrize(("fault", "name"), FAULTS)
def test_check_refuses_a_log_that(fault: type[MemoryLog], name: str) -> None:
    """A fault that shows only when threads meet may be lucky, though hardly again and again."""

    def check_again_and_again() -> None:
        for _ in range(5):
            LOG_CHECKS[name](storage_of(fault))

    with pytest.raises((AssertionError, PenstockError)):
        check_again_and_again()


def test_each_check_can_fail() -> None:
    assert {name for _, name in FAULTS} == set(LOG_CHECKS)


def test_check_log_names_the_check_that_failed() -> None:
    with pytest.raises(AssertionError) as caught:
        check_log(storage_of(IgnoresKeys))
    assert caught.value.__notes__ == ["in the check 'a_key_is_stored_once' of penstock.testing.LOG_CHECKS"]


# Appending


@refused_by("a_new_log_is_empty")
class BeginsAtZero(MemoryLog):
    def bounds(self) -> Bounds:
        bounds = super().bounds()
        return bounds if bounds.head else bounds._replace(first=0)


@refused_by("each_storage_has_an_epoch_of_its_own")
class HasAFixedEpoch(MemoryLog):
    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        store.epoch = "first"


@refused_by("what_is_called_first_opens_the_log")
class MustBeOpened(MemoryLog):
    _opened = False

    def open(self, *, renew: str | None = None) -> None:
        super().open(renew=renew)
        self._opened = True

    def bounds(self) -> Bounds:
        assert self._opened
        return super().bounds()


@refused_by("seq_counts_from_one_without_holes", "concurrent_appends_are_dense_and_in_order")
class LosesAnAppend(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        with _one_append_at_a_time:
            if self._store.head % 5 == 4:
                first = self._store.head + 1
                return Appended(self._store.epoch, first, range(first, first + len(events)), 0.0)
            return super().append(events)


@refused_by("seq_counts_from_one_without_holes", "concurrent_appends_are_dense_and_in_order")
class LeavesAHole(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        with _one_append_at_a_time:
            if self._store.head % 5 == 4:
                super().append([Event("hole", "")])
            return super().append(events)


@refused_by("an_append_of_nothing_stores_nothing")
class StoresNothingAsSomething(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        return super().append(events or [Event("nothing", "")])


@refused_by("an_append_that_fails_stores_nothing", "concurrent_appends_are_dense_and_in_order")
class StoresOneByOne(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        parts = []
        for event in events:
            parts.append(super().append([event]))
            time.sleep(0.001)
        return parts[0]._replace(seqs=[part.seqs[0] for part in parts])


# Values


@refused_by("values_come_back_as_they_went_in")
class DropsNul(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        return super().append([replace(event, data=event.data.replace("\0", "")) for event in events])


@refused_by("values_come_back_as_they_went_in")
class TakesLinesForPlatformLines(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        return super().append([replace(event, data="\n".join(event.data.split("\r\n"))) for event in events])


@refused_by("values_come_back_as_they_went_in")
class TakesRetryZeroForNone(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        return super().append([replace(event, retry=event.retry or None) for event in events])


@refused_by("values_come_back_as_they_went_in")
class ReturnsEndAsANumber(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return [record._replace(end=int(record.end)) for record in super().read(after, limit)]  # type: ignore[arg-type]


@refused_by("times_are_told_when_stored")
class TellsAnotherTime(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        appended = super().append(events)
        return appended._replace(time=appended.time + 0.001)


# Reading


@refused_by("read_gives_what_follows_up_to_the_limit")
class IgnoresTheLimit(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return super().read(after, 1000)


@refused_by("read_gives_what_follows_up_to_the_limit")
class ReadsFromTheSeqItself(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return super().read(after - 1, limit)


@refused_by("read_gives_the_same_again")
class ChangesWhatWasRead(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return [record._replace(time=time.time()) for record in super().read(after, limit)]


@refused_by("one_read_holds_no_more_than_read_bytes")
class ReadsAllAtOnce(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return self._store.records[after : after + limit]


@refused_by("concurrent_appends_are_dense_and_in_order")
class ShowsTheLaterFirst(MemoryLog):
    _reads = 0

    def read(self, after: int, limit: int) -> list[Record]:
        self._reads += 1
        return super().read(after, limit)[self._reads % 5 == 0 :]


# Keys


@refused_by("a_key_is_stored_once")
class IgnoresKeys(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        self._store.keys.clear()
        return super().append(events)


@refused_by("a_key_is_stored_once")
class TakesAKeyForAllChannels(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        known = {key for _, key in self._store.keys}
        return super().append([replace(e, channel="check") if e.key in known else e for e in events])


@refused_by("a_key_may_come_again_once_its_record_was_trimmed")
class RemembersKeysForEver(MemoryLog):
    def trim(self, retention: Retention) -> int:
        keys = dict(self._store.keys)
        removed = super().trim(retention)
        self._store.keys.update(keys)
        return removed


@refused_by("concurrent_appends_of_one_key_store_it_once")
class LooksUpKeysBeforeItStores(MemoryLog):
    def append(self, events: Sequence[Event]) -> Appended:
        new = all((event.channel, event.key) not in self._store.keys for event in events)
        time.sleep(0.001)
        with _one_append_at_a_time:
            if new:
                for event in events:
                    self._store.keys.pop((event.channel, event.key or ""), None)
            return super().append(events)


# Trimming


@refused_by("trim_keeps_the_newest_so_many")
class TrimsOneTooMany(MemoryLog):
    def trim(self, retention: Retention) -> int:
        return super().trim(retention._replace(events=max(0, (retention.events or 1000) - 1)))


@refused_by("trim_without_limits_removes_nothing")
class TakesNoLimitForNone(MemoryLog):
    def trim(self, retention: Retention) -> int:
        return super().trim(retention._replace(events=retention.events or 0))


@refused_by("seq_goes_on_when_all_was_trimmed", "positions_are_told_apart")
class BeginsAgainWhenAllWasTrimmed(MemoryLog):
    def trim(self, retention: Retention) -> int:
        removed = super().trim(retention)
        if not self._store.records:
            self._store.first = 1
        return removed


@refused_by("trim_removes_what_is_too_old")
class IgnoresAge(MemoryLog):
    def trim(self, retention: Retention) -> int:
        return super().trim(retention._replace(age_s=None))


@refused_by("trim_keeps_to_the_bytes")
class IgnoresBytes(MemoryLog):
    def trim(self, retention: Retention) -> int:
        return super().trim(retention._replace(bytes=None))


@refused_by("trim_keeps_to_the_bytes")
class TrimsAllWhenThereAreTooManyBytes(MemoryLog):
    def trim(self, retention: Retention) -> int:
        if retention.bytes is not None and self._store.bytes > retention.bytes:
            return super().trim(Retention(None, 0, None))
        return super().trim(retention)


@refused_by("latest_is_what_reading_backwards_finds")
class FindsTheOldest(MemoryLog):
    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        return super().latest(subscription, 1000, ends=ends)[:limit]


@refused_by("latest_is_what_reading_backwards_finds")
class CountsEnds(MemoryLog):
    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        return super().latest(subscription, limit, ends=True)


# Threads


@refused_by("one_log_serves_many_threads")
class KeepsToOneThread(MemoryLog):
    _thread: threading.Thread | None = None

    def append(self, events: Sequence[Event]) -> Appended:
        self._thread = self._thread or threading.current_thread()
        assert self._thread is threading.current_thread()
        return super().append(events)


# Epochs


@refused_by("opening_again_changes_nothing")
class BeginsAnewWhenOpened(MemoryLog):
    def open(self, *, renew: str | None = None) -> None:
        super().open(renew=renew or self._store.epoch)


@refused_by("what_is_stored_is_there_for_the_next_log")
class IsEmptyOnceClosed(MemoryLog):
    def close(self) -> None:
        super().close()
        self._store.records.clear()


@refused_by("renewing_keeps_the_records_under_a_new_epoch")
class RenewsItsRecordsInName(MemoryLog):
    def open(self, *, renew: str | None = None) -> None:
        records = self._store.records
        super().open(renew=renew)
        self._store.records = records


@refused_by("only_the_present_epoch_is_renewed", "of_many_that_renew_one_does")
class RenewsWhateverIsThere(MemoryLog):
    def open(self, *, renew: str | None = None) -> None:
        super().open(renew=renew and self._store.epoch)


@refused_by("of_many_that_renew_one_does")
class ComparesBeforeItRenews(MemoryLog):
    def open(self, *, renew: str | None = None) -> None:
        if renew == self._store.epoch:
            time.sleep(0.01)
            with self._store.changed:
                self._store.epoch = new_epoch()
        else:
            super().open()


# Waiting


@refused_by("wait_ends_soon_when_another_appended")
class NeverWakes(MemoryLog):
    def wait(self, after: int) -> None:
        with self._store.changed:
            self._check_open()
            self._store.changed.wait_for(lambda: self._closed, WAIT_S)


@refused_by("wait_does_not_miss_what_came_before_it")
class HearsOnlyWhileItWaits(MemoryLog):
    def wait(self, after: int) -> None:
        self._news = False
        super().wait(after)


@refused_by("wait_for_nothing_takes_its_time_and_ends")
class DoesNotWait(MemoryLog):
    def wait(self, after: int) -> None:
        self._news = True
        super().wait(after)


@refused_by("wait_for_nothing_takes_its_time_and_ends")
class WaitsTooLong(MemoryLog):
    def wait(self, after: int) -> None:
        with self._store.changed:
            self._check_open()
            self._store.changed.wait_for(lambda: self._closed, WAIT_S + 2.1)


@refused_by("close_ends_wait")
class ClosesWithoutAWord(MemoryLog):
    def close(self) -> None:
        self._closed = True


# The end


@refused_by("a_closed_log_says_so")
class AnswersWhenClosed(MemoryLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return self._store.records[after : after + limit]


@refused_by("a_log_that_was_never_opened_can_be_closed")
class CanBeClosedOnlyOnce(MemoryLog):
    def close(self) -> None:
        assert not self._closed
        super().close()


@refused_by("close_may_come_amid_everything")
class LosesTheLastWhenClosed(MemoryLog):
    def close(self) -> None:
        super().close()
        with self._store.changed:
            self._store.records[-1:] = []
