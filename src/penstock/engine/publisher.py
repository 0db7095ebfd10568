"""Publishing: what may be stored is stored, whoever asks, and what need not be kept is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from penstock.core.channel import refuse_own
from penstock.core.event import Event
from penstock.core.position import Position
from penstock.core.record import Record
from penstock.engine.appender import Appender
from penstock.engine.trimmer import Trimmer
from penstock.errors import Closed, ConfigError, InvalidEvent, WouldBlock
from penstock.log.base import Log, Transactional
from penstock.options import Options

TRIMMER_CLOSES_IN_S = 1.0


class Publisher:
    """Stores events in a log. It needs no loop, and no thread but for coroutines.

    Args:
        log: the log.
        options: the settings.
        stored: is given the records that were stored.
        loop: gives the loop that serves the streams, if it runs: it must not be blocked.
    """

    def __init__(
        self,
        log: Log,
        options: Options,
        stored: Callable[[list[Record]], None],
        loop: Callable[[], asyncio.AbstractEventLoop | None],
    ) -> None:
        self._log = log
        self._options = options
        self._loop = loop
        self._appender = Appender(log, stored, options.publish_timeout)
        self._trimmer = Trimmer(log, options.retention)
        self.closed = False

    def publish(self, events: Sequence[Event], *, own: bool = False) -> list[Position]:
        """Store events, all or none, and return their positions. Blocks.

        Args:
            events: what is to be stored.
            own: whether they are Penstock's own.
        """
        self._refuse_to_block()
        self._check(events, own)
        positions = self._appender.append(events)
        self._trimmer.tick(len(events))
        return positions

    async def publish_async(self, events: Sequence[Event], *, own: bool = False) -> list[Position]:
        """As ``publish``, without blocking."""
        self._check(events, own)
        positions = await self._appender.append_async(events)
        self._trimmer.tick(len(events))
        return positions

    def publish_in(
        self, connection: Any, events: Sequence[Event], apart: Callable[[Callable[[], None]], None]
    ) -> None:
        """Lay events into the transaction of a connection; see ``Transactional.store_in``. Blocks.

        Args:
            connection: the application's; used here, where it belongs.
            events: what is to be stored.
            apart: calls what may block on the log's own connections, without stopping other greenlets.
        """
        self._refuse_to_block()
        self._check(events, own=False)
        log = self._transactional()
        apart(self._log.open)
        log.store_in(connection, events)

    async def publish_in_async(self, connection: Any, events: Sequence[Event]) -> None:
        """As ``publish_in``, for connections of coroutines."""
        self._check(events, own=False)
        await self._transactional().astore_in(connection, events)

    def _transactional(self) -> Transactional:
        if isinstance(self._log, Transactional):
            return self._log
        raise ConfigError(
            "publish(connection=…) needs a log in the database of that connection (postgresql://…); "
            f"{self._log.url} cannot join its transaction: publish once that is committed"
        )

    def _refuse_to_block(self) -> None:
        loop = self._loop()
        if loop is not None and asyncio._get_running_loop() is loop:
            raise WouldBlock(
                "publish() would block the event loop that serves the streams; nothing was stored: "
                "call 'await apublish(...)' here"
            )

    def _check(self, events: Sequence[Event], own: bool) -> None:
        if self.closed:
            raise Closed("Penstock is closed; nothing was stored")
        for event in events:
            if not isinstance(event, Event):
                raise InvalidEvent(f"an Event is published, not {event!r:.80}; nothing was stored")
            if not own:
                refuse_own(event.channel)
            event.check_size(self._options.max_event_bytes)

    def tick(self) -> None:
        """Remove what is not to be kept, if it is time."""
        self._trimmer.tick()

    @property
    def published(self) -> int:
        """Events stored by this process."""
        return self._appender.published

    def close(self) -> None:
        """Store no more."""
        self._appender.close()
        self._trimmer.close(timeout_s=TRIMMER_CLOSES_IN_S)
