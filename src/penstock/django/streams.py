"""``stream`` and ``astream``: one answer for every kind of view on every kind of server.

There are two kinds of request, WSGI's and ASGI's, and each has a door; and there are two kinds of view,
``def`` and ``async def``, which Django runs on either. Each of the two functions brings both kinds of request
to their doors, in the way that its kind of view can.
"""

from __future__ import annotations

import uuid
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.utils.asyncio import async_unsafe

from penstock.core.position import Position
from penstock.django.connections import give_back
from penstock.django.process import get_bus
from penstock.django.responses import StreamResponse, of_asgi, of_wsgi, read_whole
from penstock.doors import asgi, wsgi
from penstock.doors.ask import Ask, OnClose, Until, check_ask, of_request
from penstock.errors import ConfigError

_wsgi = wsgi.Door(lambda: get_bus().engine)
_asgi = asgi.Door(lambda: get_bus().engine)


@async_unsafe(
    "stream() would block the event loop: write 'return await astream(request, …)' in an async view"
)
def stream(
    request: HttpRequest,
    *channels: str,
    last: int | None = None,
    after: Position | str | None = None,
    user: str | int | uuid.UUID | None = None,
    until: Until | None = None,
    on_close: OnClose | None = None,
) -> StreamResponse | HttpResponse:
    """Answer a request with a stream.

    A client that comes back gets what it missed since its ``Last-Event-ID`` (or ``?last_event_id=``, for
    clients that cannot set headers), and then what comes. Whoever may call the view may read the channels:
    let the view decide, before it calls this, and do not pass on names that the client chose without asking
    whether it may have them (``penstock.django.views.stream`` does).

    Args:
        request: the request, of WSGI or ASGI.
        channels: channels and patterns (``room/*``).
        last: begin with the last so many events, for a client that comes for the first time.
        after: begin after this position, or with the ``earliest`` event, likewise.
        user: whose stream it is, so that ``kick`` finds it: ``request.user.pk``.
        until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970. The
            client is told (``penstock.revoked``) and comes back, to a view that decides anew.
        on_close: called once, in a thread, when the client has gone or the stream has ended, on every
            server; at once if there was none to be opened. (The signal ``request_finished`` comes when the
            server has done its part, which on some is when the stream begins.)

    Returns:
        A streaming response, on which cookies and headers may be set; ``204`` if all channels have ended and
        the client has had the end, which tells an EventSource not to come back.

    Raises:
        BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
        SynchronousOnlyOperation: in an async view.
    """
    ask = _ask(request, channels, last=last, after=after, user=user, until=until, on_close=on_close)
    environ = _environ(request)
    if environ is not None:
        return of_wsgi(_wsgi.answer(environ, ask))
    scope = _scope(request)
    answer = _asgi.open_here(scope, ask)
    return of_asgi(answer, scope, None if answer.status == 200 else async_to_sync(read_whole)(answer.body))


async def astream(
    request: HttpRequest,
    *channels: str,
    last: int | None = None,
    after: Position | str | None = None,
    user: str | int | uuid.UUID | None = None,
    until: Until | None = None,
    on_close: OnClose | None = None,
) -> StreamResponse | HttpResponse:
    """Answer a request with a stream in an async view; see ``stream``."""
    ask = _ask(request, channels, last=last, after=after, user=user, until=until, on_close=on_close)
    environ = _environ(request)
    if environ is not None:  # in the thread of the server's that waits for this view
        return of_wsgi(await sync_to_async(_wsgi.answer)(environ, ask))
    scope = _scope(request)
    answer = await _asgi.open(scope, ask)
    return of_asgi(answer, scope, None if answer.status == 200 else await read_whole(answer.body))


def _ask(request: HttpRequest, channels: tuple[str, ...], *, user: Any, **given: Any) -> Ask:
    ask = check_ask(channels, user=as_user(user), **given)
    if ask.on_close is not None:
        ask = ask._replace(on_close=_giving_back(ask.on_close))
    return of_request(ask, request.headers.get, request.GET.get)


def _giving_back(on_close: OnClose) -> OnClose:
    """It may query the database, in a thread of Penstock's: nobody else gives its connections back."""

    def over() -> None:
        try:
            on_close()
        finally:
            give_back()

    return over


def as_user(user: Any) -> Any:
    """A primary key as Penstock compares users."""
    return str(user) if isinstance(user, uuid.UUID) else user


def _environ(request: HttpRequest) -> dict[str, Any] | None:
    """The WSGI environment of a request; None if it is ASGI's."""
    environ: dict[str, Any] | None = getattr(request, "environ", None)
    if environ is not None and type(environ.get("wsgi.input")).__module__ == "django.test.client":
        # It says of itself that it has several processes, and no name.
        return {**environ, "SERVER_SOFTWARE": "Django's test client", "wsgi.multiprocess": False}
    return environ


def _scope(request: HttpRequest) -> dict[str, Any]:
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    if scope is None:
        raise ConfigError(f"a stream answers a request of WSGI or ASGI, and {request!r:.80} is neither")
    return scope
