"""``Penstock``: publish to a log and subscribe to it, in scripts, workers, tests and any framework.

Nothing happens when it is made but the checking of its arguments: the log is opened by the first use,
and a child process that inherits it by fork begins anew.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Self, overload

from penstock import threads
from penstock.core.channel import Subscription, refuse_own
from penstock.core.event import Event
from penstock.core.position import Gap, Position
from penstock.core.record import Record
from penstock.engine.engine import Engine
from penstock.engine.kicks import F, Predicate, Predicates
from penstock.engine.origin import check_wish
from penstock.engine.stats import Stats
from penstock.errors import Closed
from penstock.log import log_maker
from penstock.log.base import Log
from penstock.options import Options
from penstock.subscriber import Subscriber, follow

DRAIN_TIMEOUT_S = 1.0


class Penstock:
    """One log, to publish to and to subscribe to. All methods may be called from any thread.

    Args:
        log: a URL: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``; or a callable
            that makes a log of one's own (called once per process).
        options: see ``penstock.Options``.

    Raises:
        ConfigError: for a URL or an option that cannot work.

    Example:
        >>> bus = Penstock("sqlite:///penstock.db")
        >>> position = bus.publish("chat", {"text": "hi"})
    """

    def __init__(self, log: str | Callable[[], Log], **options: Any) -> None:
        self.options = Options.of(options)
        self._url: str | None = None
        self._make_log: Callable[[], Log]
        if callable(log):
            self._make_log = log
        else:
            self._make_log = log_maker(log)
            self._url = self._make_log().url
        self.predicates = Predicates()  # that streams may be kicked by
        self._mutex = threads.Lock()
        self._engine: Engine | None = None
        self._closed = False
        _register(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._engine is not None else "idle"
        url = self._engine.log.url if self._engine is not None else self._url
        return f"<Penstock {url} {state}>" if url is not None else f"<Penstock {state}>"

    @property
    def engine(self) -> Engine:
        """This process's engine, made by the first use. For doors; not needed otherwise."""
        if self._engine is not None:
            return self._engine
        with self._mutex:
            if self._closed:
                raise Closed("this Penstock is closed")
            if self._engine is None:
                self._engine = Engine(self._make_log(), self.options, self.predicates)
            return self._engine

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
        """Publish an event: returns once it rests in the log.

        Args:
            channel: the channel, such as ``chat`` or ``room/7``.
            data: ``str`` is sent as it is, ``bytes`` must be UTF-8, anything else becomes JSON.
            event: the event type, None for ``message``.
            retry: the browser's reconnection time from now on, in milliseconds.
            key: an idempotency key: what was published to the channel with it before is not stored
                again, and its position is returned, for as long as the log keeps it.
            connection: with a log in PostgreSQL, a connection of yours to the same database: the event
                joins its transaction, comes when that is committed, and is gone if it is rolled back. Of
                psycopg, SQLAlchemy (a ``Session`` too) or Django.

        Returns:
            Where it rests; None with a ``connection``, since before the commit that is nowhere.

        Raises:
            InvalidEvent: it cannot be delivered as it is; nothing was stored.
            ConfigError: the connection has no transaction, or not one that this log can join.
            LogUnavailable: nothing was stored, though tried for ``publish_timeout`` seconds.
            AppendUnsure: it may be stored or not; publish again with a key.
            LogUnusable: nothing was stored, and waiting will not help.
            WouldBlock: called on the engine's own event loop; nothing was stored.
        """
        batch = [Event(channel, data, event, retry, key)]
        if connection is not None:
            self.publish_many(batch, connection=connection)
            return None
        return self.publish_many(batch)[0]

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
        """As ``publish``, for coroutines; a ``connection`` is one of coroutines too."""
        batch = [Event(channel, data, event, retry, key)]
        if connection is not None:
            await self.apublish_many(batch, connection=connection)
            return None
        return (await self.apublish_many(batch))[0]

    @overload
    def publish_many(self, events: Iterable[Event], *, connection: None = None) -> list[Position]: ...
    @overload
    def publish_many(self, events: Iterable[Event], *, connection: object) -> None: ...
    def publish_many(self, events: Iterable[Event], *, connection: object = None) -> list[Position] | None:
        """Publish events together: all are stored, or none. See ``publish``."""
        batch = list(events)
        if connection is not None:
            self.engine.publish_in(connection, batch)
            return None
        return self.engine.publish(batch) if batch else []

    @overload
    async def apublish_many(self, events: Iterable[Event], *, connection: None = None) -> list[Position]: ...
    @overload
    async def apublish_many(self, events: Iterable[Event], *, connection: object) -> None: ...
    async def apublish_many(
        self, events: Iterable[Event], *, connection: object = None
    ) -> list[Position] | None:
        """As ``publish_many``, for coroutines."""
        batch = list(events)
        if connection is not None:
            await self.engine.publish_in_async(connection, batch)
            return None
        return await self.engine.publish_async(batch) if batch else []

    def end(self, channel: str) -> Position:
        """End a channel: its streams are told and closed, and clients that come back are sent away.

        Publishing to it again begins it again.

        Returns:
            Where the end rests in the log.
        """
        return self.publish_many([Event(channel, "", end=True)])[0]

    async def aend(self, channel: str) -> Position:
        """As ``end``, for coroutines."""
        return (await self.apublish_many([Event(channel, "", end=True)]))[0]

    def kick(self, who: str | int | Predicate, *arguments: Any) -> Position:
        """Close streams at once, in every process that follows the log.

        Their clients are told (``penstock.revoked``) and come back some seconds later, to a view that
        decides anew: take the right away first, then kick.

        Args:
            who: the user whose streams are closed, as ``stream(user=...)`` was given it; or a function that
                ``predicate`` made known, and which is asked for each stream.
            arguments: what the function is called with after the stream's ``StreamInfo``; anything that
                JSON can carry.

        Returns:
            Where the kick rests in the log.

        Raises:
            ConfigError: for a function that is not known.
            LogUnavailable, AppendUnsure, LogUnusable: as ``publish``; nobody was kicked.
        """
        return self.engine.kick(self.predicates.kick(who, arguments))

    async def akick(self, who: str | int | Predicate, *arguments: Any) -> Position:
        """As ``kick``, for coroutines."""
        return await self.engine.kick_async(self.predicates.kick(who, arguments))

    def predicate(self, function: F) -> F:
        """Make a function known to ``kick``, under its name: a decorator.

        It is called with each open stream's ``StreamInfo`` and the arguments of the kick, and returns
        whether that stream is to be closed. It runs on the thread of all streams, so it must not block.

        Raises:
            ConfigError: for a function without a name of its own, as a lambda, or another of that name.

        Example:
            ::

                @bus.predicate
                def is_in(stream, room):
                    return f"room/{room}" in stream.channels

                bus.kick(is_in, 7)
        """
        return self.predicates.add(function)

    def subscribe(
        self,
        *channels: str,
        after: Position | str | None = None,
        last: int | None = None,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> Subscriber:
        """Follow channels: what is there after a position, then what comes.

        It is over when all its channels have ended, and when this Penstock drains or is closed. It
        begins when it is called, not with the first record that is asked for.

        Args:
            channels: channels and patterns (``room/*``).
            after: begin after this position, or with the ``earliest`` record; from now if not given.
            last: begin with the last so many events of these channels.
            on_gap: is told of events that are gone, and then it goes on.

        Returns:
            An iterator of records, in the order of the log, with ``close()``.

        Raises:
            GapError: events are gone, and there is no ``on_gap``.
            BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
            LogError: if the log cannot be read.
        """
        wish = check_wish(after, last)
        return Subscriber(self.engine, Subscription(map(refuse_own, channels)), wish, on_gap)

    def asubscribe(
        self,
        *channels: str,
        after: Position | str | None = None,
        last: int | None = None,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> AsyncIterator[Record]:
        """As ``subscribe``, for coroutines; it begins with the first record that is asked for."""
        wish = check_wish(after, last)
        return follow(self.engine, Subscription(map(refuse_own, channels)), wish, on_gap)

    def stats(self) -> Stats:
        """What this process can tell about its part in the log."""
        return self.engine.stats()

    def drain(self, timeout: float = DRAIN_TIMEOUT_S) -> bool:
        """End all streams of this process; their clients come back at different times, elsewhere.

        For the end of a process: streams that are opened from now on are ended at once. Publishing
        goes on.

        Args:
            timeout: seconds to wait for them to be over.

        Returns:
            Whether all were over in time.
        """
        try:
            return self.engine.drain(timeout)
        except Closed:
            return True

    def close(self) -> None:
        """Drain, and let go of everything. Does nothing the second time."""
        with self._mutex:
            self._closed = True
            engine = self._engine
        if engine is not None:
            engine.close()

    def _open_again(self) -> None:
        """Undo ``close``: an app may be served more than once, as in tests, and each time is a life."""
        with self._mutex:
            if self._closed:
                self._closed, self._engine = False, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin_anew(self) -> None:
        """In a child process: threads and connections of the parent are not ours to touch.

        The engine is kept as it is, out of reach: to close or to collect it could harm the parent.
        """
        self._mutex = threads.Lock()
        if self._engine is not None:
            _abandoned.append(self._engine)
            self._engine = None


_all: weakref.WeakSet[Penstock] = weakref.WeakSet()
_abandoned: list[Engine] = []  # engines of a parent process
_registered = False


def _register(bus: Penstock) -> None:
    """Let a bus take note of fork and of the end of the process."""
    global _registered
    _all.add(bus)
    if not _registered:
        _registered = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)
        atexit.register(_at_exit)


def _in_child() -> None:
    for bus in list(_all):
        bus._begin_anew()


def _at_exit() -> None:
    for bus in list(_all):
        with contextlib.suppress(Exception):
            bus.close()
