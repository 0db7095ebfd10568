"""The app that these tests serve: that of ``tests.apps.fastapi_app``, and what only FastAPI has."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Header, HTTPException, Response
from pydantic import BaseModel
from starlette.routing import Route

from tests.apps.fastapi_app import Sse, app, authorize, sse

logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")


class Message(BaseModel):
    text: str


chat = sse.channel("chat", Message)


@app.get("/events-of-def", **sse.documented())
def events_of_def(sse: Sse, channel: str) -> Response:
    return sse.stream(channel)


@app.get("/declared")
async def declared(channel: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """As FastAPI's own documentation has it, but for the kind: no position of ours is an ``int``."""
    response = sse.stream(channel)
    response.headers["Declared"] = ascii(last_event_id)
    return response


# Under a prefix, and mounted

router = APIRouter()
router.routes.append(Route("/named", sse.endpoint(authorize)))


@router.get("/events", **sse.documented())
async def routed(channel: str) -> Response:
    return sse.stream(channel)


app.include_router(router, prefix="/api")
app.mount("/mounted", sse.endpoint(authorize))


# Dependencies with yield

held: list[str] = []  # what is held just now


async def session() -> AsyncIterator[str]:
    held.append("session")
    try:
        yield "session"
    finally:
        held.remove("session")


def session_of_def() -> Iterator[str]:
    held.append("session of def")
    try:
        yield "session of def"
    finally:
        held.remove("session of def")


async def forbids() -> AsyncIterator[None]:
    yield
    raise HTTPException(403, "said when all was over but the response")


Session = Annotated[str, Depends(session)]
SessionOfDef = Annotated[str, Depends(session_of_def)]


@app.get("/held")
async def what_is_held() -> str:
    return ",".join(held)


@app.get("/holding")
async def holding(one: Session, other: SessionOfDef, channel: str) -> Response:
    assert held == [one, other]
    return sse.stream(channel)


@app.get("/holding-with-tasks")
async def holding_with_tasks(one: Session, channel: str, tasks: BackgroundTasks) -> Response:
    tasks.add_task(lambda: sse.publish("told", ",".join(held)))
    return sse.stream(channel)


@app.get("/forbidden")
async def forbidden(nothing: Annotated[None, Depends(forbids)], channel: str) -> Response:
    return sse.stream(channel)


# FastAPI's own streams, which came later

try:
    from fastapi.sse import EventSourceResponse
except ImportError:
    pass
else:

    @app.get("/theirs", response_class=EventSourceResponse)
    async def theirs(one: Session, channel: str) -> AsyncIterator[dict[str, Any]]:
        async for record in sse.asubscribe(channel, after="earliest"):
            yield {"data": record.data}
