"""The routes of ``tests.apps.basic`` for ASGI servers, with as many middlewares around as one likes.

``MIDDLEWARES`` in the environment names them, innermost first: ``base``, ``gzip``. ``/tasks`` tells how
many tasks the server's loop has.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock import StreamInfo
from penstock.starlette import Penstock


def settings() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in os.environ.items():
        if name.startswith("PENSTOCK_") and name != "PENSTOCK_URL":
            try:
                found[name.removeprefix("PENSTOCK_").lower()] = json.loads(text)
            except json.JSONDecodeError:
                found[name.removeprefix("PENSTOCK_").lower()] = text
    return found


bus = Penstock(os.environ.get("PENSTOCK_URL", "sqlite:///penstock.db"), **settings())


@bus.predicate
def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


async def events(request: Request) -> Response:
    query = request.query_params
    tells = query.get("tells")  # the channel where it is told that the stream is over
    response = bus.stream(
        *query.getlist("channel"),
        last=int(query["last"]) if "last" in query else None,
        after=query.get("after"),
        user=query.get("user"),
        until=float(query["until"]) if "until" in query else None,
        on_close=(lambda: bus.publish(tells, "over")) if tells else None,
    )
    if "cookie" in query:
        response.set_cookie("seen", query["cookie"])
    return response


async def authorize(request: Request, channel: str) -> bool:
    return channel.startswith("open")


async def kick(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode()))
    if "channel" in form:
        return PlainTextResponse(str(await bus.akick(follows, form["channel"])))
    return PlainTextResponse(str(await bus.akick(form["user"])))


async def publish(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
    position = await bus.apublish(form["channel"], form["data"], event=form.get("event"))
    return PlainTextResponse(str(position))


async def end(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode()))
    return PlainTextResponse(str(await bus.aend(form["channel"])))


async def stats(request: Request) -> Response:
    return JSONResponse(bus.stats().to_dict())


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def pid(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def tasks(request: Request) -> Response:
    return PlainTextResponse(str(len(asyncio.all_tasks())))


async def threads(request: Request) -> Response:
    return PlainTextResponse(str(threading.active_count()))


async def drain(request: Request) -> Response:
    return PlainTextResponse(str(await asyncio.to_thread(bus.drain)))


class Base(BaseHTTPMiddleware):
    """Adds a header, and wraps ``receive`` and ``send`` on the way."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Base"] = "was here"
        return response


MIDDLEWARES = {"base": Middleware(Base), "gzip": Middleware(GZipMiddleware, minimum_size=0)}

app = Starlette(
    routes=[
        Route("/events", events),
        Route("/named", bus.endpoint(authorize)),
        Route("/denied", bus.endpoint()),
        Route("/kick", kick, methods=["POST"]),
        Route("/publish", publish, methods=["POST"]),
        Route("/end", end, methods=["POST"]),
        Route("/stats", stats),
        Route("/ping", ping),
        Route("/pid", pid),
        Route("/tasks", tasks),
        Route("/threads", threads),
        Route("/drain", drain, methods=["POST"]),
    ],
    middleware=[MIDDLEWARES[name] for name in reversed(os.environ.get("MIDDLEWARES", "").split())],
)
