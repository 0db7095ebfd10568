"""Served by gunicorn, in an environment of its own; see ../flask_sse.py."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import os

from flask import Flask, request
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")


@app.post("/pub")
def publish() -> tuple[str, int]:
    sse.publish(request.get_data(as_text=True), type="message")
    return "", 204
