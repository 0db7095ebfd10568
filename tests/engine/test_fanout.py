"""Who hears of what, and the rule of a turn: from anywhere in it, its block is all that there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.channel import Subscription
from penstock.core.wire import Entry
from penstock.engine import fanout as fanout_module
from penstock.engine.fanout import Audience, Fanout
from tests.support.strategies import many, record


class Listener:
    """A member of an audience that counts how often it is told that there is news."""

    def __init__(self, *names: str) -> None:
        self.subscription = Subscription(names)
        self.told = 0

    def news(self) -> None:
        self.told += 1


def entries(first: int, *channels: str) -> list[Entry]:
    return [Entry(record(seq, channel)) for seq, channel in enumerate(channels, first)]


def seqs_of(audience: Audience) -> list[int]:
    assert audience.turn is not None
    return [item.record.seq for item in audience.turn.block.items if isinstance(item, Entry)]


SUBSCRIPTIONS = [("a",), ("b",), ("a", "b"), ("*",), ("c/*",), ("**",), ("z",)]

turns = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["a", "b", "c/1", "d"]), min_size=1, max_size=5),  # a turn of these
        st.integers(0, len(SUBSCRIPTIONS) - 1),  # one more joins, or the last of it leaves
    ),
    max_size=25,
)


@given(turns)
@many
def test_from_anywhere_in_a_turn_its_block_is_all_that_there_is(steps: list[list[str] | int]) -> None:
    fanout = Fanout(15.0)
    log: list[Entry] = []
    joined: dict[int, tuple[Listener, Audience]] = {}
    for step in steps:
        if isinstance(step, int):
            if step in joined:
                fanout.leave(joined.pop(step)[0])
            else:
                listener = Listener(*SUBSCRIPTIONS[step])
                joined[step] = (listener, fanout.join(listener, len(log), 0.0))
            continue
        new = entries(len(log) + 1, *step)
        told_before = {number: listener.told for number, (listener, _) in joined.items()}
        fanout.turn(new, len(log), 0.0)
        log += new
        for number, (listener, audience) in joined.items():
            own = [e.record.seq for e in log if listener.subscription.covers(e.record.channel)]
            fresh = [entry.record.seq for entry in new if entry.record.seq in own]
            assert listener.told - told_before[number] == (1 if fresh else 0)
            turn = audience.turn
            if not fresh or turn is None:
                continue
            assert seqs_of(audience) == fresh
            assert turn.upto == len(log)
            assert turn.before == len(log) - len(new)
            for position in range(turn.after, turn.before + 1):
                assert [seq for seq in own if position < seq <= turn.upto] == fresh


def test_equal_subscriptions_share_an_audience_and_its_bytes() -> None:
    fanout = Fanout(15.0)
    one, other, third = Listener("a", "b"), Listener("b", "a"), Listener("a")
    audience = fanout.join(one, 0, 0.0)
    assert fanout.join(other, 0, 0.0) is audience
    assert fanout.join(third, 0, 0.0) is not audience
    assert {member for audience in fanout.audiences.values() for member in audience.members} == {
        one,
        other,
        third,
    }
    fanout.turn(entries(1, "a"), 0, 0.0)
    assert (one.told, other.told, third.told) == (1, 1, 1)


def test_an_audience_goes_with_its_last_member() -> None:
    fanout = Fanout(15.0)
    one, other = Listener("a"), Listener("a")
    fanout.join(one, 0, 0.0)
    fanout.join(other, 0, 0.0)
    fanout.leave(one)
    assert len(fanout.audiences) == 1
    fanout.leave(other)
    fanout.leave(other)
    assert fanout.audiences == {}
    fanout.turn(entries(1, "a"), 0, 0.0)
    assert other.told == 0


def test_whoever_joins_later_is_on_the_way_too() -> None:
    fanout = Fanout(15.0)
    first = Listener("a")
    fanout.join(first, 0, 0.0)
    fanout.turn(entries(1, "a"), 0, 0.0)  # the way of channel a is remembered
    late = Listener("*")
    fanout.join(late, 1, 0.0)
    fanout.turn(entries(2, "a"), 1, 0.0)
    assert (first.told, late.told) == (2, 1)


def test_ways_are_remembered_for_so_many_channels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "MAX_ROUTES", 10)
    fanout = Fanout(15.0)
    listener = Listener("*")
    fanout.join(listener, 0, 0.0)
    for number in range(100):
        fanout.turn(entries(number + 1, f"c{number}"), number, 0.0)
        assert len(fanout._routes) <= 10
    assert listener.told == 100


def test_a_turn_tells_whether_a_channel_ended_in_it() -> None:
    fanout = Fanout(15.0)
    audience = fanout.join(Listener("a"), 0, 0.0)
    fanout.turn(entries(1, "a"), 0, 0.0)
    assert audience.turn is not None
    assert not audience.turn.ends
    fanout.turn([Entry(record(2, "a", end=True))], 1, 0.0)
    assert audience.turn.ends


def test_a_quiet_audience_is_kept_alive_one_that_has_news_is_not() -> None:
    fanout = Fanout(keep_alive_s=15.0)
    busy, quiet = Listener("busy"), Listener("quiet")
    audiences = [fanout.join(busy, 0, now=100.0), fanout.join(quiet, 0, now=100.0)]

    def beats() -> list[int]:
        return [audience.beat for audience in audiences]

    fanout.sweep(None, 114.9)
    assert beats() == [0, 0]
    fanout.turn(entries(1, "busy"), 0, now=114.9)
    fanout.sweep(None, 115.0)
    assert beats() == [0, 1]
    fanout.sweep(None, 129.8)
    assert beats() == [0, 1], "once for each silence"
    fanout.sweep(None, 130.0)
    assert beats() == [1, 2]
    assert (busy.told, quiet.told) == (2, 2)


def test_after_a_restart_no_old_turn_is_taken() -> None:
    fanout = Fanout(15.0)
    listener = Listener("a")
    audience = fanout.join(listener, 0, 0.0)
    fanout.turn(entries(1, "a"), 0, 0.0)
    fanout.restart(7)
    assert (audience.turn, audience.upto, listener.told) == (None, 7, 2)


def test_all_are_woken_when_the_state_of_things_changed() -> None:
    fanout = Fanout(15.0)
    listeners = [Listener("a"), Listener("a"), Listener("b")]
    for listener in listeners:
        fanout.join(listener, 0, 0.0)
    fanout.wake()
    assert [listener.told for listener in listeners] == [1, 1, 1]


def test_a_large_turn_is_read_from_the_ring_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_module, "BLOCK_BYTES", 0)
    fanout, member = Fanout(15), Listener("a")
    audience = fanout.join(member, 0, 0)
    fanout.turn([Entry(record(1, "a", "x"))], 0, 0)
    assert audience.turn is None
    assert audience.upto == 1
    assert member.told == 1
