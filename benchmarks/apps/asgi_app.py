"""An app without a framework: the door for ASGI, and nothing that is not Penstock's.

The log's URL is in ``PENSTOCK_URL``.
"""

from __future__ import annotations

import os

from penstock import Penstock
from penstock.core.channel import Subscription
from penstock.doors.asgi import Door
from penstock.doors.asgi_stream import Receive, Scope, Send
from penstock.doors.ask import Ask

bus = Penstock(os.environ["PENSTOCK_URL"])
door = Door(lambda: bus.engine)
bench = Subscription(["bench"])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif (scope["method"], scope["path"]) == ("GET", "/stream"):
        await door.answer(scope, receive, send, Ask(bench))
    elif (scope["method"], scope["path"]) == ("POST", "/pub"):
        await bus.apublish("bench", (await body(receive)).decode())
        await answer(send, 204)
    elif scope["path"] == "/ping":
        await answer(send, 204)
    else:
        await answer(send, 404)


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    bus.close()
    await send({"type": "lifespan.shutdown.complete"})


async def body(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
