"""Penstock for Flask: an extension with ``publish`` and ``stream``.

Example:
    ::

        app = Flask(__name__)
        app.config["PENSTOCK_URL"] = "sqlite:///penstock.db"
        sse = Penstock(app)

        @app.get("/events")
        def events():
            return sse.stream("chat", last=50)

        @app.post("/say")
        def say():
            sse.publish("chat", {"text": request.form["text"]})
            return "", 204
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.bus import Penstock as Bus
from penstock.core.position import Position
from penstock.doors.ask import Until, check_ask, of_request
from penstock.doors.cors import Headers
from penstock.doors.wsgi import Body, Door
from penstock.endpoint import (
    CHANNEL,
    METHODS,
    Denied,
    allow,
    check_authorize,
    denial,
    named_channels,
    preflight,
    value_for,
)
from penstock.errors import MissingExtra
from penstock.extension import Extension

try:
    from flask import Flask, Request, Response, current_app, has_app_context, request
except ImportError as error:
    raise MissingExtra("Flask is not installed: pip install 'penstock[flask]'") from error

__all__ = ["Penstock"]


class Penstock(Extension[Flask, Door]):
    """The Flask extension.

    Args:
        app: the app, or None to call ``init_app`` later: once, or for several apps, each of which then
            has a log of its own as its configuration says.

    The configuration: ``PENSTOCK_URL`` (default ``sqlite:///penstock.db``, in the folder where the
    server was started), and ``PENSTOCK_<NAME>`` for each of ``penstock.Options``.
    """

    def stream(
        self,
        *channels: str,
        last: int | None = None,
        after: Position | str | None = None,
        user: str | int | None = None,
        until: Until | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> Response:
        """Answer the current request with a stream.

        A client that comes back gets what it missed since its ``Last-Event-ID`` (or ``?last_event_id=``,
        for clients that cannot set headers), and then what comes. Whoever may call the view may read
        the channels: let the view decide, before it calls this, and do not pass on names that the client
        chose without asking whether it may have them.

        Args:
            channels: channels and patterns (``room/*``).
            last: begin with the last so many events, for a client that comes for the first time.
            after: begin after this position, or with the ``earliest`` event, likewise.
            user: whose stream it is, so that ``kick`` finds it: a name or a primary key.
            until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970. The
                client is told (``penstock.revoked``) and comes back, to a view that decides anew.
            on_close: called once when the client has gone or the stream has ended, on every server; at
                once if there was none to be opened. It runs outside of the request, and may block. (The
                response's own ``call_on_close`` runs when the server has done its part, which on some is
                when the stream begins.)

        Returns:
            A streaming response; ``204`` if all channels have ended and the client has had the end,
            which tells an EventSource not to come back.

        Raises:
            BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
        """
        ask = check_ask(channels, last=last, after=after, user=user, until=until, on_close=on_close)
        ask = of_request(ask, request.headers.get, request.args.get)
        return _response(*self._state.door.answer(request.environ, ask))

    def endpoint(
        self,
        authorize: Callable[[Request, str], object] | None = None,
        *,
        last: int | None = None,
        after: Position | str | None = None,
        user: Callable[[Request], str | int | None] | None = None,
        until: Callable[[Request], Until | None] | None = None,
    ) -> Callable[[], Response]:
        """A view of streams of the channels that the client names: ``?channel=a&channel=b``.

        Args:
            authorize: called with the request and each channel; tells whether the client may read it.
                Without it all are refused.
            last: see ``stream``.
            after: see ``stream``.
            user: gives the ``user`` of ``stream`` from the request.
            until: gives its ``until``, likewise.

        Returns:
            A view, for ``app.add_url_rule("/events", "events", view)``. It answers ``403`` if one of the
            channels is refused, ``400`` if the client names none or one that cannot be; an EventSource does
            not come back after either.

        Raises:
            ConfigError: for arguments that cannot work.
        """
        decide = check_authorize(authorize, may_wait=False)
        check_ask(["any"], last=last, after=after)

        def named_channels_view() -> Response:
            options, web_origin = self.bus.options, request.headers.get("Origin")
            if request.method == "OPTIONS":
                return _response(*preflight(options, web_origin))
            try:
                names = named_channels(request.args.getlist(CHANNEL))
                allow(decide, request, names)
            except Denied as denied:
                return _response(*denial(denied, options, web_origin))
            return self.stream(
                *names,
                last=last,
                after=after,
                user=value_for(request, user),
                until=value_for(request, until),
            )

        named_channels_view.methods = METHODS  # type: ignore[attr-defined]  # for add_url_rule
        named_channels_view.provide_automatic_options = False  # type: ignore[attr-defined]
        return named_channels_view

    def _app_of_context(self) -> Any:
        return current_app if has_app_context() else None

    def _door_of(self, bus: Bus) -> Door:
        return Door(lambda: bus.engine)


def _response(status: int, headers: Headers, body: Body | list[bytes] | bytes) -> Response:
    response = Response(body, status)
    del response.headers["Content-Type"]
    response.headers.extend(headers)
    return response
