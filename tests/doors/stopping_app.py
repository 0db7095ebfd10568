"""An app whose first stream comes when its server has just been told to stop."""

from __future__ import annotations

import os
import signal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penstock.starlette import Penstock

sse = Penstock()


async def events(request: Request) -> Response:
    os.kill(os.getpid(), signal.SIGTERM)
    return sse.stream("chat")


app = Starlette(routes=[Route("/events", events)])
