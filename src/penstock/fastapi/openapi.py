"""What OpenAPI tells of a stream: the same as FastAPI tells of its own (``fastapi.sse``).

That is an ``itemSchema`` (OpenAPI 3.2, "Special Considerations for Server-Sent Events"), in which the data of
an event is a string that holds JSON of a schema. FastAPI writes one for path operations that ``yield`` alone.
Here a model is made whose schema is the item's, so that FastAPI itself gives the models in it their names.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Response
from pydantic import GetJsonSchemaHandler

from penstock.fastapi.typed import MESSAGE

EVENT_STREAM = "text/event-stream"
STREAM = (
    "Events, without an end. A client that comes back says which it had last, by `Last-Event-ID` or "
    "`?last_event_id=`, and gets what it missed. Events whose type begins with `penstock.` are notices of "
    "the stream itself."
)
OVER = "The channels have ended, and the client has had their end: it need not come back."
FORBIDDEN = "The client may not read this."
FULL = "All places for streams are taken."

_PLACES = {"application/json": EVENT_STREAM, "schema": "itemSchema"}  # of FastAPI's, and of an event's

Pairs = list[tuple[str | None, Any]]  # event types, and what their data is


def document(pairs: Pairs, more: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of a path operation.

    Args:
        pairs: what it streams; nothing if that is not known.
        more: more responses.
    """
    content = _Content({EVENT_STREAM: _Content({} if pairs else {"itemSchema": _event()})})
    answer: dict[str, Any] = {"description": STREAM, "content": content}
    if pairs:
        events = [event for event, _ in pairs]
        datas = types.GenericAlias(tuple, tuple(data for _, data in pairs))
        answer["model"] = Annotated[datas, _Item(events)]
    wait = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}
    responses: dict[int | str, dict[str, Any]] = {
        200: answer,
        204: {"description": OVER},
        403: {"description": FORBIDDEN},
        503: {"description": FULL, "headers": {"Retry-After": wait}},
    }
    # A class without a media type of its own, of which FastAPI tells nothing more.
    return {
        "response_class": Response,
        "responses": responses | {status: dict(each) for status, each in more.items()},
    }


class _Item:
    """Makes the schema of an event of the schema of a tuple, which has those of all data.

    Args:
        events: the event type of each.
    """

    def __init__(self, events: Iterable[str | None]) -> None:
        self._events = list(events)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schemas: dict[str | None, list[Any]] = {}
        for event, schema in zip(self._events, handler(core_schema)["prefixItems"], strict=True):
            same = schemas.setdefault(event, [])
            if schema not in same:
                same.append(schema)
        several = len(schemas) > 1
        items = [
            _event(event or (MESSAGE if several else None), same[0] if len(same) == 1 else {"anyOf": same})
            for event, same in schemas.items()
        ]
        return {"oneOf": items} if several else items[0]


def _event(event: str | None = None, schema: Any = None) -> dict[str, Any]:
    """The schema of an event, as FastAPI has it; of an event type, if there is one."""
    data: dict[str, Any] = {"type": "string"}
    of_type: dict[str, Any] = {"type": "string"}
    item: dict[str, Any] = {
        "type": "object",
        "properties": {
            "data": data,
            "event": of_type,
            "id": {"type": "string"},
            "retry": {"type": "integer", "minimum": 0},
        },
    }
    if schema is not None:
        data.update(contentMediaType="application/json", contentSchema=schema)
        item["required"] = ["data"]
    if event is not None:
        of_type["const"] = event
        item["required"] += ["event"] if event != MESSAGE else []
    return item


class _Content(dict[str, Any]):
    """The ``content`` of a response, in which what FastAPI says of a whole body is said of each event.

    FastAPI asks it for the place of the schema of a JSON body, by ``setdefault``, and writes there. Should it
    do so by other means one day, the schema stands where that of a body does.
    """

    def setdefault(self, key: str, default: Any = None) -> Any:
        return super().setdefault(_PLACES.get(key, key), _Content(default or {}))

    def __setitem__(self, key: str, value: Any) -> None:
        if key != "title":  # FastAPI's, which it gives to all but its own streams
            super().__setitem__(key, value)
