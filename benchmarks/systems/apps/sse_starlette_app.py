"""Served by uvicorn, in an environment of its own; see ../sse_starlette.py."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[ServerSentEvent]] = set()


async def stream(request: Request) -> Response:
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    queues.add(queue)

    async def events() -> AsyncIterator[ServerSentEvent]:
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    response: Response = EventSourceResponse(events())
    return response


async def publish(request: Request) -> Response:
    event = ServerSentEvent((await request.body()).decode())
    for queue in queues:
        queue.put_nowait(event)
    return Response(status_code=204)


app = Starlette(routes=[Route("/stream", stream), Route("/pub", publish, methods=["POST"])])
