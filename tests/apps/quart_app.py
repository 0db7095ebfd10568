"""The routes of ``tests.apps.asgi``, in Quart."""

from __future__ import annotations

import asyncio
import json
import os
import threading

from quart import Quart, Request, Response, request
from quart.typing import ResponseReturnValue

from penstock import StreamInfo
from penstock.quart import Penstock


def settings() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in os.environ.items():
        if name.startswith("PENSTOCK_"):
            try:
                found[name] = json.loads(text)
            except json.JSONDecodeError:
                found[name] = text
    return found


app = Quart(__name__)
app.config.from_mapping(settings())
sse = Penstock(app)


@app.get("/events")
async def events() -> Response:
    query = request.args
    tells = query.get("tells")  # the channel where it is told that the stream is over
    response = await sse.stream(
        *query.getlist("channel"),
        last=query.get("last", type=int),
        after=query.get("after"),
        user=query.get("user"),
        until=query.get("until", type=float),
        on_close=(lambda: sse.publish(tells, "over")) if tells else None,
    )
    if "cookie" in query:
        response.set_cookie("seen", query["cookie"])
    return response


async def authorize(request: Request, channel: str) -> bool:
    return channel.startswith("open")


app.add_url_rule("/named", "named", sse.endpoint(authorize))
app.add_url_rule("/denied", "denied", sse.endpoint())


@sse.predicate
def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


@app.post("/kick")
async def kick() -> str:
    form = await request.form
    if "channel" in form:
        return str(await sse.akick(follows, form["channel"]))
    return str(await sse.akick(form["user"]))


@app.post("/publish")
async def publish() -> str:
    form = await request.form
    position = await sse.apublish(form["channel"], form["data"], event=form.get("event"), key=form.get("key"))
    return str(position)


@app.post("/end")
async def end() -> str:
    return str(await sse.aend((await request.form)["channel"]))


@app.get("/stats")
async def stats() -> ResponseReturnValue:
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
async def drain() -> str:
    return str(await asyncio.to_thread(sse.drain))
