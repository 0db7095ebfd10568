"""Names of channels, and which of them a pattern stands for."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.channel import (
    MAX_CHANNEL_CHARS,
    MAX_CHANNELS_PER_STREAM,
    MAX_SEGMENTS,
    Subscription,
    check_channel,
    check_pattern,
    matches,
)
from penstock.errors import BadChannel
from tests.support.strategies import channels, many, patterns


@pytest.mark.parametrize(
    "name", ["chat", "room/7", "a", "é/日本", "a.b-c_d:e@f", "a" * 200, "/".join("a" * 16)]
)
def test_a_channel_may_have_any_visible_characters(name: str) -> None:
    assert check_channel(name) == name
    assert check_pattern(name) == name


NO_NAMES = [
    ("", "0"),
    ("a" * (MAX_CHANNEL_CHARS + 1), "201"),
    ("/".join("a" * (MAX_SEGMENTS + 1)), "over 16 segments"),
    ("/", "empty segment"),
    ("/a", "empty segment"),
    ("a/", "empty segment"),
    ("a//b", "empty segment"),
    ("a b", "white space"),
    ("a\u00a0b", "white space"),
    ("a\tb", "white space"),
    ("a\nb", "control"),
    ("a\r\ndata: forged", "control"),
    ("a\0", "control"),
    ("a\x7f", "control"),
    ("a\u2028b", "unprintable"),
    ("a\u200bb", "unprintable"),
    ("a\ud800", "unprintable"),
    (7, "int"),
    (None, "NoneType"),
    (b"chat", "bytes"),
]


@pytest.mark.parametrize(("name", "why"), NO_NAMES)
def test_what_is_no_name_is_refused(name: str, why: str) -> None:
    for check in (check_channel, check_pattern):
        with pytest.raises(BadChannel, match=why):
            check(name)


@pytest.mark.parametrize("name", ["*", "**", "room/*", "*/a", "a*", "a/b*c"])
def test_nothing_is_published_to_a_wildcard(name: str) -> None:
    with pytest.raises(BadChannel, match="wildcard: only streams"):
        check_channel(name)


@pytest.mark.parametrize("name", ["a*", "*a", "***", "room/a*", "**b", "a/*b/c"])
def test_a_wildcard_is_a_whole_segment(name: str) -> None:
    with pytest.raises(BadChannel, match="whole segment"):
        check_pattern(name)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("chat", ["chat"], ["chats", "chat/1", "Chat"]),
        ("*", ["chat", "room"], ["room/7"]),
        ("**", ["chat", "room/7", "a/b/c"], []),
        ("room/*", ["room/7"], ["room", "room/7/typing", "rooms/7"]),
        ("room/**", ["room", "room/7", "room/7/typing"], ["rooms", "a/room"]),
        ("**/typing", ["typing", "room/typing", "room/7/typing"], ["typing/7"]),
        ("*/7", ["room/7"], ["7", "a/b/7"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z", "a/z/z"], ["a", "z", "a/b"]),
        ("a/**/b/**/c", ["a/b/c", "a/b/b/c", "a/x/b/y/c"], ["a/c", "a/c/b"]),
        ("**/*", ["a", "a/b"], []),
        ("*/**", ["a", "a/b"], []),
        ("*/**/*", ["a/b", "a/b/c"], ["a"]),
        ("**/**", ["a", "a/b"], []),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    check_pattern(pattern)
    assert [name for name in yes + no if matches(pattern, name)] == yes


def reference(want: list[str], have: list[str]) -> bool:
    """The definition, word for word: ``*`` is one segment, ``**`` any number of them."""
    if not want:
        return not have
    if want[0] == "**":
        return reference(want[1:], have) or (bool(have) and reference(want, have[1:]))
    return bool(have) and want[0] in ("*", have[0]) and reference(want[1:], have[1:])


@given(patterns, channels)
@many
def test_matching_is_what_the_definition_says(pattern: str, channel: str) -> None:
    assert matches(pattern, channel) == reference(pattern.split("/"), channel.split("/"))


def test_no_pattern_makes_matching_explode() -> None:
    pattern = "/".join(["**", "a"] * (MAX_SEGMENTS // 2))
    started = time.perf_counter()
    for tail in range(100):
        channel = "/".join("a" * (MAX_SEGMENTS - 1)) + f"/{tail}"
        assert not matches(check_pattern(pattern), check_channel(channel))
    assert time.perf_counter() - started < 0.5  # by plain recursion it takes minutes


@given(st.lists(patterns, min_size=1, max_size=4), channels)
@many
def test_a_subscription_covers_what_one_of_its_names_stands_for(names: list[str], channel: str) -> None:
    covered = any(reference(name.split("/"), channel.split("/")) for name in names)
    assert Subscription(names).covers(channel) == covered


def test_equal_sets_of_names_are_equal_subscriptions() -> None:
    one, other = Subscription(["b", "a/*", "a"]), Subscription(("a", "a/*", "a", "b"))
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == str(other) == "a,a/*,b"
    assert one != Subscription(["a", "b"])
    assert one.channels == {"a", "b"}
    assert one.patterns == ("a/*",)


def test_a_single_name_is_not_taken_for_its_letters() -> None:
    assert Subscription("chat") == Subscription(["chat"])


def test_a_stream_follows_at_least_one_and_not_too_many() -> None:
    with pytest.raises(BadChannel, match="not 0"):
        Subscription([])
    most = [f"room/{n}" for n in range(MAX_CHANNELS_PER_STREAM)]
    assert len(Subscription(most + most).channels) == MAX_CHANNELS_PER_STREAM
    with pytest.raises(BadChannel, match="not 101"):
        Subscription([*most, "chat"])


@pytest.mark.parametrize("names", [["chat", ""], ["a*"], [None], ["chat", 7]])
def test_a_subscription_has_names_only(names: list[str]) -> None:
    with pytest.raises(BadChannel):
        Subscription(names)
