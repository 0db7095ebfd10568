"""The chat room on Starlette: see ``app.py`` for what it is.

cd examples/chat
uvicorn starlette_app:app --http penstock.doors.uvicorn:PushProtocol --port 8000
"""

import os
import time
from pathlib import Path
from urllib.parse import parse_qsl

from presence import People  # the file beside this one: who is here
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from penstock import errors
from penstock.starlette import Penstock

STATIC = Path(__file__).parent / "static"

sse = Penstock(os.environ.get("PENSTOCK_URL", "sqlite:///chat.db"))
people = People(sse)


async def index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def events(request: Request) -> Response:
    # One stream for both channels. A new page first gets their last 500 events; a page that comes back
    # gets what it missed, however much that is.
    user = request.query_params.get("user", "").strip()[:40]
    if not user or request.method != "GET":
        return sse.stream("chat", "people", last=500)
    people.enter(user, is_new="Last-Event-ID" not in request.headers)
    return sse.stream("chat", "people", last=500, on_close=lambda: people.leave(user))


async def say(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode(errors="replace")))
    user = form.get("user", "").strip()
    text = form.get("text", "").strip()
    key = form.get("key")  # a page that had no answer sends the message again with the same key
    if not 1 <= len(user) <= 40:
        return PlainTextResponse("A name has 1 to 40 characters.", 400)
    if not 1 <= len(text) <= 2000:
        return PlainTextResponse("A message has 1 to 2000 characters.", 400)
    message = {"user": user, "text": text, "at": time.time(), "key": key}
    try:
        position = await sse.apublish("chat", message, key=key)
    except errors.InvalidEvent:
        return PlainTextResponse("A key has 1 to 200 characters, in one line.", 400)
    except (errors.LogUnavailable, errors.AppendUnsure):
        words = "The log is away for now. The message may be sent again, with the same key."
        return PlainTextResponse(words, 503)
    return JSONResponse({"id": str(position)}, 201)


app = Starlette(
    routes=[
        Route("/", index),
        Route("/events", events),
        Route("/say", say, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ],
    lifespan=sse.lifespan,
)
