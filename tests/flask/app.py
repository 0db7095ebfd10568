"""The app that these tests serve: that of ``tests.apps.basic``, and what only a Flask app has."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Response, copy_current_request_context, request
from flask.json.provider import DefaultJSONProvider

from penstock import errors
from tests.apps.basic import app, sse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("werkzeug").setLevel(logging.WARNING)


class Provider(DefaultJSONProvider):
    """Writes times as ISO 8601, which neither the standard library nor Flask does by itself."""

    @staticmethod
    def default(o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else DefaultJSONProvider.default(o)


app.json = Provider(app)

if "USE_AT_IMPORT" in os.environ:  # as an app may that is loaded once, before its workers are forked
    sse.publish("imported", "hello")
    sse.subscribe("imported").close()  # the loop and the tail run from here on


@app.post("/moment")
def moment() -> str:
    return str(sse.publish(request.form["channel"], {"at": datetime(2026, 1, 2, tzinfo=UTC)}))


@app.get("/events-with-pid")
def events_with_pid() -> Response:
    response = sse.stream(request.args["channel"])
    response.headers["Worker"] = str(os.getpid())
    return response


@app.get("/events-of-a-thread")
def events_of_a_thread() -> Response:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_current_request_context(sse.stream), request.args["channel"]).result()


@app.get("/fails")
def fails() -> str:
    raise RuntimeError("the view failed")


@app.route("/fails-with-a-stream", methods=["GET", "POST"])
def fails_with_a_stream() -> str:
    sse.stream("chat")
    raise RuntimeError("the view failed, and its stream was never sent")


@app.get("/checked")
def checked() -> Response | tuple[str, int]:
    last = request.args.get("last", type=int)
    try:
        channels = request.args.getlist("channel")
        return sse.stream(*channels, last=last, after=request.args.get("after"))
    except errors.PenstockError as error:
        return f"{type(error).__name__}: {error}", 400


@app.post("/drain")
def drain() -> str:
    return str(sse.drain())


@app.get("/threads")
def threads() -> str:
    return str(threading.active_count())


@app.post("/publish-with-pid")
def publish_with_pid() -> dict[str, Any]:
    position = sse.publish(request.form["channel"], request.form["data"])
    return {"pid": os.getpid(), "position": str(position)}


@app.post("/say-or-told")
def say_or_told() -> str | tuple[str, int]:
    try:
        return str(sse.publish(request.args["channel"], "hi"))
    except errors.LogError as error:
        return f"{type(error).__name__}: {error}", 503


def stranger(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The app on a server that shows nothing of itself."""
    for name in list(environ):
        if name.startswith(("waitress.", "gunicorn.", "werkzeug.socket")):
            del environ[name]
    environ["SERVER_SOFTWARE"] = "stranger/1.0"
    return app(environ, start_response)
