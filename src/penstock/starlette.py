"""Penstock for Starlette, and for whatever is built on it.

Example:
    ::

        sse = Penstock("sqlite:///penstock.db")

        async def events(request):
            return sse.stream("chat", last=50)

        async def say(request):
            form = await request.form()
            await sse.apublish("chat", {"text": form["text"]})
            return Response(status_code=204)

        app = Starlette(
            routes=[Route("/events", events), Route("/say", say, methods=["POST"])],
            lifespan=sse.lifespan,
        )
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from penstock.asgi_response import answer
from penstock.bus import Penstock as Bus
from penstock.core.position import Position
from penstock.doors.asgi import Door
from penstock.doors.ask import Ask, OnClose, Until, check_ask, of_request
from penstock.endpoint import (
    CHANNEL,
    METHODS,
    Authorize,
    Denied,
    Reply,
    aallow,
    avalue_for,
    check_authorize,
    denial,
    named_channels,
    preflight,
)
from penstock.errors import ConfigError, MissingExtra
from penstock.log.base import Log

try:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware, gzip
    from starlette.middleware.exceptions import ExceptionMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Match, Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocketClose
except ImportError as error:
    raise MissingExtra("Starlette is not installed: pip install 'penstock[starlette]'") from error

__all__ = ["Penstock", "StreamResponse"]

User = str | int | None

DEFAULT_URL = "sqlite:///penstock.db"
_HANDLERS = "starlette.exception_handlers"  # in a scope: those of the app that a request is within
# The GZipMiddleware of older releases compresses streams too, and keeps what it has until there is more of
# it: unless a response says that it is encoded already.
_GZIP_KNOWS_STREAMS = any("EXCLUDE" in name for name in vars(gzip))


class Penstock(Bus):
    """``penstock.Penstock`` with streams for Starlette.

    Args:
        log: a URL, or a callable that makes a log; a file beside the app by default.
        options: see ``penstock.Options``.

    Raises:
        ConfigError: for a URL or an option that cannot work.
    """

    def __init__(self, log: str | Callable[[], Log] = DEFAULT_URL, **options: Any) -> None:
        super().__init__(log, **options)
        self._door = Door(lambda: self.engine)

    def stream(
        self,
        *channels: str,
        last: int | None = None,
        after: Position | str | None = None,
        user: str | int | None = None,
        until: Until | None = None,
        on_close: OnClose | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> StreamResponse:
        """Answer a request with a stream.

        A client that comes back gets what it missed since its ``Last-Event-ID`` (or ``?last_event_id=``,
        for clients that cannot set headers), and then what comes. Whoever may call the route may read the
        channels: let it decide, before it calls this, and do not pass on names that the client chose
        without asking whether it may have them (``endpoint`` does).

        Args:
            channels: channels and patterns (``room/*``).
            last: begin with the last so many events, for a client that comes for the first time.
            after: begin after this position, or with the ``earliest`` event, likewise.
            user: whose stream it is, so that ``kick`` finds it: a name or a primary key.
            until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970.
                The client is told (``penstock.revoked``) and comes back, to a route that decides anew.
            on_close: called once, in a thread, when the client has gone or the stream has ended, on every
                server; at once if there was none to be opened.
            headers: more headers of the response. Cookies may be set on it too.
            background: runs when the server has done its part, which on some is when the stream begins.

        Returns:
            A response; ``204`` if all channels have ended and the client has had the end, which tells an
            EventSource not to come back.

        Raises:
            BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
        """
        ask = check_ask(channels, last=last, after=after, user=user, until=until, on_close=on_close)
        return StreamResponse(self._door, ask, headers, background)

    def endpoint(
        self,
        authorize: Authorize | None = None,
        *,
        last: int | None = None,
        after: Position | str | None = None,
        user: Callable[[Request], User | Awaitable[User]] | None = None,
        until: Callable[[Request], Until | Awaitable[Until | None] | None] | None = None,
    ) -> ASGIApp:
        """An ASGI app of streams of the channels that the client names: ``?channel=a&channel=b``.

        As a route it stands within the app's middlewares; ``bypass`` lets it stand before them.

        Args:
            authorize: called with the request and each channel; tells whether the client may read it, or
                raises an ``HTTPException``. What is no coroutine function runs in a thread, as routes do.
                Without it all are refused.
            last: see ``stream``.
            after: see ``stream``.
            user: gives the ``user`` of ``stream`` from the request; may be a coroutine function.
            until: gives its ``until``, likewise.

        Returns:
            An ASGI app, for ``Route("/events", app)`` or ``Mount``. It answers ``403`` if one of the
            channels is refused, ``400`` if the client names none or one that cannot be; an EventSource does
            not come back after either.

        Raises:
            ConfigError: for arguments that cannot work.
        """
        decide = check_authorize(authorize, may_wait=True)
        if authorize is not None:
            decide = _in_thread(decide)
        check_ask(["any"], last=last, after=after)
        return _Endpoint(self, decide, {"last": last, "after": after}, {"user": user, "until": until})

    def bypass(self, app: ASGIApp, path: str, endpoint: Callable[..., Any]) -> ASGIApp:
        """Put a route before an app and its middlewares, none of which sees its requests.

        Nothing that they do is done for it: it has no session and no user, unless ``endpoint`` is wrapped
        in what brings them. ``request.app`` and the app's exception handlers are there.

        Args:
            app: the app, which answers all else.
            path: of the route, as ``/events`` or ``/rooms/{room}/events``.
            endpoint: as a route's: an ASGI app, such as ``endpoint`` makes, or a function of a request.

        Returns:
            The ASGI app to serve.

        Raises:
            ConfigError: for a path that no request can have.
        """
        if not path.startswith("/"):
            raise ConfigError(f"a path begins with '/': {path!r}")
        return _Bypass(app, path, endpoint)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """The life of an app: its streams are ended and its log is closed when the server stops.

        An app that is served once more, as by another test, begins anew.
        """
        self._open_again()
        try:
            yield
        finally:
            await run_in_threadpool(self.close)


class StreamResponse(Response):
    """A response that the door answers; its headers and cookies go out with the stream's.

    Args:
        door: the door.
        ask: what the route asks for.
        headers: more headers.
        background: runs when the server has done its part.
    """

    def __init__(
        self,
        door: Door,
        ask: Ask,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self._door = door
        self._ask = ask
        self.status_code = 200  # until the door says otherwise
        self.body = b""
        self.background = background
        self.raw_headers = []
        self.headers.update(headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if not _GZIP_KNOWS_STREAMS:
            send = _said_to_be_encoded(send)
        request = Request(scope)
        ask = of_request(self._ask, request.headers.get, request.query_params.get)
        await answer(self._door, scope, receive, send, ask, self.raw_headers)
        if self.background is not None:
            await self.background()


class _Endpoint:
    """See ``Penstock.endpoint``."""

    def __init__(
        self, bus: Penstock, decide: Authorize, given: dict[str, Any], asked: dict[str, Any]
    ) -> None:
        self._bus = bus
        self._decide = decide
        self._given = given
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except HTTPException as error:
            if _HANDLERS in scope:
                raise
            response = self._refusal(request, Denied(error.status_code, error.detail))
            response.headers.update(error.headers or {})
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return _response(preflight(self._bus.options, request.headers.get("Origin")))
        if request.method not in METHODS:
            response = self._refusal(request, Denied(405, "A stream is read by GET."))
            response.headers["Allow"] = ", ".join(METHODS)
            return response
        try:
            names = named_channels(request.query_params.getlist(CHANNEL))
            await aallow(self._decide, request, names)
        except Denied as denied:
            return self._refusal(request, denied)
        asked = {name: await avalue_for(request, given) for name, given in self._asked.items()}
        return self._bus.stream(*names, **self._given, **asked)

    def _refusal(self, request: Request, denied: Denied) -> Response:
        return _response(denial(denied, self._bus.options, request.headers.get("Origin")))


class _Bypass:
    """See ``Penstock.bypass``."""

    def __init__(self, app: ASGIApp, path: str, endpoint: Callable[..., Any]) -> None:
        self.app = app  # the name that middlewares have for it
        self._within = _innermost(app)
        handlers = dict(self._within.exception_handlers) if self._within is not None else {}
        for unhandled in (
            500,
            Exception,
        ):  # which come to an app's outermost middleware, and here to the server
            handlers.pop(unhandled, None)
        self._route = Route(path, endpoint, middleware=[Middleware(ExceptionMiddleware, handlers=handlers)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match, of_route = self._route.matches(scope)  # an HTTP request, or none
        if match is not Match.FULL:
            await self.app(scope, receive, send)
            return
        scope.update(of_route)
        if self._within is not None:
            scope["app"] = self._within
        await self._route.handle(scope, receive, send)


def _innermost(app: Any) -> Starlette | None:
    """The app that middlewares were put around."""
    while app is not None and not isinstance(app, Starlette):
        app = getattr(app, "app", None)
    return app


def _in_thread(decide: Authorize) -> Authorize:
    """As Starlette does with routes: what is no coroutine function may block."""
    if inspect.iscoroutinefunction(decide) or inspect.iscoroutinefunction(type(decide).__call__):
        return decide

    async def decided(request: Request, channel: str) -> object:
        return await run_in_threadpool(decide, request, channel)

    return decided


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status)
    headers = MutableHeaders(raw=response.raw_headers)
    for name, value in reply.headers:
        headers[name] = value
    return response


def _said_to_be_encoded(send: Send) -> Send:
    async def saying(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            message["headers"] = [*message["headers"], (b"content-encoding", b"identity")]
        await send(message)

    return saying
