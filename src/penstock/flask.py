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

from collections.abc import Callable, Iterable
from typing import Any

from penstock.bus import DRAIN_TIMEOUT_S
from penstock.bus import Penstock as Bus
from penstock.core.channel import Subscription
from penstock.core.event import Event, to_text
from penstock.core.position import Position
from penstock.doors.wsgi import Door
from penstock.engine.origin import check_wish
from penstock.engine.stats import Stats
from penstock.errors import ConfigError, MissingExtra
from penstock.options import Options, refuse_unknown
from penstock.subscriber import Subscriber

try:
    from flask import Flask, Response, current_app, has_app_context, request
except ImportError as error:
    raise MissingExtra("Flask is not installed: pip install 'penstock[flask]'") from error

__all__ = ["Penstock"]

DEFAULT_URL = "sqlite:///penstock.db"
_PREFIX = "PENSTOCK_"


class Penstock:
    """The Flask extension.

    Args:
        app: the app, or None to call ``init_app`` later: once, or for several apps, each of which then
            has a log of its own as its configuration says.

    The configuration: ``PENSTOCK_URL`` (default ``sqlite:///penstock.db``, in the folder where the
    server was started), and ``PENSTOCK_<NAME>`` for each of ``penstock.Options``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app: Flask | None = None
        self._several = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the app's configuration. Nothing is opened or started before its first use.

        Raises:
            ConfigError: for a URL or a setting that cannot work.
        """
        if "penstock" in app.extensions:
            raise ConfigError(f"Penstock was initialised for {app.name!r} already")
        given = {
            name.removeprefix(_PREFIX): value
            for name, value in app.config.items()
            if name.startswith(_PREFIX)
        }
        known = ["URL", *map(str.upper, Options.names())]
        refuse_unknown("setting", given, known, _PREFIX)
        settings = {name.lower(): value for name, value in given.items()}
        bus = Bus(settings.pop("url", DEFAULT_URL), **settings)
        app.extensions["penstock"] = _State(bus)
        self._several = self._app is not None
        self._app = app

    @property
    def bus(self) -> Bus:
        """The app's ``penstock.Penstock``."""
        return self._state.bus

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> Position:
        """Publish an event: returns once it rests in the log. See ``penstock.Penstock.publish``.

        Data that is not text is encoded by the app's JSON provider. It may be called outside of
        requests too, in a thread or a script for one.
        """
        text = to_text(data, self._provider.dumps)
        return self.bus.publish(channel, text, event=event, retry=retry, key=key)

    def publish_many(self, events: Iterable[Event]) -> list[Position]:
        """Publish events together: all are stored, or none.

        An ``Event`` turns its data into text when it is made; what only the app's JSON provider can
        encode, give it as ``app.json.dumps(data)``.
        """
        return self.bus.publish_many(events)

    def end(self, channel: str) -> Position:
        """End a channel. See ``penstock.Penstock.end``."""
        return self.bus.end(channel)

    def stream(
        self,
        *channels: str,
        last: int | None = None,
        after: Position | str | None = None,
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
        subscription, wish = Subscription(channels), check_wish(after, last)
        last_event_id = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
        answer = self._state.door.answer(request.environ, subscription, wish, last_event_id or None, on_close)
        response = Response(answer.body, answer.status)
        del response.headers["Content-Type"]
        response.headers.extend(answer.headers)
        return response

    def subscribe(self, *channels: str, **where: Any) -> Subscriber:
        """Follow channels in Python. See ``penstock.Penstock.subscribe``."""
        return self.bus.subscribe(*channels, **where)

    def stats(self) -> Stats:
        """What this process can tell. See ``penstock.Stats``."""
        return self.bus.stats()

    def drain(self, timeout: float = DRAIN_TIMEOUT_S) -> bool:
        """End all streams of this process. See ``penstock.Penstock.drain``."""
        return self.bus.drain(timeout)

    @property
    def _state(self) -> _State:
        app: Any = current_app if has_app_context() else self._app
        if app is None:
            raise RuntimeError("Penstock has no app yet: call init_app(app) first")
        if self._several and not has_app_context():
            raise RuntimeError("Penstock has several apps: say which, 'with app.app_context():'")
        if "penstock" not in app.extensions:
            raise RuntimeError(f"Penstock was not initialised for {app.name!r}: call init_app(app)")
        state: _State = app.extensions["penstock"]
        return state

    @property
    def _provider(self) -> Any:
        app: Any = current_app if has_app_context() else self._app
        if app is None:
            raise RuntimeError("Penstock has no app yet: call init_app(app) first")
        return app.json


class _State:
    """What an app has of Penstock."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.door = Door(lambda: bus.engine)
