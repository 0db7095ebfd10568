"""Clients that leave and clients that take nothing, which Django's ASGI handler does not see to alone.

It hears that a client has left since its release 5.0. Before, a stream whose client has gone would stay
open on every server that does not say so at the next ``send``, which is most of them; nobody receives after
the request has been read, so the stream does it here. And what holds up a ``send`` is out of the stream's
reach: a client that takes nothing is hung up on when the stream should be over, and where a server would
keep in memory what such a client is sent, the stream waits.

What is used of Django's inside is a name in ``ASGIHandler.handle``; where it is missing, nobody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from types import FrameType
from typing import Any

import django

from penstock.core.stream import Closing
from penstock.doors.asgi_body import Body
from penstock.doors.asgi_servers import waiting_for_room
from penstock.doors.asgi_stream import Message, Receive, Scope
from penstock.doors.hang_up import hang_up

HEARS = django.VERSION >= (5, 0)


class Client:
    """The client of a stream. To be made in the task that serves the request, when the body was opened.

    Args:
        body: the stream's.
        scope: the ASGI connection scope.
    """

    def __init__(self, body: Body, scope: Scope) -> None:
        self._body = body
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task()
        self._listening: asyncio.Task[None] | None = None
        self._hung_up = False
        self._wait = waiting_for_room(scope, _sent_already)
        if body.pull is not None:
            body.pull.cut = self._cut
        receive = None if HEARS else _receive()
        if receive is not None:
            self._listening = asyncio.create_task(self._listen(receive))

    async def wait_for_room(self, *, last: bool) -> None:
        """Wait while it takes nothing, where the server does not.

        Args:
            last: whether there is nothing more to be sent.
        """
        await self._wait({"type": "http.response.body", "more_body": not last})

    def forget(self) -> None:
        """Listen no more; from any thread."""
        task, self._listening = self._listening, None
        if task is not None:
            self._call(task.cancel)

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        pull = self._body.pull
        if pull is not None:
            pull.close(Closing.LEFT)

    def _cut(self) -> None:
        """Called from the engine's loop, and again if that did not help."""
        self._call(self._cut_here)

    def _cut_here(self) -> None:
        if not self._hung_up:
            self._hung_up = True
            if hang_up(self._scope.get("client"), self._scope.get("server")):
                return  # the server will notice it
        if HEARS and self._serving is not None:  # as it does itself with those that have left
            self._serving.cancel()

    def _call(self, call: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


async def _sent_already(message: Message) -> None:
    pass


def _receive() -> Receive | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if (
            frame.f_code.co_name == "handle"
            and frame.f_globals.get("__name__") == "django.core.handlers.asgi"
        ):
            receive: Receive | None = frame.f_locals.get("receive")
            return receive
        frame = frame.f_back
    return None
