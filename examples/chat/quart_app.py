"""The chat room on Quart: see ``app.py`` for what it is.

    cd examples/chat
    uvicorn quart_app:app --http penstock.doors.uvicorn:PushProtocol --port 8000

or, while you work at it, ``quart --app quart_app run --reload --port 8000``.
"""

import os
import time

from presence import People  # the file beside this one: who is here
from quart import Quart, Response, request
from quart.typing import ResponseReturnValue

from penstock import errors
from penstock.quart import Penstock

app = Quart(__name__)
app.config["PENSTOCK_URL"] = os.environ.get("PENSTOCK_URL", "sqlite:///chat.db")
sse = Penstock(app)
people = People(sse)


@app.get("/")
async def index() -> Response:
    return await app.send_static_file("index.html")


@app.get("/events")
async def events() -> Response:
    # One stream for both channels. A new page first gets their last 500 events; a page that comes back
    # gets what it missed, however much that is.
    user = request.args.get("user", "").strip()[:40]
    if not user or request.method != "GET":
        return sse.stream("chat", "people", last=500)
    people.enter(user, is_new="Last-Event-ID" not in request.headers)
    return sse.stream("chat", "people", last=500, on_close=lambda: people.leave(user))


@app.post("/say")
async def say() -> ResponseReturnValue:
    form = await request.form
    user = form.get("user", "").strip()
    text = form.get("text", "").strip()
    key = form.get("key")  # a page that had no answer sends the message again with the same key
    if not 1 <= len(user) <= 40:
        return "A name has 1 to 40 characters.", 400
    if not 1 <= len(text) <= 2000:
        return "A message has 1 to 2000 characters.", 400
    message = {"user": user, "text": text, "at": time.time(), "key": key}
    try:
        position = await sse.apublish("chat", message, key=key or None)
    except errors.InvalidEvent:  # not the error's own words: they repeat what was sent, and this is HTML
        return "A key has 1 to 200 characters, in one line.", 400
    except (errors.LogUnavailable, errors.AppendUnsure):
        return "The log is away for now. The message may be sent again, with the same key.", 503
    return {"id": str(position)}, 201
