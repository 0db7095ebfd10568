"""Where a stream begins: the client's position first, then what the view asks for, else now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Event, Gap, GapReason, Position
from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.engine.origin import MAX_LAST, Origin, Wish, check_wish, find_origin
from penstock.errors import ConfigError, MalformedPosition
from penstock.log.base import Log, Retention
from penstock.log.memory import MemoryLog
from penstock.log.sqlite import SQLiteLog

CHANNELS = ["a", "b", "a", "job/7", "b", "a", "b", "b", "job/7", "b"]  # of the records 1 to 10
END_AT = 9  # job/7 ends


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log: Log = MemoryLog() if request.param == "memory" else SQLiteLog(tmp_path / "log.db")
    log.open()
    log.append(
        [
            Event(name, "", end=True) if seq == END_AT else Event(name, str(seq))
            for seq, name in enumerate(CHANNELS, 1)
        ]
    )
    yield log
    log.close()


def begin(
    log: Log,
    *names: str,
    after: Position | str | None = None,
    last: int | None = None,
    last_event_id: str | None = None,
    known: Bounds | None = None,
) -> Origin:
    """Where a stream of these channels begins; ``E`` stands for the log's epoch."""
    epoch = log.bounds().epoch
    wish = check_wish(after.replace("E", epoch) if isinstance(after, str) else after, last)
    came_with = last_event_id.replace("E", epoch) if last_event_id is not None else None
    return find_origin(log, known or log.bounds(), Subscription(names), wish, came_with)


def test_a_new_client_begins_now(log: Log) -> None:
    assert begin(log, "a") == (Position(log.bounds().epoch, 10), None, frozenset())


def test_now_is_the_logs_now_even_if_the_ring_is_behind(log: Log) -> None:
    behind = log.bounds()._replace(head=7)
    assert begin(log, "a", known=behind).position.seq == 10
    older = Bounds("before", 1, 99)
    assert begin(log, "a", known=older) == (Position(log.bounds().epoch, 10), None, frozenset())


@pytest.mark.parametrize(
    ("names", "last", "seq"),
    [
        (["a"], 1, 5),
        (["a"], 2, 2),
        (["a"], 3, 0),
        (["a"], 100, 0),
        (["a"], 0, 10),
        (["b"], 1, 9),
        (["a", "b"], 2, 7),
        (["*"], 2, 7),
        (["**"], 2, 7),  # the end of a channel is none of the events that are asked for
        (["**"], 3, 6),
        (["job/*"], 1, 3),
        (["nothing"], 5, 10),
    ],
)
def test_the_last_events_of_the_subscription(log: Log, names: list[str], last: int, seq: int) -> None:
    origin = begin(log, *names, last=last)
    assert (origin.position.seq, origin.gap) == (seq, None)


def test_after_a_position_and_from_the_earliest_on(log: Log) -> None:
    epoch = log.bounds().epoch
    assert begin(log, "a", after="E:4").position == Position(epoch, 4)
    assert begin(log, "a", after=Position(epoch, 4)).position == Position(epoch, 4)
    assert begin(log, "a", after="E:0").position.seq == 0
    assert begin(log, "a", after="earliest").position.seq == 0
    log.trim(Retention(None, 4, None))
    origin = begin(log, "a", after="earliest")
    assert (origin.position.seq, origin.gap) == (6, None)


def test_a_position_that_is_trimmed_is_a_gap(log: Log) -> None:
    log.trim(Retention(None, 4, None))
    epoch = log.bounds().epoch
    gap = Gap(GapReason.EXPIRED, f"{epoch}:2", Position(epoch, 6))
    assert begin(log, "a", after="E:2")[:2] == (gap.resumes, gap)
    assert begin(log, "a", last_event_id="E:2")[:2] == (gap.resumes, gap)
    assert begin(log, "a", last_event_id="E:6")[:2] == (Position(epoch, 6), None)


def test_a_client_that_comes_back_goes_on_whatever_the_view_asks_for(log: Log) -> None:
    for wish in ({"last": 3}, {"after": "earliest"}, {"after": "E:1"}, {}):
        origin = begin(log, "a", last_event_id="E:8", **wish)
        assert (origin.position.seq, origin.gap) == (8, None)


@pytest.mark.parametrize(
    ("last_event_id", "reason", "seq"),
    [("E:11", GapReason.AHEAD, 10), ("other:5", GapReason.EPOCH, 0), ("other:99", GapReason.EPOCH, 0)],
)
def test_a_position_of_no_record_is_a_gap(log: Log, last_event_id: str, reason: GapReason, seq: int) -> None:
    epoch = log.bounds().epoch
    origin = begin(log, "a", last_event_id=last_event_id, last=2)
    assert origin.position == Position(epoch, seq)
    assert origin.gap == Gap(reason, last_event_id.replace("E", epoch), origin.position)


def test_what_looks_ahead_is_none_if_only_the_ring_is_behind(log: Log) -> None:
    epoch = log.bounds().epoch
    for known in (Bounds(epoch, 1, 3), Bounds("before", 1, 99)):
        origin = begin(log, "a", last_event_id="E:9", known=known)
        assert origin[:2] == (Position(epoch, 9), None)


@pytest.mark.parametrize("text", ["", "17", "E:x", "é:1", "E:10 ", "null", "x" * 5_000, "\r\nid: 1"])
def test_what_cannot_be_read_is_a_gap_and_the_view_decides(log: Log, text: str) -> None:
    epoch = log.bounds().epoch
    sent = text.replace("E", epoch)
    for wish, seq in (({}, 10), ({"last": 2}, 2), ({"after": "earliest"}, 0)):
        origin = begin(log, "a", last_event_id=text, **wish)
        assert origin.position == Position(epoch, seq)
        assert origin.gap == Gap(GapReason.MALFORMED, sent[:64], origin.position)


# The ends of channels


@pytest.mark.parametrize(
    ("names", "position", "ended"),
    [
        (["job/7"], "E:9", {"job/7"}),
        (["job/7"], "E:10", {"job/7"}),
        (["job/7"], None, {"job/7"}),
        (["job/7"], "E:8", set()),  # it has not had the end yet
        (["job/7", "a"], "E:10", {"job/7"}),
        (["job/*"], "E:10", set()),  # another may come
        (["a"], "E:10", set()),
    ],
)
def test_channels_that_had_ended(log: Log, names: list[str], position: str | None, ended: set[str]) -> None:
    assert begin(log, *names, last_event_id=position).ended == ended


def test_a_channel_that_was_published_to_again_has_not_ended(log: Log) -> None:
    log.append([Event("job/7", "again")])
    assert begin(log, "job/7", last_event_id="E:10").ended == frozenset()
    assert begin(log, "job/7").ended == frozenset()


def test_the_last_of_an_ended_channel_come_before_its_end(log: Log) -> None:
    origin = begin(log, "job/7", last=5)
    assert (origin.position.seq, origin.ended) == (3, frozenset())


# Wishes


@pytest.mark.parametrize(
    ("after", "last", "wish"),
    [
        (None, None, Wish()),
        (None, 0, Wish(last=0)),
        (None, MAX_LAST, Wish(last=MAX_LAST)),
        ("earliest", None, Wish("earliest")),
        ("e:5", None, Wish(Position("e", 5))),
        (Position("e", 5), None, Wish(Position("e", 5))),
    ],
)
def test_wishes(after: Any, last: Any, wish: Wish) -> None:
    assert check_wish(after, last) == wish


@pytest.mark.parametrize("last", [-1, MAX_LAST + 1, 1.0, "5", True])
def test_last_is_a_number_of_events(last: Any) -> None:
    with pytest.raises(ConfigError, match="last is a whole number from 0 to 10000"):
        check_wish(None, last)


@pytest.mark.parametrize("after", ["", "latest", "17", 17, b"e:1", ("e", 1)])
def test_after_is_a_position(after: Any) -> None:
    with pytest.raises(MalformedPosition):
        check_wish(after, None)


def test_both_wishes_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="not both"):
        check_wish("earliest", 5)
