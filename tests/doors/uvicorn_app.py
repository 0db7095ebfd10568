"""``tests.apps.asgi`` for uvicorn, with a websocket, a look inside the process, and odd middlewares.

The collector of cyclic garbage is off, so what is found inside is what references keep. ``?through=NAME``
puts one of ``MIDDLEWARES`` around the request.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import resource
from collections.abc import Callable
from urllib.parse import parse_qs

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tests.apps import asgi
from tests.support.wait import DEADLINE_S

# What uvicorn, its loops, its parsers and we make for a connection or a request.
OF_A_REQUEST = {
    "_asyncio.Task",
    "asyncio.selector_events._SelectorSocketTransport",
    "h11._connection.Connection",
    "httptools.parser.parser.HttpRequestParser",
    "penstock.doors.handover.Offer",
    "penstock.doors.handover.Ticket",
    "penstock.doors.uvicorn.H11PushProtocol",
    "penstock.doors.uvicorn.PushProtocol",
    "penstock.doors.uvicorn._Leaving",
    "tests.doors.uvicorn_app.Mine",
    "uvicorn.protocols.http.h11_impl.RequestResponseCycle",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
    "uvloop.loop.TCPTransport",
}

gc.disable()


class Mine:
    """What an app puts where all that it calls can find it."""


mine: contextvars.ContextVar[Mine] = contextvars.ContextVar("mine")
go_on = asyncio.Event()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})
    elif scope["type"] == "lifespan":
        await asgi.app(scope, receive, send)
    elif scope["path"] == "/release":
        await answer(send, uvicorn.__version__)
    elif scope["path"] == "/big":
        await answer(send, int(scope["query_string"]) * "x")
    elif scope["path"] == "/go-on":
        go_on.set()
        await answer(send, "those that are late may end")
    elif scope["path"] == "/inside":
        await answer(send, json.dumps(look(collect=b"collect" in scope["query_string"])))
    else:
        mine.set(Mine())
        through = parse_qs(scope["query_string"].decode()).get("through", [""])[0]
        await asgi.app(scope, receive, MIDDLEWARES[through](send) if through in MIDDLEWARES else send)
        if through == "late":
            await asyncio.wait_for(go_on.wait(), DEADLINE_S)


async def answer(send: Send, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


def look(*, collect: bool) -> dict[str, int]:
    if collect:
        gc.collect()
    found = dict.fromkeys(sorted(OF_A_REQUEST), 0) | {"scope": 0}
    for each in gc.get_objects():
        kind = f"{type(each).__module__}.{type(each).__qualname__}"
        if kind in OF_A_REQUEST:
            found[kind] += 1
        elif isinstance(each, dict) and "raw_path" in each:
            found["scope"] += 1
    if not collect:  # asyncio's own transport, which calls itself, always waits for the collector
        del found["asyncio.selector_events._SelectorSocketTransport"]
    return found


def lies(send: Send) -> Send:
    """Tells of the empty body that it sees, as a middleware that compresses or measures does."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(b"content-encoding", b"gzip"), (b"Content-Length", b"0"), (b"connection", b"keep-alive")]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


def forbids(send: Send) -> Send:
    """Makes another answer of what it sees, and leaves the headers as they are."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "status": 403}
        await send(message)

    return sending


def breaks(send: Send) -> Send:
    """Breaks once the head is out."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise RuntimeError("this middleware is broken")
        await send(message)

    return sending


def fills_up(send: Send) -> Send:
    """Leaves no descriptors for the last message."""

    async def sending(message: Message) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if message["type"] == "http.response.body":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await send(message)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return sending


MIDDLEWARES: dict[str, Callable[[Send], Send]] = {
    "lies": lies,
    "forbids": forbids,
    "breaks": breaks,
    "fills up": fills_up,
}
