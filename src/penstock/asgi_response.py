"""How what a view says of its response and what the door answers become one, over ASGI.

A view has set headers and cookies before the door has looked at the request; they go out with whatever
it answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.doors.asgi import Door
from penstock.doors.asgi_stream import Message, Receive, Scope, Send
from penstock.doors.ask import Ask

RawHeaders = list[tuple[bytes, bytes]]

# Of the body, which is the door's.
_OF_THE_BODY = (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding")


async def answer(
    door: Door,
    scope: Scope,
    receive: Receive,
    send: Send,
    ask: Ask,
    headers: Sequence[tuple[bytes, bytes]],
) -> None:
    """Let the door answer.

    Args:
        door: the door.
        scope: the ASGI connection scope.
        receive: see the ASGI specification.
        send: see the ASGI specification.
        ask: what is asked for.
        headers: those of the view, with names in small letters. Where the door has one of the same name,
            it is the door's that goes out.
    """

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = _merged(message["headers"], headers)
        await send(message)

    await door.answer(scope, receive, with_headers, ask)


def _merged(doors: RawHeaders, views: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    taken = {name for name, _ in doors if name != b"vary"}.union(_OF_THE_BODY)
    return [*doors, *((name, value) for name, value in views if name not in taken)]
