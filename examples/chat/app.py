"""A chat room: three routes, one log in a file, no server beside the app.

``publish`` returns when the message rests in the log. ``stream`` answers with what a page missed, then
with what comes. The browser's own ``EventSource`` does the rest: it comes back by itself and says where
it was, so the room may be killed and started again and every page still shows every message once.

    flask --app examples/chat/app run --port 8000
"""

import os
import time

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from presence import People  # the file beside this one: who is here

from penstock import errors
from penstock.flask import Penstock

app = Flask(__name__)
app.config["PENSTOCK_URL"] = os.environ.get("PENSTOCK_URL", "sqlite:///chat.db")
sse = Penstock(app)
people = People(sse)


@app.get("/")
def index() -> Response:
    return app.send_static_file("index.html")


@app.get("/events")
def events() -> Response:
    # One stream for both channels. A new page first gets their last 500 events; a page that comes back
    # gets what it missed, however much that is.
    user = request.args.get("user", "").strip()[:40]
    if not user or request.method != "GET":
        return sse.stream("chat", "people", last=500)
    people.enter(user, is_new="Last-Event-ID" not in request.headers)
    return sse.stream("chat", "people", last=500, on_close=lambda: people.leave(user))


@app.post("/say")
def say() -> ResponseReturnValue:
    user = request.form.get("user", "").strip()
    text = request.form.get("text", "").strip()
    key = request.form.get("key")  # a page that had no answer sends the message again with the same key
    if not 1 <= len(user) <= 40:
        return "A name has 1 to 40 characters.", 400
    if not 1 <= len(text) <= 2000:
        return "A message has 1 to 2000 characters.", 400
    message = {"user": user, "text": text, "at": time.time(), "key": key}
    try:
        position = sse.publish("chat", message, key=key or None)
    except errors.InvalidEvent:  # not the error's own words: they repeat what was sent, and this is HTML
        return "A key has 1 to 200 characters, in one line.", 400
    except (errors.LogUnavailable, errors.AppendUnsure):
        return "The log is away for now. The message may be sent again, with the same key.", 503
    return {"id": str(position)}, 201
