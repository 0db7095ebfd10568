"""What OpenAPI tells of a stream: what FastAPI tells of its own. In process; the oldest FastAPI apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

from penstock.fastapi import Channel, Penstock
from tests.support.oldest import need_oldest, with_oldest
from tests.support.processes import environment

sse = Penstock("memory:")


class Author(BaseModel):
    name: str = Field(alias="fullName")


class Message(BaseModel):
    text: str
    by: Author | None = None


class Left(BaseModel):
    name: str


chat = sse.channel("chat", Message)
room = sse.channel("room/{room}", said=Message, left=Left)


async def ours() -> Response:
    return sse.stream("chat")


async def theirs() -> AsyncIterator[Message]:
    yield Message(text="hi")


async def theirs_of_anything():  # type: ignore[no-untyped-def]  # it says nothing of what it gives
    yield 1


def of_ours(*channels: Channel[Any], **app: Any) -> dict[str, Any]:
    made = FastAPI(**app)
    made.get("/events", **sse.documented(*channels))(ours)
    return made.openapi()


def of_theirs(function: Any, **app: Any) -> dict[str, Any]:
    made = FastAPI(**app)
    made.get("/events", response_class=EventSourceResponse)(function)
    return made.openapi()


def answers(schema: dict[str, Any], path: str = "/events") -> Any:
    return schema["paths"][path]["get"]["responses"]


def item(schema: dict[str, Any], path: str = "/events") -> Any:
    (content,) = answers(schema, path)["200"]["content"].items()
    name, (told,) = content[0], content[1].items()
    assert (name, told[0]) == ("text/event-stream", "itemSchema")
    return told[1]


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize("separate", [True, False])
def test_a_stream_of_a_model_is_told_as_fastapi_tells_its_own(separate: bool) -> None:
    told = of_ours(chat, separate_input_output_schemas=separate)
    expected = of_theirs(theirs, separate_input_output_schemas=separate)
    assert answers(told)["200"]["content"] == answers(expected)["200"]["content"]
    assert told["components"] == expected["components"]
    assert {"Author", "Message"} == told["components"]["schemas"].keys()


def test_a_stream_of_anything_is_told_as_fastapi_tells_its_own() -> None:
    assert answers(of_ours())["200"]["content"] == answers(of_theirs(theirs_of_anything))["200"]["content"]


def test_each_event_type_has_its_schema() -> None:
    said, left, message = item(of_ours(room, chat))["oneOf"]
    for told, event, model, required in (
        (said, "said", "Message", ["data", "event"]),
        (left, "left", "Left", ["data", "event"]),
        (message, "message", "Message", ["data"]),  # on the wire, no type is the same
    ):
        assert told["properties"]["event"] == {"type": "string", "const": event}
        assert told["properties"]["data"]["contentSchema"] == ref(model)
        assert told["properties"]["data"]["contentMediaType"] == "application/json"
        assert told["required"] == required


def test_one_event_type_may_have_several_schemas() -> None:
    one, two = sse.channel("one", left=Left), sse.channel("two", left=Left | Message)
    told = item(of_ours(one, two, one))
    assert told["properties"]["event"] == {"type": "string", "const": "left"}
    assert told["properties"]["data"]["contentSchema"] == {
        "anyOf": [ref("Left"), {"anyOf": [ref("Left"), ref("Message")]}]
    }


def test_models_of_one_name_are_told_apart_by_fastapi() -> None:
    class Message(BaseModel):
        other: int

    app = FastAPI()
    app.get("/events", **sse.documented(chat))(ours)
    app.get("/others", **sse.documented(sse.channel("other", Message)))(ours)
    told = app.openapi()
    names = [
        item(told, path)["properties"]["data"]["contentSchema"]["$ref"].rpartition("/")[2]
        for path in ("/events", "/others")
    ]
    schemas = told["components"]["schemas"]
    assert ["text" in schemas[name]["properties"] for name in names] == [True, False]
    assert ["other" in schemas[name]["properties"] for name in names] == [False, True]


def test_the_other_answers_are_told_and_may_be_others() -> None:
    told = answers(of_ours(chat))
    assert sorted(told) == ["200", "204", "403", "503"]
    assert all(each["description"] for each in told.values())
    assert "Last-Event-ID" in told["200"]["description"]
    assert told["503"]["headers"]["Retry-After"]["schema"] == {"type": "integer"}
    app = FastAPI()
    more = {404: {"description": "No such room."}, 403: {"description": "Not you."}}
    app.get("/events", **sse.documented(chat, responses=more))(ours)
    told = answers(app.openapi())
    assert sorted(told) == ["200", "204", "403", "404", "503"]
    assert told["403"]["description"] == "Not you."
    assert item(app.openapi()) == item(of_ours(chat))


def test_a_router_tells_the_same_under_its_prefix() -> None:
    router = APIRouter(prefix="/api", responses={418: {"description": "A teapot."}})
    router.get("/events", **sse.documented(chat))(ours)
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    assert item(app.openapi(), "/v1/api/events") == item(of_ours(chat))
    assert "418" in answers(app.openapi(), "/v1/api/events")


TELL = "import json; from tests.fastapi.told import app; print(json.dumps(app.openapi()))"


@need_oldest("fastapi", "starlette")
def test_the_oldest_fastapi_tells_the_same() -> None:
    told = []
    for env in ({}, with_oldest("fastapi", "starlette")):
        done = subprocess.run(
            [sys.executable, "-c", TELL], env=environment(env), capture_output=True, text=True, check=True
        )
        told.append(json.loads(done.stdout))
    new, old = told
    assert answers(old) == answers(new)
    for name in ("Message", "Left"):
        assert old["components"]["schemas"][name] == new["components"]["schemas"][name]
