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
from starlette.types import Receive, Scope, Send

from penstock import Penstock
from penstock.core.channel import Subscription
from penstock.doors.asgi import Door
from penstock.engine.origin import check_wish


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
door = Door(lambda: bus.engine)


class Stream(Response):
    """A response that the door answers."""

    def __init__(self, request: Request) -> None:
        query = request.query_params
        self._subscription = Subscription(query.getlist("channel"))
        self._wish = check_wish(query.get("after"), int(query["last"]) if "last" in query else None)
        self._last_event_id = request.headers.get("last-event-id") or query.get("last_event_id")
        self._tells = query.get("tells")  # the channel where it is told that the stream is over
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tells = self._tells
        on_close = (lambda: bus.publish(tells, "over")) if tells else None
        await door.answer(scope, receive, send, self._subscription, self._wish, self._last_event_id, on_close)


async def events(request: Request) -> Response:
    return Stream(request)


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
