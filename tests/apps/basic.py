"""Every feature of a stream, each behind one plain route.

Settings come from the environment, as ``PENSTOCK_URL`` and ``PENSTOCK_KEEP_ALIVE=0.2``: JSON
where they are JSON, else text.
"""

from __future__ import annotations

import json
import os

from flask import Flask, Request, Response, request
from flask.typing import ResponseReturnValue

from penstock import StreamInfo
from penstock.flask import Penstock


def settings() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in os.environ.items():
        if name.startswith("PENSTOCK_"):
            try:
                found[name] = json.loads(text)
            except json.JSONDecodeError:
                found[name] = text
    return found


app = Flask(__name__)
app.config.from_mapping(settings())
sse = Penstock(app)


@app.get("/events")
def events() -> Response:
    query = request.args
    tells = query.get("tells")  # the channel where it is told that the stream is over
    response = sse.stream(
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


def authorize(request: Request, channel: str) -> bool:
    return channel.startswith("open")


app.add_url_rule("/named", "named", sse.endpoint(authorize))
app.add_url_rule("/denied", "denied", sse.endpoint())


@sse.predicate
def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


@app.post("/kick")
def kick() -> str:
    if "channel" in request.form:
        return str(sse.kick(follows, request.form["channel"]))
    return str(sse.kick(request.form["user"]))


@app.post("/publish")
def publish() -> str:
    form = request.form
    position = sse.publish(form["channel"], form["data"], event=form.get("event"), key=form.get("key"))
    return str(position)


@app.post("/end")
def end() -> str:
    return str(sse.end(request.form["channel"]))


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return sse.stats().to_dict()


@app.get("/ping")
def ping() -> str:
    return "pong"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())
