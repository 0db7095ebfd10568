"""The routes of ``tests.apps.asgi``, written as FastAPI has them."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from penstock import StreamInfo
from penstock.fastapi import Penstock
from tests.apps.asgi import MIDDLEWARES, settings

sse = Penstock(os.environ.get("PENSTOCK_URL", "sqlite:///penstock.db"), **settings())
Sse = Annotated[Penstock, Depends(sse)]


async def form_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))


Form = Annotated[dict[str, str], Depends(form_of)]


async def authorize(request: Request, channel: str) -> bool:
    return channel.startswith("open")


app = FastAPI(
    lifespan=sse.lifespan,
    middleware=[MIDDLEWARES[name] for name in reversed(os.environ.get("MIDDLEWARES", "").split())],
    routes=[Route("/named", sse.endpoint(authorize)), Route("/denied", sse.endpoint())],
    default_response_class=PlainTextResponse,
)


@sse.predicate
def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


@app.head("/events", include_in_schema=False)
@app.get("/events", **sse.documented())
async def events(
    sse: Sse,
    channel: Annotated[list[str], Query()],
    last: int | None = None,
    after: str | None = None,
    user: str | None = None,
    until: float | None = None,
    tells: str | None = None,  # the channel where it is told that the stream is over
    cookie: str | None = None,
) -> Response:
    response = sse.stream(
        *channel,
        last=last,
        after=after,
        user=user,
        until=until,
        on_close=(lambda: sse.publish(tells, "over")) if tells else None,
    )
    if cookie is not None:
        response.set_cookie("seen", cookie)
    return response


@app.post("/kick")
async def kick(form: Form) -> str:
    if "channel" in form:
        return str(await sse.akick(follows, form["channel"]))
    return str(await sse.akick(form["user"]))


@app.post("/publish")
async def publish(form: Form) -> str:
    return str(await sse.apublish(form["channel"], form["data"], event=form.get("event")))


@app.post("/end")
def end(form: Form) -> str:
    return str(sse.end(form["channel"]))


@app.get("/stats", response_class=JSONResponse)
async def stats() -> dict[str, Any]:
    return sse.stats().to_dict()


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.get("/pid")
async def pid() -> str:
    return str(os.getpid())


@app.get("/tasks")
async def tasks() -> str:
    return str(len(asyncio.all_tasks()))


@app.get("/threads")
async def threads() -> str:
    return str(threading.active_count())


@app.post("/drain")
def drain() -> str:
    return str(sse.drain())
