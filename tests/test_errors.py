"""The tree that is drawn in ``penstock.errors`` is the tree that there is."""

from __future__ import annotations

import builtins
import inspect
import re

import pytest

import penstock
from penstock import Gap, GapError, GapReason, PenstockError, Position, errors

_BRANCH = re.compile(r"^\s*(?P<line>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<also>\w+)\))?(?:\s{2,}.*)?$")


def drawn() -> dict[str, tuple[str, ...]]:
    """Each class of the drawing, with the names of its bases."""
    assert errors.__doc__ is not None
    bases: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in errors.__doc__.partition("::\n")[2].splitlines():
        found = _BRANCH.match(line)
        if found is None:
            assert not line.strip(), f"this line of the drawing is not understood: {line!r}"
            continue
        depth = len(found["line"]) // 4
        del path[depth:]
        also = (found["also"],) if found["also"] else ()
        bases[found["name"]] = (path[-1] if path else "Exception", *also)
        path.append(found["name"])
    return bases


CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {name: tuple(base.__name__ for base in value.__bases__) for name, value in CLASSES.items()}
    assert drawn() == real
    assert len(real) == 21


def test_classes_stand_in_the_order_of_the_drawing() -> None:
    assert list(drawn()) == list(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_ours_and_says_what_it_means(name: str) -> None:
    error = CLASSES[name]
    assert issubclass(error, PenstockError)
    assert error.__doc__
    assert "__doc__" in vars(error), "a meaning of its own"
    assert not hasattr(builtins, name), "no name is taken twice: except would catch another"


def test_those_that_tell_stored_from_not_stored_are_named_at_the_top() -> None:
    for name in ("AppendUnsure", "GapError", "LogUnavailable", "PenstockError"):
        assert getattr(penstock, name) is CLASSES[name]
    assert not issubclass(errors.AppendUnsure, errors.LogUnavailable), "a retry may store twice"
    assert issubclass(errors.LogFull, errors.LogUnavailable)
    assert not issubclass(errors.LogUnusable, errors.LogUnavailable)


def test_a_gap_error_says_what_is_missing_and_how_to_go_on() -> None:
    gap = Gap(GapReason.EXPIRED, "e:3", Position("e", 9))
    error = GapError(gap)
    assert error.gap is gap
    assert str(error) == (
        "events after e:3 are missing (expired: they were older than the log keeps); what the log still "
        "has follows e:9: subscribe again with after='e:9', or pass on_gap= to go on by itself"
    )
    assert "the given position" in str(GapError(gap_without_position()))


def gap_without_position() -> Gap:
    return Gap(GapReason.MALFORMED, "", Position("e", 0))
