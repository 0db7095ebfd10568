"""Positions come from strangers: what is none is refused; gaps are found the same way everywhere."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Gap, GapReason, Position
from penstock.core.position import MAX_POSITION_CHARS, Bounds, find_gap
from penstock.errors import MalformedPosition
from tests.support.strategies import many

LARGEST = 2**63 - 1

epochs = st.text("abcXYZ019_-", min_size=1, max_size=32)
seqs = st.one_of(st.integers(0, 30), st.integers(0, LARGEST))


@given(epochs, seqs)
@many
def test_a_position_comes_back_from_its_text(epoch: str, seq: int) -> None:
    position = Position(epoch, seq)
    text = str(position)
    assert Position.parse(text) == position
    assert len(text) <= MAX_POSITION_CHARS


@given(st.one_of(st.text(max_size=80), st.text("ab:0123456789 -+_", max_size=30)))
@many
def test_text_is_a_position_or_is_refused_but_never_two_texts_are_one(text: str) -> None:
    with contextlib.suppress(MalformedPosition):
        assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "e",
        "e:",
        ":1",
        "e:-1",
        "e:+1",
        "e:01",
        "e:1 ",
        " e:1",
        "e:1\n",
        "e:1:2",
        "e:1.0",
        "e:0x1",
        "e:1_000",
        "e:\u0661",  # digits of another script
        "é:1",
        "e e:1",
        f"e:{LARGEST + 1}",
        "e:99999999999999999999",
        "e" * 33 + ":1",
        "null",
        "earliest",
        "1",
        "e:1" + "0" * 1_000_000,
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(MalformedPosition, match="not a position") as caught:
        Position.parse(text)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("epoch", "seq"),
    [
        ("", 1),
        ("e:e", 1),
        ("é", 1),
        ("e\n", 1),
        ("e" * 33, 1),
        (5, 1),
        (None, 1),
        ("e", -1),
        ("e", LARGEST + 1),
        ("e", True),
        ("e", 1.0),
        ("e", "1"),
        ("e", None),
    ],
)
def test_a_position_that_could_not_be_read_back_cannot_be_made(epoch: object, seq: object) -> None:
    with pytest.raises(MalformedPosition):
        Position(epoch, seq)  # type: ignore[arg-type]


def test_positions_are_values() -> None:
    assert Position("e", 1) == Position("e", 1) != Position("f", 1)
    assert len({Position("e", 1), Position("e", 1), Position("e", 2)}) == 2
    with pytest.raises(AttributeError):
        Position("e", 1).seq = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("position", "bounds", "reason", "resumes"),
    [
        # nothing stored yet
        ("e:0", ("e", 1, 0), None, None),
        ("e:1", ("e", 1, 0), GapReason.AHEAD, "e:0"),
        ("x:0", ("e", 1, 0), GapReason.EPOCH, "e:0"),
        # 1 to 9 are there
        ("e:0", ("e", 1, 9), None, None),
        ("e:5", ("e", 1, 9), None, None),
        ("e:9", ("e", 1, 9), None, None),
        ("e:10", ("e", 1, 9), GapReason.AHEAD, "e:9"),
        ("x:9", ("e", 1, 9), GapReason.EPOCH, "e:0"),
        ("x:99", ("e", 1, 9), GapReason.EPOCH, "e:0"),
        # 1 to 5 were trimmed
        ("e:0", ("e", 6, 9), GapReason.EXPIRED, "e:5"),
        ("e:4", ("e", 6, 9), GapReason.EXPIRED, "e:5"),
        ("e:5", ("e", 6, 9), None, None),
        ("x:7", ("e", 6, 9), GapReason.EPOCH, "e:5"),
        # everything was trimmed
        ("e:8", ("e", 10, 9), GapReason.EXPIRED, "e:9"),
        ("e:9", ("e", 10, 9), None, None),
        ("e:10", ("e", 10, 9), GapReason.AHEAD, "e:9"),
    ],
)
def test_a_gap_is_found_and_says_where_to_go_on(
    position: str, bounds: tuple[str, int, int], reason: GapReason | None, resumes: str | None
) -> None:
    gap = find_gap(Position.parse(position), Bounds(*bounds))
    if reason is None or resumes is None:
        assert gap is None
    else:
        assert gap == Gap(reason, position, Position.parse(resumes))


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 20), st.sampled_from("ex"))
@many
def test_where_a_gap_resumes_there_is_no_gap(seq: int, first: int, kept: int, epoch: str) -> None:
    bounds = Bounds("e", first, first - 1 + kept)
    gap = find_gap(Position(epoch, seq), bounds)
    if gap is None:
        assert epoch == "e"
        assert first - 1 <= seq <= bounds.head
    else:
        assert find_gap(gap.resumes, bounds) is None
        assert gap.reason.meaning
