"""Whose a stream is: what can be compared is taken, all else is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penstock.core.channel import Subscription
from penstock.core.rights import FREE, MAX_USER_CHARS, Rights, StreamInfo, check_user
from penstock.errors import ConfigError


def test_a_number_and_its_text_are_the_same_user() -> None:
    assert check_user(7) == check_user("7") == "7"


@pytest.mark.parametrize("user", ["", "x" * (MAX_USER_CHARS + 1), True, 1.5, None, b"x", ["x"]])
def test_what_is_no_user_is_refused(user: Any) -> None:
    with pytest.raises(ConfigError, match=r"^a user (is|has) "):
        check_user(user)


@pytest.mark.parametrize("until", [math.nan, math.inf, "2030-01-01", True])
def test_what_is_no_time_is_refused(until: Any) -> None:
    with pytest.raises(ConfigError, match=r"^until is a time in seconds since 1970, not "):
        Rights(until=until)


def test_a_right_is_over_from_the_moment_that_it_was_given_until() -> None:
    right = Rights(until=100.0)
    assert [right.over(now) for now in (99.9, 100.0, 100.1)] == [False, True, True]
    assert not FREE.over(1e12)


def test_a_stream_is_known_by_user_and_names() -> None:
    info = StreamInfo.of(Subscription(["chat", "room/*"]), Rights("alice", 5.0))
    assert info == StreamInfo("alice", frozenset({"chat", "room/*"}), 5.0)
