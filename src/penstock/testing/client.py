"""What the clients of WSGI and ASGI apps have in common: how a stream is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from penstock.testing.conversation import Conversation
from penstock.testing.exchange import Call, Exchange
from penstock.testing.faults import note_on
from penstock.testing.received import Reader
from penstock.testing.request import Query, Request
from penstock.testing.streams import AsyncEventStream, EventStream

S = TypeVar("S")

TIMEOUT_S = 10.0  # what has not happened by then on a busy machine does not happen


class Client(Generic[S]):
    """A client of one app.

    Args:
        call: lets the app begin to answer.
        make: makes a stream of a conversation.
        timeout_s: how long each wait takes at the most, where nothing else is said.
    """

    def __init__(
        self, call: Callable[[Exchange], Call], make: Callable[[Conversation], S], timeout_s: float
    ) -> None:
        self._call_app = call
        self._make = make
        self._timeout_s = timeout_s
        self._streams: list[S] = []

    def stream(
        self,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
        last_event_id: str = "",
        extra: Mapping[str, Any] | None = None,
        raw: bool = False,
        wait_open: bool = True,
    ) -> S:
        """Ask for a stream: it is open when its first bytes have come. Other answers come whole.

        Args:
            path: such as ``/events`` or ``/events?channel=chat``.
            query: names and values, each one or several, that are added to the path.
            headers: a ``Host`` and what an EventSource sends are there already, and may be replaced.
            cookies: names and values, such as the session cookie of somebody who has logged in.
            method: GET, HEAD, …
            body: what a POST sends; its ``Content-Type`` is one of the headers.
            last_event_id: begins as a client that comes back.
            extra: what is laid over the WSGI environ or the ASGI scope.
            raw: gives Penstock's position events too.
            wait_open: whether to wait for the first bytes, or only for the status and the headers.

        Raises:
            StreamTimeout: if nothing comes in time.
        """
        request = Request.of(
            path, query=query, headers=headers, cookies=cookies, method=method, body=body,
            last_event_id=last_event_id, extra=extra,
        )  # fmt: skip
        reader = Reader(request.last_event_id, raw)
        talk = Conversation(request, reader, self._call_app, wait_open=wait_open, timeout_s=self._timeout_s)
        stream = self._make(talk)
        self._streams.append(stream)
        return stream


def drop_all(streams: list[EventStream]) -> None:
    """Drop what is still open, all of it; the first error is raised then, with the others on it."""
    failed: Exception | None = None
    while streams:
        try:
            streams.pop().drop()
        except Exception as error:
            if not note_on(failed, error):
                failed = error
    if failed is not None:
        raise failed


async def adrop_all(streams: list[AsyncEventStream]) -> None:
    """As ``drop_all``, for coroutines."""
    failed: Exception | None = None
    while streams:
        try:
            await streams.pop().drop()
        except Exception as error:
            if not note_on(failed, error):
                failed = error
    if failed is not None:
        raise failed
