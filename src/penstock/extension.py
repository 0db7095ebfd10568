"""What the extensions of Flask and Quart have in common: all that needs no request.

An extension may serve several apps. Each has a log of its own, as its configuration says, and which of
them is at hand is told by the context; outside of one it is the only app there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from penstock.bus import DRAIN_TIMEOUT_S
from penstock.bus import Penstock as Bus
from penstock.core.event import Event, to_text
from penstock.core.position import Position
from penstock.engine.kicks import F, Predicate, Predicates
from penstock.engine.stats import Stats
from penstock.errors import ConfigError
from penstock.options import Options, refuse_unknown
from penstock.subscriber import Subscriber

DEFAULT_URL = "sqlite:///penstock.db"
KEY = "penstock"  # in an app's ``extensions``
PREFIX = "PENSTOCK_"

App = TypeVar("App")
Door = TypeVar("Door")


@dataclass(frozen=True, slots=True)
class State(Generic[Door]):
    """What an app has of Penstock.

    Attributes:
        bus: its log.
        door: what its streams leave through.
    """

    bus: Bus
    door: Door


class Extension(Generic[App, Door]):
    """``publish``, ``end``, ``kick`` and the like, of the app at hand.

    A framework's own class adds ``stream`` and ``endpoint``, and says which app is at hand and what door
    its streams leave through.

    Args:
        app: the app, or None to call ``init_app`` later: once, or for several apps, each of which then
            has a log of its own as its configuration says.

    The configuration: ``PENSTOCK_URL`` (default ``sqlite:///penstock.db``, in the folder where the
    server was started), and ``PENSTOCK_<NAME>`` for each of ``penstock.Options``.
    """

    _with = "with"  # by which an app's context is entered

    def __init__(self, app: App | None = None) -> None:
        self._app: App | None = None
        self._several = False
        self._predicates = Predicates()  # of all its apps: they are functions of the same program
        if app is not None:
            self.init_app(app)

    def init_app(self, app: App) -> None:
        """Read the app's configuration. Nothing is opened or started before its first use.

        Raises:
            ConfigError: for a URL or a setting that cannot work.
        """
        its: Any = app
        if KEY in its.extensions:
            raise ConfigError(f"Penstock was initialised for {its.name!r} already")
        bus = bus_of(its.config)
        bus.predicates = self._predicates
        its.extensions[KEY] = State(bus, self._door_of(bus))
        self._several = self._app is not None
        self._app = app

    @property
    def bus(self) -> Bus:
        """The app's ``penstock.Penstock``."""
        return self._state.bus

    @overload
    def publish(
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
    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """Publish an event: returns once it rests in the log. See ``penstock.Penstock.publish``.

        Data that is not text is encoded by the app's JSON provider. It may be called outside of
        requests too, in a thread or a script for one.
        """
        return self.bus.publish(
            channel, self._text(data), event=event, retry=retry, key=key, connection=connection
        )

    @overload
    def publish_many(self, events: Iterable[Event], *, connection: None = None) -> list[Position]: ...
    @overload
    def publish_many(self, events: Iterable[Event], *, connection: object) -> None: ...
    def publish_many(self, events: Iterable[Event], *, connection: object = None) -> list[Position] | None:
        """Publish events together: all are stored, or none.

        An ``Event`` turns its data into text when it is made; what only the app's JSON provider can
        encode, give it as ``app.json.dumps(data)``.
        """
        return self.bus.publish_many(events, connection=connection)

    def end(self, channel: str) -> Position:
        """End a channel. See ``penstock.Penstock.end``."""
        return self.bus.end(channel)

    def kick(self, who: str | int | Predicate, *arguments: Any) -> Position:
        """Close streams at once, in every process. See ``penstock.Penstock.kick``."""
        return self.bus.kick(who, *arguments)

    def predicate(self, function: F) -> F:
        """Make a function known to ``kick``. See ``penstock.Penstock.predicate``."""
        return self._predicates.add(function)

    def subscribe(self, *channels: str, **where: Any) -> Subscriber:
        """Follow channels in Python. See ``penstock.Penstock.subscribe``."""
        return self.bus.subscribe(*channels, **where)

    def stats(self) -> Stats:
        """What this process can tell. See ``penstock.Stats``."""
        return self.bus.stats()

    def drain(self, timeout: float = DRAIN_TIMEOUT_S) -> bool:
        """End all streams of this process. See ``penstock.Penstock.drain``."""
        return self.bus.drain(timeout)

    def _text(self, data: Any) -> str:
        return to_text(data, self._app_at_hand.json.dumps)

    @property
    def _state(self) -> State[Door]:
        state: State[Door] = self._app_at_hand.extensions[KEY]
        return state

    @property
    def _app_at_hand(self) -> Any:
        """The app of the context; the only one there is outside of contexts.

        Raises:
            RuntimeError: if there is none, or it is not known which.
        """
        app: Any = self._app_of_context()
        if app is None:
            if self._app is None:
                raise RuntimeError("Penstock has no app yet: call init_app(app) first")
            if self._several:
                raise RuntimeError(f"Penstock has several apps: say which, '{self._with} app.app_context():'")
            return self._app
        if KEY not in app.extensions:
            raise RuntimeError(f"Penstock was not initialised for {app.name!r}: call init_app(app)")
        return app

    def _app_of_context(self) -> App | None:
        raise NotImplementedError

    def _door_of(self, bus: Bus) -> Door:
        raise NotImplementedError


def bus_of(config: Mapping[str, Any]) -> Bus:
    """The log that a configuration names, with its settings: those that begin with ``PENSTOCK_``.

    Raises:
        ConfigError: for a URL or a setting that cannot work.
    """
    settings = {name.removeprefix(PREFIX): value for name, value in config.items() if name.startswith(PREFIX)}
    refuse_unknown("setting", settings, ["URL", *map(str.upper, Options.names())], PREFIX)
    options = {name.lower(): value for name, value in settings.items()}
    return Bus(options.pop("url", DEFAULT_URL), **options)
