"""A Flask app: the log's URL is in ``PENSTOCK_URL``."""

from __future__ import annotations

import os

from flask import Flask, Response, request

from penstock.flask import Penstock

app = Flask(__name__)
app.config["PENSTOCK_URL"] = os.environ["PENSTOCK_URL"]
sse = Penstock(app)


@app.get("/stream")
def stream() -> Response:
    return sse.stream("bench")


@app.post("/pub")
def publish() -> tuple[str, int]:
    sse.publish("bench", request.get_data(as_text=True))
    return "", 204


@app.get("/ping")
def ping() -> tuple[str, int]:
    return "", 204
