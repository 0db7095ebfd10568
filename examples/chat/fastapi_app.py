"""The chat room on FastAPI, its messages typed: see ``app.py`` for what it is.

    cd examples/chat
    uvicorn fastapi_app:app --http penstock.doors.uvicorn:PushProtocol --port 8000

``/docs`` shows the three routes, and what the events of the stream are.
"""

import os
import time
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from presence import People  # the file beside this one: who is here
from pydantic import BaseModel, StringConstraints

from penstock import errors
from penstock.fastapi import Penstock

STATIC = Path(__file__).parent / "static"

sse = Penstock(os.environ.get("PENSTOCK_URL", "sqlite:///chat.db"))
people = People(sse)
app = FastAPI(title="A chat room", lifespan=sse.lifespan)
app.mount("/static", StaticFiles(directory=STATIC))


class Message(BaseModel):
    user: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    at: float
    key: str | None


class Roll(BaseModel):
    process: str
    names: list[str]
    call: bool
    at: float


chat = sse.channel("chat", Message)
rolls = sse.channel("people", presence=Roll)  # presence.py publishes them


@app.get("/")
async def index() -> FileResponse:
    return FileResponse(STATIC / "index.html")


@app.get("/events", **sse.documented(chat, rolls))
async def events(request: Request, user: str = "") -> Response:
    # One stream for both channels. A new page first gets their last 500 events; a page that comes back
    # gets what it missed, however much that is.
    user = user.strip()[:40]
    if not user:
        return sse.stream(chat, rolls, last=500)
    people.enter(user, is_new="Last-Event-ID" not in request.headers)
    return sse.stream(chat, rolls, last=500, on_close=lambda: people.leave(user))


@app.post("/say", status_code=201)
async def say(
    user: Annotated[str, Form()] = "", text: Annotated[str, Form()] = "", key: Annotated[str, Form()] = ""
) -> dict[str, str]:
    message = {"user": user, "text": text, "at": time.time(), "key": key or None}
    # A page that had no answer sends the message again with the same key: it is stored once.
    return {"id": str(await chat.apublish(message, key=key or None))}


@app.exception_handler(errors.InvalidEvent)
async def refused(request: Request, error: errors.InvalidEvent) -> Response:
    words = "A name has 1 to 40 characters, a message 1 to 2000, a key 1 to 200 in one line."
    return PlainTextResponse(words, 400)


@app.exception_handler(errors.LogUnavailable)
@app.exception_handler(errors.AppendUnsure)
async def away(request: Request, error: errors.LogError) -> Response:
    return PlainTextResponse(
        "The log is away for now. The message may be sent again, with the same key.", 503
    )
