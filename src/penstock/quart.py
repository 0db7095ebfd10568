"""Penstock for Quart: an extension with ``apublish`` and ``stream``.

Example:
    ::

        app = Quart(__name__)
        app.config["PENSTOCK_URL"] = "sqlite:///penstock.db"
        sse = Penstock(app)

        @app.get("/events")
        async def events():
            return sse.stream("chat", last=50)

        @app.post("/say")
        async def say():
            form = await request.form
            await sse.apublish("chat", {"text": form["text"]})
            return "", 204
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, Self, overload

from penstock.asgi_response import answer
from penstock.bus import Penstock as Bus
from penstock.core.event import Event
from penstock.core.position import Position
from penstock.core.record import Record
from penstock.doors.asgi import Door
from penstock.doors.asgi_stream import Message, Scope, Send
from penstock.doors.ask import Ask, OnClose, Until, check_ask, of_request
from penstock.doors.over import over
from penstock.endpoint import (
    CHANNEL,
    METHODS,
    Denied,
    Reply,
    aallow,
    avalue_for,
    check_authorize,
    denial,
    named_channels,
    preflight,
)
from penstock.engine.kicks import Predicate
from penstock.errors import Closed, MissingExtra
from penstock.extension import KEY, Extension, State

try:
    from quart import Quart, Request, Response, current_app, has_app_context, request
except ImportError as error:
    raise MissingExtra("Quart is not installed: pip install 'penstock[quart]'") from error

__all__ = ["Penstock", "StreamResponse"]

User = str | int | None

_ASKED = "penstock.asked"  # in a scope: what the view has asked for
_MARK = "Penstock-Stream"  # a header that never leaves the process
_RAW_MARK = _MARK.lower().encode()


class Penstock(Extension[Quart, Door]):
    """The Quart extension.

    What may wait has two names: ``publish`` blocks, for threads and scripts, and ``apublish`` is awaited;
    likewise ``end``, ``kick`` and ``subscribe``.

    Args:
        app: the app, or None to call ``init_app`` later: once, or for several apps, each of which then
            has a log of its own as its configuration says.

    The configuration: ``PENSTOCK_URL`` (default ``sqlite:///penstock.db``, in the folder where the
    server was started), and ``PENSTOCK_<NAME>`` for each of ``penstock.Options``.
    """

    _with = "async with"

    def init_app(self, app: Quart) -> None:
        """Read the app's configuration. Nothing is opened or started before its first use.

        When the server stops, streams are ended and the log is closed, after all else that the app does
        then. An app that is served once more, as by another test, begins anew.

        Raises:
            ConfigError: for a URL or a setting that cannot work.
        """
        super().init_app(app)
        state: State[Door] = app.extensions[KEY]
        bus = state.bus
        app.asgi_app = _Answering(app.asgi_app, state)  # type: ignore[method-assign]  # as Quart has it

        async def begin() -> None:
            bus._open_again()
            if close not in app.after_serving_funcs:
                app.after_serving_funcs.append(close)  # the last: others may still publish

        async def close() -> None:
            await asyncio.to_thread(bus.close)

        app.before_serving_funcs.insert(0, begin)

    @overload
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: None = None,
    ) -> Position: ...
    @overload
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """As ``publish``, for coroutines."""
        if connection is None:
            return await self.bus.apublish(channel, self._text(data), event=event, retry=retry, key=key)
        await self.bus.apublish(
            channel, self._text(data), event=event, retry=retry, key=key, connection=connection
        )
        return None

    @overload
    async def apublish_many(self, events: Iterable[Event], *, connection: None = None) -> list[Position]: ...
    @overload
    async def apublish_many(self, events: Iterable[Event], *, connection: object) -> None: ...
    async def apublish_many(
        self, events: Iterable[Event], *, connection: object = None
    ) -> list[Position] | None:
        """As ``publish_many``, for coroutines."""
        if connection is None:
            return await self.bus.apublish_many(events)
        await self.bus.apublish_many(events, connection=connection)
        return None

    async def aend(self, channel: str) -> Position:
        """As ``end``, for coroutines."""
        return await self.bus.aend(channel)

    async def akick(self, who: str | int | Predicate, *arguments: Any) -> Position:
        """As ``kick``, for coroutines."""
        return await self.bus.akick(who, *arguments)

    def asubscribe(self, *channels: str, **where: Any) -> AsyncIterator[Record]:
        """As ``subscribe``, for coroutines. See ``penstock.Penstock.asubscribe``."""
        return self.bus.asubscribe(*channels, **where)

    def stream(
        self,
        *channels: str,
        last: int | None = None,
        after: Position | str | None = None,
        user: User = None,
        until: Until | None = None,
        on_close: OnClose | None = None,
    ) -> StreamResponse:
        """Answer the current request with a stream, in an ``async def`` view or a ``def`` one.

        A client that comes back gets what it missed since its ``Last-Event-ID`` (or ``?last_event_id=``,
        for clients that cannot set headers), and then what comes. Whoever may call the view may read
        the channels: let the view decide, before it calls this, and do not pass on names that the client
        chose without asking whether it may have them (``endpoint`` does).

        Args:
            channels: channels and patterns (``room/*``).
            last: begin with the last so many events, for a client that comes for the first time.
            after: begin after this position, or with the ``earliest`` event, likewise.
            user: whose stream it is, so that ``kick`` finds it: a name or a primary key.
            until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970. The
                client is told (``penstock.revoked``) and comes back, to a view that decides anew.
            on_close: called once, in a thread and outside of the request, when the client has gone or the
                stream has ended, on every server; at once if there was none to be opened.

        Returns:
            A response, on which headers and cookies may be set; it may be awaited, and need not be. The
            stream begins when the app is done with the request. ``204`` goes out instead if all channels have
            ended and the client has had the end, which tells an EventSource not to come back.

        Raises:
            BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
        """
        _ = self._state  # is there, or it is told what is missing
        ask = check_ask(channels, last=last, after=after, user=user, until=until, on_close=on_close)
        ask = of_request(ask, request.headers.get, request.args.get)
        scope: Any = request.scope
        asked: list[Ask] = scope.setdefault(_ASKED, [])
        asked.append(ask)
        return StreamResponse(len(asked) - 1)

    def endpoint(
        self,
        authorize: Callable[[Request, str], object] | None = None,
        *,
        last: int | None = None,
        after: Position | str | None = None,
        user: Callable[[Request], User | Awaitable[User]] | None = None,
        until: Callable[[Request], Until | Awaitable[Until | None] | None] | None = None,
    ) -> Callable[[], Coroutine[Any, Any, Response]]:
        """A view of streams of the channels that the client names: ``?channel=a&channel=b``.

        Args:
            authorize: called with the request and each channel; tells whether the client may read it. What
                is no coroutine function runs in a thread, as views do. Without it all are refused.
            last: see ``stream``.
            after: see ``stream``.
            user: gives the ``user`` of ``stream`` from the request; may be a coroutine function.
            until: gives its ``until``, likewise.

        Returns:
            A view, for ``app.add_url_rule("/events", "events", view)``. It answers ``403`` if one of the
            channels is refused, ``400`` if the client names none or one that cannot be; an EventSource does
            not come back after either.

        Raises:
            ConfigError: for arguments that cannot work.
        """
        decide = check_authorize(authorize, may_wait=True)
        check_ask(["any"], last=last, after=after)

        async def named_channels_view() -> Response:
            options, web_origin = self.bus.options, request.headers.get("Origin")
            if request.method == "OPTIONS":
                return _response(preflight(options, web_origin))
            try:
                names = named_channels(request.args.getlist(CHANNEL))
                await aallow(current_app.ensure_async(decide), request, names)
            except Denied as denied:
                return _response(denial(denied, options, web_origin))
            return self.stream(
                *names,
                last=last,
                after=after,
                user=await avalue_for(request, user),
                until=await avalue_for(request, until),
            )

        named_channels_view.methods = METHODS  # type: ignore[attr-defined]  # for add_url_rule
        named_channels_view.provide_automatic_options = False  # type: ignore[attr-defined]
        return named_channels_view

    def _app_of_context(self) -> Any:
        return current_app if has_app_context() else None

    def _door_of(self, bus: Bus) -> Door:
        return Door(lambda: bus.engine)


class StreamResponse(Response):
    """A response that the door answers in the end; its headers and cookies go out with the stream's.

    Args:
        number: of what is asked for, among what the request's view has asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(b"", content_type="text/event-stream", headers={_MARK: str(number)})
        self.timeout = None  # a stream is no response that takes too long

    def __await__(self) -> Generator[Any, None, Self]:
        """Give itself: ``await sse.stream(...)`` is fine too."""
        yield from ()
        return self


class _Answering:
    """What stands between Quart and its server, and answers with a stream where a view asked for one.

    Nothing is opened before a response has come through all that comes after the view: so nothing is to be
    closed again if an error takes its place. And the door has the server's own ``send``, by which it knows
    whether the client takes anything.

    Args:
        app: Quart's.
        state: what the app has of Penstock.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], state: State[Door]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked: list[Ask] = []
        scope[_ASKED] = asked
        try:
            await self._app(scope, receive, _Leaving(self._state.door, asked, scope, send).send)
        finally:
            for ask in asked:  # in vain: there was an error, or another answer
                if ask.on_close is not None:
                    with contextlib.suppress(Closed):
                        over(self._state.bus.engine, None, ask.on_close)()


class _Leaving:
    """What comes out of Quart on its way to the server.

    Args:
        door: what streams leave through.
        asked: what the view has asked for; what is answered is taken away.
        scope: the ASGI connection scope.
        send: the server's.
    """

    def __init__(self, door: Door, asked: list[Ask], scope: Scope, send: Send) -> None:
        self._door = door
        self._asked = asked
        self._scope = scope
        self._send = send
        self._ask: Ask | None = None
        self._headers: list[tuple[bytes, bytes]] = []

    async def send(self, message: Message) -> None:
        """See the ASGI specification."""
        if message["type"] == "http.response.start" and self._asked:
            marks = [value for name, value in message["headers"] if name == _RAW_MARK]
            self._headers = [each for each in message["headers"] if each[0] != _RAW_MARK]
            if marks and message["status"] == 200:
                self._ask = self._asked.pop(int(marks[0]))
                return
            message = {**message, "headers": self._headers}
        if self._ask is None:
            await self._send(message)
        elif not message.get("more_body", False):  # its body is empty
            await answer(self._door, self._scope, _for_ever, self._send, self._ask, self._headers)


async def _for_ever() -> Message:
    """A ``receive``: Quart has the server's, and cancels the task that sends when the client leaves."""
    future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await future


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status)
    del response.headers["Content-Type"]
    response.headers.extend(reply.headers)
    return response
