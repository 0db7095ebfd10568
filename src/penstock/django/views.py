"""A ready-made view of streams, for URLconfs.

::

    path("events/", views.stream, {"channels": ["news"]}),
    path("staff/events/", views.stream, {"channels": ["orders"], "permission": "shop.view_order"}),
    path("rooms/events/", views.stream, {"authorize": may_read}),  # ?channel=room/7&channel=room/9

It is a plain function: Django runs it in a thread under ASGI too, so whoever it asks may query the database,
and ``ATOMIC_REQUESTS`` is fine with it. A request that may not read is answered with ``403``, never with a
redirect to a page for logging in: an EventSource makes nothing of a page.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from penstock.core.position import Position
from penstock.django.conf import Settings
from penstock.django.process import get_bus
from penstock.django.responses import StreamResponse, whole
from penstock.django.streams import stream as answer
from penstock.doors.ask import Until
from penstock.endpoint import (
    CHANNEL,
    METHODS,
    Authorize,
    Denied,
    allow,
    check_authorize,
    denial,
    named_channels,
    preflight,
    value_for,
)

__all__ = ["stream"]


def stream(
    request: HttpRequest,
    *,
    channels: Sequence[str] | None = None,
    last: int | None = None,
    after: Position | str | None = None,
    login_required: bool = False,
    permission: str | None = None,
    authorize: Authorize | str | None = None,
    user: Callable[[HttpRequest], str | int | None] | None = None,
    until: Callable[[HttpRequest], Until | None] | None = None,
) -> StreamResponse | HttpResponse:
    """A view of a stream of channels that the app names, or the client: ``?channel=a&channel=b``.

    Args:
        request: the request.
        channels: the channels and patterns. Without them the client names channels, none of which it may read
            unless ``authorize`` says so.
        last: see ``penstock.django.stream``.
        after: see ``penstock.django.stream``.
        login_required: whether only those who are logged in may read.
        permission: what they need: ``app_label.codename``.
        authorize: called with the request and each channel, and may be a coroutine function; or the dotted
            path to it. It tells whether the client may read the channel. For channels that the client
            names, ``PENSTOCK["AUTHORIZE"]`` is asked where this is not given.
        user: gives the ``user`` of ``penstock.django.stream`` from the request. If not given, it is the
            primary key of who is logged in, where ``login_required`` or ``permission`` asks for that.
        until: gives its ``until``, likewise.

    Returns:
        A stream; ``403`` for who may not read it, ``400`` if the client names none, or what is none.
    """
    options, web_origin = get_bus().options, request.headers.get("Origin")
    if request.method == "OPTIONS":
        return whole(*preflight(options, web_origin))
    try:
        if request.method not in METHODS:
            raise Denied(405, "A stream is read by GET.")
        reader = _reader(request, login_required, permission)
        names = channels if channels is not None else named_channels(request.GET.getlist(CHANNEL))
        if channels is None or authorize is not None:
            allow(_decider(authorize), request, names)
    except Denied as denied:
        response = whole(*denial(denied, options, web_origin))
        if denied.status == 405:
            response.headers["Allow"] = ", ".join(METHODS)
        return response
    return answer(
        request,
        *names,
        last=last,
        after=after,
        user=value_for(request, user) if user is not None else reader,
        until=value_for(request, until),
    )


def _reader(request: HttpRequest, login_required: bool, permission: str | None) -> Any:
    """The primary key of who may read, if that was asked for.

    Raises:
        Denied: if it is nobody.
    """
    if not login_required and permission is None:
        return None
    user: Any = getattr(request, "user", None)
    if user is None:
        raise ImproperlyConfigured(
            "who is logged in is told by django.contrib.auth.middleware.AuthenticationMiddleware, which "
            "is not among MIDDLEWARE"
        )
    if login_required and not user.is_authenticated:
        raise Denied(403, "You are not logged in.")
    if permission is not None and not user.has_perm(permission):
        raise Denied(403, "You may not read this.")
    return user.pk


def _decider(authorize: Authorize | str | None) -> Authorize:
    """What is to be asked, which may be a coroutine function, as something that gives an answer."""
    given = authorize if authorize is not None else Settings.read().authorize
    if given is None:
        return _nobody()
    decide = check_authorize(import_string(given) if isinstance(given, str) else given, may_wait=True)

    def ask(request: HttpRequest, channel: str) -> object:
        decided = decide(request, channel)
        return async_to_sync(_wait)(decided) if inspect.isawaitable(decided) else decided

    return ask


@functools.cache
def _nobody() -> Authorize:
    """What refuses every channel. That is told once."""
    return check_authorize(None, may_wait=True)


async def _wait(answer: Awaitable[object]) -> object:
    return await answer
