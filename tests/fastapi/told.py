"""An app whose documentation is looked at in a process of its own."""

from __future__ import annotations

from fastapi import FastAPI, Response
from pydantic import BaseModel

from penstock.fastapi import Penstock


class Message(BaseModel):
    text: str


class Left(BaseModel):
    name: str


sse = Penstock("memory:")
room = sse.channel("room/{room}", said=Message, left=Left)
app = FastAPI()


@app.get("/events", **sse.documented(room))
async def events() -> Response:
    return sse.stream(room.of(room=7))


@app.post("/say")
async def say(message: Message) -> None:
    await room.of(room=7).apublish(message)
