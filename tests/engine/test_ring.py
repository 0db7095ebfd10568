"""The ring against a model, and its readers in threads while the loop writes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Record
from penstock.core.position import Bounds
from penstock.core.wire import Entry
from penstock.engine.ring import BLOCK_BYTES, ENTRY_OVERHEAD_BYTES, Ring
from tests.support.strategies import EPOCH, many, record

BOUNDS = Bounds(EPOCH, 1, 0)


def records(first: int, sizes: list[int]) -> list[Record]:
    return [record(seq, data="x" * size) for seq, size in enumerate(sizes, first)]


def seqs(entries: list[Entry] | None) -> list[int] | None:
    return [entry.record.seq for entry in entries] if entries is not None else None


some_sizes = [0, 9, BLOCK_BYTES // 2, BLOCK_BYTES // 2 + 1, BLOCK_BYTES, BLOCK_BYTES + 9]
sizes = st.lists(st.one_of(st.integers(0, 9), st.sampled_from(some_sizes)), min_size=1, max_size=6)


@given(
    max_events=st.integers(1, 12),
    max_bytes=st.sampled_from([1024, 10_000, 2 * BLOCK_BYTES, 1 << 40]),
    start=st.integers(0, 5),
    batches=st.lists(sizes, max_size=10),
    limit=st.integers(1, 8),
)
@many
def test_the_window_is_the_end_of_what_was_appended(
    max_events: int, max_bytes: int, start: int, batches: list[list[int]], limit: int
) -> None:
    ring = Ring(max_events, max_bytes)
    ring.move(BOUNDS._replace(head=start), start)
    everything: list[int] = []  # sizes; the first is of seq start + 1
    for batch in batches:
        added = ring.append(records(start + len(everything) + 1, batch))
        assert [len(entry.record.data) for entry in added] == batch, "whole, even if it was dropped"
        everything += batch
        head = start + len(everything)
        assert ring.head == head
        assert ring.bounds == Bounds(EPOCH, 1, head)
        assert 1 <= len(ring) <= max_events or len(ring) == 1
        assert ring.bytes <= max_bytes or len(ring) == 1
        assert ring.bytes == sum(
            ENTRY_OVERHEAD_BYTES + 2 * size for size in everything[len(everything) - len(ring) :]
        )
        oldest = head - len(ring)
        for seq in range(head + 3):
            found = seqs(ring.after(EPOCH, seq, limit))
            if seq < oldest:
                assert found is None
            else:
                assert found is not None
                assert found == list(range(seq + 1, head + 1))[: len(found)], "dense, from there on"
                taken = [everything[one - start - 1] for one in found]
                full = len(found) == min(limit, max(0, head - seq))
                rest = everything[seq - start + len(found)] if not full else 0
                assert full or sum(taken) + rest > BLOCK_BYTES, "no less than may be"
                assert len(found) <= limit
                assert sum(taken) <= BLOCK_BYTES or len(found) == 1


def test_a_ring_knows_nothing_before_the_log_was_found() -> None:
    ring = Ring(10, 10_000)
    assert (ring.bounds, ring.epoch, ring.head, len(ring)) == (None, None, 0, 0)
    assert ring.after(EPOCH, 0, 10) is None


def test_a_ring_answers_for_its_own_epoch_alone() -> None:
    ring = Ring(10, 10_000)
    ring.move(BOUNDS, 0)
    ring.append(records(1, [1, 1]))
    assert ring.epoch == EPOCH
    assert seqs(ring.after(EPOCH, 0, 10)) == [1, 2]
    assert ring.after("other", 0, 10) is None
    assert ring.after("other", 2, 10) is None


def test_a_ring_that_is_moved_begins_again() -> None:
    ring = Ring(10, 10_000)
    ring.move(BOUNDS, 0)
    ring.append(records(1, [1, 1]))
    ring.move(Bounds("new", 5, 9), 7)
    assert (ring.epoch, ring.head, len(ring), ring.bytes) == ("new", 7, 0, 0)
    assert ring.bounds == Bounds("new", 5, 7)
    assert ring.after("new", 6, 10) is None
    assert ring.after("new", 7, 10) == []
    assert ring.after(EPOCH, 1, 10) is None


def test_room_is_made_for_many_at_once() -> None:
    ring = Ring(100, 1 << 40)
    ring.move(BOUNDS, 0)
    lengths = []
    for seq in range(1, 301):
        ring.append(records(seq, [0]))
        lengths.append(len(ring))
    assert max(lengths) == 100
    assert lengths.count(75) == 9, "once for each quarter that was filled, and when it first filled"


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("often_switched")
def test_readers_in_threads_see_no_hole_while_the_loop_writes() -> None:
    total, batch, reader_count = 20_000, 7, 3
    ring = Ring(200, 1 << 40)
    ring.move(BOUNDS, 0)
    faults: list[str] = []
    taken = [0] * reader_count

    def read(number: int) -> None:
        seq = 0
        while seq < total and not faults:
            bounds = ring.bounds
            found = ring.after(EPOCH, seq, 50)
            if bounds is None or bounds.head < seq:
                faults.append(f"the head went back: {bounds} after {seq}")
            elif found is None:  # fell out of the window: go on further in it
                seq = max(seq, bounds.head - 100)
            else:
                for entry in found:
                    seq += 1
                    taken[number] += 1
                    if entry.record.seq != seq:
                        faults.append(f"{entry.record.seq} where {seq} was due")
                        return

    readers = [threading.Thread(target=read, args=(number,)) for number in range(reader_count)]
    for reader in readers:
        reader.start()
    for first in range(1, total + 1, batch):
        ring.append(records(first, [0] * min(batch, total - first + 1)))
    for reader in readers:
        reader.join()
    assert faults == []
    assert all(taken), "every reader read something"
