"""Channels whose events have models: what is checked, how it is written, and what is refused. In process."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from penstock import Record
from penstock.errors import BadChannel, BadData, ConfigError, InvalidEvent
from penstock.fastapi import Penstock

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = UUID(int=7)


class Message(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    user_name: str = Field(alias="userName")
    at: datetime = AT
    id: UUID = ID


class Unknown:
    """Nothing that Pydantic knows."""


class Joined(BaseModel):
    name: str


class JoinedAgain(Joined):
    times: int = 2


class Left(BaseModel):
    name: str


WRITTEN = '{"userName":"Ada","at":"2026-01-02T03:04:05Z","id":"00000000-0000-0000-0000-000000000007"}'


@pytest.fixture
def sse() -> Iterator[Penstock]:
    with Penstock("memory:") as sse:
        yield sse


def all_of(sse: Penstock) -> list[Record]:
    last, found = sse.publish("mark", ""), []
    for record in sse.subscribe("**", after="earliest"):
        if record.position == last:
            break
        found.append(record)
    return [record for record in found if record.channel != "mark"]


def the_only(sse: Penstock) -> Record:
    (record,) = all_of(sse)
    return record


@pytest.mark.parametrize(
    "data",
    [
        Message(userName="Ada"),
        {"userName": "Ada", "at": "2026-01-02T03:04:05Z", "id": str(ID)},
        {"user_name": "Ada"},
    ],
)
def test_a_model_or_what_becomes_one_is_written_with_aliases_times_and_uuids(
    sse: Penstock, data: Any
) -> None:
    position = sse.channel("chat", Message).publish(data)
    record = the_only(sse)
    assert (record.channel, record.data, record.event) == ("chat", WRITTEN, None)
    assert record.position == position


def test_coroutines_publish_too(sse: Penstock) -> None:
    chat = sse.channel("chat", Message)

    async def act() -> None:
        await chat.apublish(Message(userName="Ada"), key="1")
        await chat.apublish(Message(userName="Ada"), key="1")
        with pytest.raises(InvalidEvent, match="userName: Field required"):
            await chat.apublish({})
        await sse.apublish("chat", Message(userName="Ada"))
        await chat.aend()

    asyncio.run(act())
    assert [(record.data, record.end) for record in all_of(sse)] == [
        (WRITTEN, False),
        (WRITTEN, False),
        ("", True),
    ]


def test_the_event_type_is_that_of_the_model(sse: Penstock) -> None:
    room = sse.channel("room", Message, joined=Joined, left=Left)
    room.publish(Message(userName="Ada"))
    room.publish(Joined(name="Ada"))
    room.publish(JoinedAgain(name="Ada"))
    room.publish({"name": "Ada"}, event="left")
    room.publish(Message(userName="Ada"), event="message")
    ada = '{"name":"Ada"}'
    assert [(record.event, record.data) for record in all_of(sse)] == [
        (None, WRITTEN),
        ("joined", ada),
        ("joined", ada),  # what is documented, and no more
        ("left", ada),
        (None, WRITTEN),
    ]


def test_several_models_may_have_one_event_type(sse: Penstock) -> None:
    channel = sse.channel("names", name=Joined | Left)
    channel.publish(Left(name="Ada"))
    channel.publish({"name": "Eve"})
    assert [(r.event, r.data) for r in all_of(sse)] == [
        ("name", '{"name":"Ada"}'),
        ("name", '{"name":"Eve"}'),
    ]


def test_what_is_no_model_has_a_type_too(sse: Penstock) -> None:
    sse.channel("numbers", list[int]).publish([1, "2"])  # type: ignore[list-item]  # as Pydantic reads it
    sse.channel("words", str).publish("a\nb")
    mixed = sse.channel("mixed", {"numbers": list[int], "left": Left})
    mixed.publish(Left(name="Ada"))
    mixed.publish([3], event="numbers")
    assert [record.data for record in all_of(sse)] == ["[1,2]", '"a\\nb"', '{"name":"Ada"}', "[3]"]


@pytest.mark.parametrize(
    ("data", "event", "told"),
    [
        ({"name": 7}, "joined", r"no event of <Channel room>: name: Input should be a valid string; it was"),
        ({}, "joined", "name: Field required"),
        (7, "joined", "data: Input should be a valid dictionary"),
        ({"name": "Ada"}, None, r"has events 'joined', 'left': say which, event=…; .* from dict"),
        (Message(userName="Ada"), None, "does not follow from Message"),
        ({"name": "Ada"}, "came", "has no events 'came'; it has 'joined', 'left'"),
        ({"name": "Ada"}, "message", "has no events 'message'"),
        ({"name": "\ud800"}, "joined", "not allowed"),
    ],
)
def test_what_is_no_event_of_the_channel_is_refused_and_not_stored(
    sse: Penstock, data: Any, event: str | None, told: str
) -> None:
    room = sse.channel("room", joined=Joined, left=Left)
    with pytest.raises(InvalidEvent, match=told):
        room.publish(data, event=event)
    assert all_of(sse) == []


def test_only_the_first_faults_are_told_and_no_data_is(sse: Penstock) -> None:
    many = sse.channel("many", list[int])
    with pytest.raises(InvalidEvent) as refused:
        many.publish([f"secret {n}" for n in range(10)])  # type: ignore[misc]
    assert "2: Input should be" in str(refused.value)
    assert "and 7 more" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is not None


def test_a_model_that_was_spoilt_after_its_check_is_refused(sse: Penstock) -> None:
    joined = Joined(name="Ada")
    joined.name = 7  # type: ignore[assignment]
    with pytest.raises(InvalidEvent, match="Expected `str`"):
        sse.channel("room", Joined).publish(joined)
    assert all_of(sse) == []


def test_checked_events_are_stored_together_or_not_at_all(sse: Penstock) -> None:
    chat, room = sse.channel("chat", Message), sse.channel("room/{room}", joined=Joined)
    with pytest.raises(InvalidEvent):
        sse.publish_many([chat.event(Message(userName="Ada")), room.of(room=7).event({})])
    sse.publish_many([chat.event(Message(userName="Ada")), room.of(room=7).event({"name": "Ada"}, key="k")])
    one, two = all_of(sse)
    assert (one.channel, one.data) == ("chat", WRITTEN)
    assert (two.channel, two.event, two.key) == ("room/7", "joined", "k")


# Names with places


def test_a_name_with_places_stands_for_many_channels(sse: Penstock) -> None:
    rooms = sse.channel("shop/{shop}/room-{room}", Joined)
    rooms.of(shop=ID, room=7).publish(Joined(name="Ada"))
    assert the_only(sse).channel == f"shop/{ID}/room-7"
    assert rooms.of(shop=1, room=2).name == "shop/1/room-2"
    rooms.of(shop=1, room=2).end()
    assert all_of(sse)[-1].end


@pytest.mark.parametrize("value", ["", "7/8", "*", "**", "a b", "a\n", "{room}/8"])
def test_a_place_takes_one_segment_and_no_wildcard(sse: Penstock, value: str) -> None:
    with pytest.raises(BadChannel):
        sse.channel("room/{room}", Joined).of(room=value)


def test_places_have_to_be_filled_and_no_others(sse: Penstock) -> None:
    rooms = sse.channel("room/{room}", Joined)
    with pytest.raises(BadChannel, match=r"'room/{room}' stands for many .* say which, \.of\(room=…\)"):
        rooms.publish(Joined(name="Ada"))
    with pytest.raises(BadChannel, match="say which"):
        sse.stream(rooms)
    for values in ({}, {"romo": 7}, {"room": 7, "shop": 1}):
        with pytest.raises(ConfigError, match=r"has the places \['room'\], not"):
            rooms.of(**values)
    assert all_of(sse) == []


@pytest.mark.parametrize("name", ["", "a b", "room/*", "room/{}", "room/{a-b}", "room/{a", "penstock.x", 7])
def test_a_name_that_is_none_is_refused_when_the_channel_is_made(sse: Penstock, name: Any) -> None:
    with pytest.raises(BadChannel):
        sse.channel(name, Joined)


@pytest.mark.parametrize(
    ("types", "error"),
    [
        (Unknown, ConfigError),
        ({}, ConfigError),
        ({"joined": Unknown}, ConfigError),
        ({"penstock.mine": Joined}, InvalidEvent),
        ({"a\nb": Joined}, InvalidEvent),
    ],
)
def test_types_that_cannot_be_are_refused_when_the_channel_is_made(
    sse: Penstock, types: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        sse.channel("chat", types)


# Without types


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    when: datetime


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ("as it is", "as it is"),
        (b"as it is", "as it is"),
        (Message(userName="Ada"), WRITTEN),
        ([Message(userName="Ada")], f"[{WRITTEN}]"),
        ({"messages": {"first": Message(userName="Ada")}}, f'{{"messages":{{"first":{WRITTEN}}}}}'),
        ({"at": AT, "id": ID, "price": Decimal("1.10")}, None),
        ([Colour.RED, Point(1, AT), Path("a/b"), {7}], None),
        ({"é": "ü"}, '{"é":"ü"}'),
        (None, "null"),
    ],
)
def test_whatever_pydantic_can_write_may_be_published(sse: Penstock, data: Any, written: str | None) -> None:
    sse.publish("chat", data)
    found = the_only(sse).data
    if written is not None:
        assert found == written
    elif isinstance(data, dict):
        assert json.loads(found) == {"at": "2026-01-02T03:04:05Z", "id": str(ID), "price": "1.10"}
    else:
        assert json.loads(found) == ["red", {"x": 1, "when": "2026-01-02T03:04:05Z"}, "a/b", [7]]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"thing": [object()]}, r"data\['thing'\]\[0\], object"),
        ([math.nan], r"data\[0\], float nan,"),
        ({ID: 1}, "a key is text, not UUID"),
    ],
)
def test_what_nobody_can_write_is_bad_data(sse: Penstock, data: Any, told: str) -> None:
    with pytest.raises(BadData, match=told):
        sse.publish("chat", data)
    assert all_of(sse) == []
