"""The state machine as its table, and the one rule of a stream: each own record once, every hole told."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Gap, GapReason, Position, Record
from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.core.stream import TRANSITIONS, Closing, Input, State, Stream
from penstock.core.wire import Entry
from tests.support.strategies import EPOCH, many, record


def stream_at(seq: int = 0, *names: str, ended: frozenset[str] = frozenset()) -> Stream:
    return Stream(Subscription(names or ("mine",)), Position(EPOCH, seq), ended)


def entries(records: list[Record]) -> list[Entry]:
    return [Entry(record) for record in records]


# The state machine


def test_every_input_is_answered_in_every_state() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Input))


DRAWN = [  # the arrows of the picture in the module; all else stays where it is
    (State.REPLAYING, Input.CAUGHT_UP, State.LIVE),
    (State.LIVE, Input.FELL_BEHIND, State.LAGGING),
    (State.LAGGING, Input.CAUGHT_UP, State.LIVE),
    (State.REPLAYING, Input.CLOSE, State.CLOSED),
    (State.LIVE, Input.CLOSE, State.CLOSED),
    (State.LAGGING, Input.CLOSE, State.CLOSED),
]


@pytest.mark.parametrize(("state", "what"), list(TRANSITIONS))
def test_the_table_is_the_picture(state: State, what: Input) -> None:
    drawn = {(before, arrow): after for before, arrow, after in DRAWN}
    stream = stream_at()
    stream.state = state
    stream.feed(what)
    assert stream.state is drawn.get((state, what), state)


@given(st.lists(st.sampled_from(Input), max_size=30))
@many
def test_a_walk_ends_closed_exactly_if_it_was_closed(walk: list[Input]) -> None:
    stream = stream_at()
    for taken, what in enumerate(walk, 1):
        stream.feed(what)
        assert (stream.state is State.CLOSED) == (Input.CLOSE in walk[:taken])


def test_every_state_is_reached() -> None:
    reached = {State.REPLAYING}
    for _ in State:
        reached |= {TRANSITIONS[state, what] for state in reached for what in Input}
    assert reached == set(State)


def test_the_first_reason_to_close_stays() -> None:
    stream = stream_at()
    stream.close(Closing.DRAINED)
    stream.close(Closing.LEFT)
    assert (stream.state, stream.closing) == (State.CLOSED, Closing.DRAINED)


def test_a_stream_shows_what_it_is_doing() -> None:
    stream = stream_at(5, "a", "b/*")
    assert repr(stream) == f"<Stream a,b/* replaying at {EPOCH}:5>"
    stream.close(Closing.LEFT)
    assert repr(stream) == f"<Stream a,b/* closed at {EPOCH}:5>"


# accept


@st.composite
def fed(draw: st.DrawFn) -> tuple[list[Record], list[list[Record]]]:
    """A log, and pieces of it as they may come: cut anywhere, doubled, overlapping, with holes."""
    log = [
        record(seq, channel)
        for seq, channel in enumerate(draw(st.lists(st.sampled_from(["mine", "other"]), max_size=30)), 1)
    ]
    pieces = []
    at = 0
    for step, size in draw(st.lists(st.tuples(st.integers(-6, 3), st.integers(0, 8)), max_size=12)):
        start = max(0, at + min(step, 0) if step < 2 else at + step)
        pieces.append(log[start : start + size])
        at = max(at, min(len(log), start + size))
    return log, pieces


@given(fed(), st.integers(0, 10))
@many
def test_each_own_record_once_in_order_and_every_hole_told(
    case: tuple[list[Record], list[list[Record]]], begin: int
) -> None:
    log, pieces = case
    stream = stream_at(begin)
    taken: list[int] = []
    told: list[int] = []
    seen: set[int] = set()
    for piece in pieces:
        seen |= {record.seq for record in piece}
        for item in stream.accept(entries(piece)):
            if isinstance(item, Entry):
                assert item.record.channel == "mine"
                taken.append(item.record.seq)
            elif isinstance(item, Gap):
                hole = range(Position.parse(item.after).seq + 1, item.resumes.seq + 1)
                assert hole, "a gap is never empty"
                assert seen.isdisjoint(hole), "told though it was there"
                told += hole
    assert stream.seq == max({begin} | seen)
    assert taken == sorted(set(taken)), "in order, none twice"
    assert told == sorted(set(told))
    passed = [own.seq for own in log if begin < own.seq <= stream.seq and own.channel == "mine"]
    assert [seq for seq in passed if seq not in told] == taken, "each is taken, or told"


@given(st.lists(st.sampled_from(["mine", "other"]), max_size=30), st.data())
@many
def test_a_log_without_holes_is_taken_whole_whatever_the_cut(names: list[str], data: st.DataObject) -> None:
    log = entries([record(seq, name) for seq, name in enumerate(names, 1)])
    stream = stream_at()
    items = []
    at = 0
    while at < len(log):
        back = data.draw(st.integers(0, 3))
        ahead = data.draw(st.integers(1, 6))
        items += stream.accept(log[max(0, at - back) : at + ahead])
        at += ahead
    assert items == [entry for entry in log if entry.record.channel == "mine"]


def test_a_hole_is_told_even_if_nothing_behind_it_is_ones_own() -> None:
    stream = stream_at(3)
    (gap,) = stream.accept(entries([record(7, "other")]))
    assert gap == Gap(GapReason.EXPIRED, f"{EPOCH}:3", Position(EPOCH, 6))
    assert stream.seq == 7


def test_nothing_is_taken_from_another_epoch() -> None:
    stream = stream_at(1)
    items = stream.accept(entries([record(2, "mine"), record(3, "mine", epoch="new")]))
    assert [item.record.seq for item in items if isinstance(item, Entry)] == [2]
    assert stream.position == Position(EPOCH, 2)


# The ends of channels


def test_the_end_of_the_only_channel_ends_the_stream() -> None:
    stream = stream_at()
    log = [record(1, "mine"), record(2, "other", end=True), record(3, "mine", end=True), record(4, "mine")]
    items = stream.accept(entries(log))
    assert [item.record.seq for item in items if isinstance(item, Entry)] == [1, 3]
    assert (stream.state, stream.closing, stream.seq) == (State.CLOSED, Closing.ENDED, 3)


def test_a_stream_of_several_channels_ends_with_the_last_of_them() -> None:
    stream = stream_at(0, "a", "b")
    stream.accept(entries([record(1, "a", end=True), record(2, "b")]))
    assert stream.state is State.REPLAYING
    stream.accept(entries([record(3, "b", end=True)]))
    assert stream.closing is Closing.ENDED


def test_a_channel_that_is_published_to_again_has_not_ended() -> None:
    stream = stream_at(0, "a", "b")
    stream.accept(entries([record(1, "a", end=True), record(2, "a"), record(3, "b", end=True)]))
    assert stream.state is State.REPLAYING
    stream.accept(entries([record(4, "a", end=True)]))
    assert stream.closing is Closing.ENDED


def test_a_stream_with_a_pattern_never_ends_by_itself() -> None:
    stream = stream_at(0, "a", "job/*")
    items = stream.accept(entries([record(1, "a", end=True), record(2, "job/7", end=True)]))
    assert len(items) == 2
    assert stream.state is State.REPLAYING


def test_channels_that_had_ended_before_count() -> None:
    stream = stream_at(5, "a", "b", ended=frozenset({"a"}))
    stream.accept(entries([record(6, "b", end=True)]))
    assert stream.closing is Closing.ENDED


def test_a_stream_all_of_whose_channels_had_ended_is_over_from_the_start() -> None:
    stream = stream_at(5, "a", "b", ended=frozenset({"a", "b"}))
    assert (stream.state, stream.closing) == (State.CLOSED, Closing.ENDED)
    assert stream_at(5, "a", "job/*", ended=frozenset({"a"})).state is State.REPLAYING


@given(
    st.lists(st.tuples(st.sampled_from("abx"), st.booleans()), max_size=20),
    st.integers(1, 5),
)
@many
def test_a_stream_is_over_exactly_when_all_its_channels_are(log: list[tuple[str, bool]], size: int) -> None:
    stream = stream_at(0, "a", "b")
    records = [record(seq, name, end=end) for seq, (name, end) in enumerate(log, 1)]
    open_now, over_at = {"a", "b"}, None
    for one in records:
        (open_now.discard if one.end else open_now.add)(one.channel)
        if one.end and not open_now & {"a", "b"} and one.channel in "ab":
            over_at = one.seq
            break
    got: list[int] = []
    for start in range(0, len(records), size):
        if stream.state is State.CLOSED:
            break
        items = stream.accept(entries(records[start : start + size]))
        got += [item.record.seq for item in items if isinstance(item, Entry)]
    last = over_at if over_at is not None else len(records)
    assert got == [one.seq for one in records if one.channel in "ab" and one.seq <= last]
    assert (stream.closing is Closing.ENDED) == (over_at is not None)


# check and skip_to


@pytest.mark.parametrize(
    ("bounds", "reason", "at"),
    [
        (Bounds(EPOCH, 1, 9), None, 5),
        (Bounds(EPOCH, 6, 9), None, 5),
        (Bounds(EPOCH, 8, 9), GapReason.EXPIRED, 7),
        (Bounds(EPOCH, 1, 4), GapReason.AHEAD, 4),
        (Bounds("new", 3, 9), GapReason.EPOCH, 2),
    ],
)
def test_a_stream_goes_on_where_the_log_can(bounds: Bounds, reason: GapReason | None, at: int) -> None:
    stream = stream_at(5)
    gap = stream.check(bounds)
    assert (gap.reason if gap is not None else None) is reason
    assert stream.position == Position(bounds.epoch, at)
    assert stream.check(bounds) is None


def test_in_a_new_epoch_nothing_has_ended_yet() -> None:
    stream = stream_at(5, "a", "b", ended=frozenset({"a"}))
    stream.check(Bounds(EPOCH, 8, 9))
    assert stream.ended == {"a"}
    stream.check(Bounds("new", 1, 9))
    assert stream.ended == set()


def test_a_stream_never_goes_back() -> None:
    stream = stream_at(5)
    stream.skip_to(3)
    assert stream.seq == 5
    stream.skip_to(8)
    assert stream.seq == 8
    assert stream.accept(entries([record(seq, "mine") for seq in range(1, 9)])) == []
