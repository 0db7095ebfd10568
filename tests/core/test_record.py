"""A record tells where it is, and reads its data."""

from __future__ import annotations

import pytest

from penstock import Position, Record
from tests.support.strategies import record


def test_a_record_is_at_a_position() -> None:
    assert record(7, epoch="e").position == Position("e", 7)
    assert str(record(7, epoch="e").position) == "e:7"


def test_records_are_in_the_order_of_their_log() -> None:
    records = [record(seq, channel, data) for seq, channel, data in [(2, "a", "x"), (10, "Z", "")]]
    assert sorted(reversed(records)) == records


def test_data_is_read_as_json_when_it_is_asked_for() -> None:
    assert record(1, data='{"text": "hi"}').json() == {"text": "hi"}
    with pytest.raises(ValueError, match="Expecting"):
        record(1, data="hi").json()


def test_most_of_a_record_may_be_left_out() -> None:
    plain = Record("e", 1, 0.0, "chat", "hi")
    assert (plain.event, plain.retry, plain.key, plain.end) == (None, None, None, False)
