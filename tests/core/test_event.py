"""An event is refused when it is made, or can be delivered exactly as it is."""

from __future__ import annotations

import enum
import json
import sys
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Event
from penstock.core.event import MAX_KEY_CHARS, MAX_RETRY_MS, MAX_TYPE_CHARS, to_text
from penstock.core.wire import encode_record
from penstock.errors import BadChannel, BadData, EventTooLarge, InvalidEvent
from tests.support.strategies import events, many, record_of, texts

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(texts)
@many
def test_text_is_kept_as_it_is(text: str) -> None:
    assert Event("chat", text).data == text
    assert Event("chat", text.encode()).data == text
    assert Event("chat", bytearray(text.encode())).data == text
    assert Event("chat", memoryview(text.encode())).data == text


@given(json_values.filter(lambda value: not isinstance(value, str)))
@many
def test_anything_else_is_json(value: Any) -> None:
    assert json.loads(Event("chat", value).data) == value


def test_json_has_no_needless_bytes() -> None:
    assert Event("chat", {"user": "Zoé", "n": [1, None]}).data == '{"user":"Zoé","n":[1,null]}'
    assert Event("chat", None).data == "null"
    assert Event("chat", "").data == ""


def test_an_event_made_of_an_event_is_the_same() -> None:
    event = Event("chat", {"a": 1}, "said", 5, "k")
    assert Event(event.channel, event.data, event.event, event.retry, event.key) == event


class Room(str, enum.Enum):  # noqa: UP042  # the older way, whose members format as their names
    LOBBY = "lobby"


def test_members_of_an_enum_of_texts_are_their_texts() -> None:
    event = Event(Room.LOBBY, Room.LOBBY, event=Room.LOBBY, key=Room.LOBBY)
    assert {type(v) for v in (event.channel, event.data, event.event, event.key)} == {str}
    assert encode_record(record_of(event)).endswith(b"event: lobby\ndata: lobby\n\n")


@pytest.mark.parametrize("name", ["*", "room/*", "**", "", "a b", "a\nb", 5, None])
def test_a_bad_channel_is_refused(name: str) -> None:
    with pytest.raises(BadChannel):
        Event(name, "hi")


FORGERIES = ["a\nb", "a\rb", "a\r\nid: e:9", "\n", "a\0", "\0"]


@pytest.mark.parametrize("text", FORGERIES)
def test_a_line_end_or_nul_in_type_or_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidEvent, match=r"event .* CR, LF or NUL"):
        Event("chat", "hi", event=text)
    with pytest.raises(InvalidEvent, match=r"key .* CR, LF or NUL"):
        Event("chat", "hi", key=text)


@pytest.mark.parametrize("value", ["", 5, b"a", True, ["a"]])
def test_type_and_key_are_texts_of_some_length(value: Any) -> None:
    with pytest.raises(InvalidEvent, match="event"):
        Event("chat", "hi", event=value)
    with pytest.raises(InvalidEvent, match="key"):
        Event("chat", "hi", key=value)


def test_type_and_key_have_a_longest_length() -> None:
    Event("chat", "hi", event="e" * MAX_TYPE_CHARS, key="k" * MAX_KEY_CHARS)
    with pytest.raises(InvalidEvent, match="1 to 200 characters, not 201"):
        Event("chat", "hi", event="e" * (MAX_TYPE_CHARS + 1))
    with pytest.raises(InvalidEvent, match="1 to 200 characters, not 201"):
        Event("chat", "hi", key="k" * (MAX_KEY_CHARS + 1))


@pytest.mark.parametrize("name", ["penstock.end", "penstock.position", "penstock.", "penstock.x"])
def test_our_own_types_are_not_to_be_published(name: str) -> None:
    with pytest.raises(InvalidEvent, match="ours"):
        Event("chat", "hi", event=name)


@pytest.mark.parametrize("name", ["penstock", "Penstock.end", "message", "error", "é\u2028 x:"])
def test_any_other_type_is_free(name: str) -> None:
    assert Event("chat", "hi", event=name).event == name


@pytest.mark.parametrize("retry", [-1, MAX_RETRY_MS + 1, True, False, 1.0, "5", float("nan")])
def test_retry_is_a_whole_number_of_milliseconds(retry: Any) -> None:
    with pytest.raises(InvalidEvent, match="retry is a whole number"):
        Event("chat", "hi", retry=retry)


@pytest.mark.parametrize("retry", [0, 1, MAX_RETRY_MS])
def test_retry_may_be_anything_up_to_a_day(retry: int) -> None:
    assert Event("chat", "hi", retry=retry).retry == retry


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "ok \ud83d", ["\ud800"], {"\udead": 1}])
def test_a_lone_surrogate_is_refused_where_it_stands(text: Any) -> None:
    with pytest.raises(BadData, match="data has a lone surrogate at character"):
        Event("chat", text)


def test_a_lone_surrogate_in_type_or_key_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="event has a lone surrogate at character 1"):
        Event("chat", "hi", event="a\ud800")
    with pytest.raises(InvalidEvent, match="key has a lone surrogate at character 0"):
        Event("chat", "hi", key="\ud800")


@pytest.mark.parametrize(("data", "at"), [(b"\xff", 0), (b"ab\xc3", 2), (bytearray(b"a\x80"), 1)])
def test_bytes_that_are_not_utf_8_are_refused_where_it_ends(data: bytes, at: int) -> None:
    with pytest.raises(BadData, match=rf"not UTF-8 \(at byte {at}\).*base64"):
        Event("chat", data)


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (Odd(), "data, Odd <odd>, cannot"),
        ({"user": {"joined": date(2024, 2, 29)}}, "data['user']['joined'], date datetime.date("),
        ([1, {"a": (2, Odd())}], "data[1]['a'][1], Odd <odd>, cannot"),
        ({"a": {1, 2}}, "data['a'], set {1, 2}, cannot"),
        ({"a": b"x"}, "data['a'], bytes b'x', cannot"),
        ({"a": float("nan")}, "data['a'], float nan, cannot"),
        ([0.0, float("-inf")], "data[1], float -inf, cannot"),
        ({"a": {(1, 2): 3}}, "data['a']: the key (1, 2) cannot be stored as JSON: a key is text"),
        ({"a": {b"k": 3}}, "data['a']: the key b'k' cannot"),
        ({"a": Broken()}, "data['a'], Broken <Broken instance at"),
        ({"a": "x" * 9_999, "b": Odd()}, "data['b'], Odd <odd>, cannot"),
        ({"k" * 999: Odd()}, "data['kkkkk"),
    ],
)
def test_data_that_is_no_json_is_refused_and_told_where(data: Any, where: str) -> None:
    with pytest.raises(BadData) as caught:
        Event("chat", data)
    message = str(caught.value)
    assert message.startswith(where)
    assert len(message) < 300
    assert caught.value.__cause__ is not None


def test_a_circle_is_refused_where_it_closes() -> None:
    node: dict[str, Any] = {"name": "root", "children": [{"name": "leaf"}]}
    node["children"].append({"parent": node})
    with pytest.raises(BadData, match=r"^data\['children'\]\[1\]\['parent'\], dict .*circular"):
        Event("chat", node)


def test_nesting_without_end_is_refused_like_all_else() -> None:
    nested: list[Any] = []
    for _ in range(100 * sys.getrecursionlimit()):
        nested = [nested]
    with pytest.raises(BadData) as caught:
        Event("chat", nested)
    assert len(str(caught.value)) < 600
    while nested:  # without recursion, which to drop it whole would need
        nested = nested.pop()


def test_the_encoder_may_be_the_apps_own() -> None:
    def dumps(value: Any) -> str:
        return json.dumps(value, default=str)

    assert to_text({"on": date(2024, 2, 29)}, dumps) == '{"on": "2024-02-29"}'
    assert to_text("2024", dumps) == "2024"
    with pytest.raises(BadData, match=r"data\['on'\]"):
        to_text({"on": date(2024, 2, 29)})


def test_the_end_of_a_channel_is_an_event_with_nothing_in_it() -> None:
    assert Event("job/7", "", end=True).end
    with pytest.raises(InvalidEvent, match="no data and no type"):
        Event("job/7", "bye", end=True)
    with pytest.raises(InvalidEvent, match="no data and no type"):
        Event("job/7", "", "done", end=True)


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event("chat", "hi").data = "forged\n"  # type: ignore[misc]


@given(events, st.integers(1, 200))
@many
def test_the_size_that_counts_is_that_of_the_utf_8(event: Event, limit: int) -> None:
    size = sum(len(text.encode()) for text in (event.channel, event.data, event.event or ""))
    assert event.size == size
    if size > limit:
        with pytest.raises(EventTooLarge, match=f"has {size} bytes, over the limit of {limit}"):
            event.check_size(limit)
    else:
        event.check_size(limit)


@pytest.mark.parametrize("text", ["x" * 262_140, "é" * 131_070, "\U0001f600" * 65_535])
def test_the_default_limit_is_met_to_the_byte(text: str) -> None:
    Event("chat", text).check_size(256 * 1024)
    with pytest.raises(EventTooLarge):
        Event("chat", text + "x").check_size(256 * 1024)
