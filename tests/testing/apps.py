"""Small apps, each both in WSGI and in ASGI: an answer that is written down, and what comes after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

STREAM = "text/event-stream; charset=utf-8"
HELLO = b": hello\n\n"


@dataclass
class Answers:
    """Answers to requests in their order, the last one again and again, and what the requests were.

    Attributes:
        pieces: for each request, the pieces of the body.
        status: of all of them.
        headers: likewise.
        idle: whether an answer stays open after its pieces, until its client leaves.
        asked: for each request, its method, its ``Last-Event-ID``.
        over: how many answers have been left by the app, by whatever way.
    """

    pieces: list[Iterable[bytes]]
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": STREAM})
    idle: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    over: int = 0

    def next(self, method: str, last_event_id: str) -> Iterable[bytes]:
        self.asked.append((method, last_event_id))
        return self.pieces[min(len(self.asked), len(self.pieces)) - 1]

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        pieces = self.next(
            environ["REQUEST_METHOD"], environ.get("HTTP_LAST_EVENT_ID", "").encode("latin-1").decode()
        )
        start_response(f"{self.status} Told", list(self.headers.items()))
        try:
            yield from pieces
            if self.idle:
                environ["werkzeug.socket"].recv(1)  # nothing, when the client has left
        finally:
            self.over += 1

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        sent = dict(scope["headers"])
        pieces = self.next(scope["method"], sent.get(b"last-event-id", b"").decode())
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await receive()
        left = asyncio.ensure_future(receive())
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if left.done():
                    break
            if self.idle:
                await left
            await send({"type": "http.response.body"})
        finally:
            left.cancel()
            self.over += 1


def events(*numbers: int) -> bytes:
    """Events whose id and data are these."""
    return b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in numbers)


def threads_of_clients() -> list[str]:
    """The threads that clients have started and that are not over."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("WSGIClient", "ASGIClient"))]
