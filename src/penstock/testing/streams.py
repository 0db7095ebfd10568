"""A stream in the hands of a test: one that waits with its thread, and one that is awaited.

Both do what ``penstock.testing.conversation`` says; here is only how each of them waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from types import TracebackType
from typing import Self, TypeVar
from wsgiref.headers import Headers

from penstock.testing.conversation import Conversation, Steps
from penstock.testing.faults import StreamOver, note_on
from penstock.testing.received import ReceivedEvent

T = TypeVar("T")


class _Stream:
    """What needs no waiting."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._talk}>"

    @property
    def status(self) -> int:
        """The status of the answer."""
        status = self._talk.exchange.status
        if status is None:
            raise RuntimeError(f"no answer came: {self._talk}")
        return status

    @property
    def headers(self) -> Headers:
        """The headers of the answer: ``headers["Content-Type"]``, in whatever case; None if missing."""
        return self._talk.exchange.headers

    @property
    def body(self) -> bytes:
        """All bytes of this connection that came so far. For answers that are no stream, and for a look."""
        return self._talk.exchange.body

    @property
    def closed(self) -> bool:
        """Whether the connection is over: the app ended the answer, or the client left."""
        return self._talk.closed

    @property
    def last_event_id(self) -> str:
        """The ``Last-Event-ID`` of the next request: that of the last event that was taken."""
        return self._talk.reader.last_event_id

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server asked for last; None if it never did."""
        return self._talk.reader.retry_ms


class EventStream(_Stream):
    """A stream of an app, as an EventSource sees it. ``Client.stream`` makes it.

    Every method that waits takes ``timeout``, in seconds; None means that of the client. What the app
    raises is raised here, by whichever method waits next, after the events that came before it. In a
    ``with`` block the connection is dropped at the end.
    """

    def __init__(self, talk: Conversation) -> None:
        super().__init__(talk)
        self._news = threading.Condition()
        talk.changed = self._wake
        self._do(talk.open())

    def next_event(self, timeout: float | None = None) -> ReceivedEvent:
        """Wait for the next event.

        Penstock's position events are passed over, unless the stream is ``raw``; its notices
        ``penstock.gap``, ``penstock.end`` and ``penstock.error`` are events like others.

        Raises:
            StreamTimeout: if none comes in time.
            StreamOver: if none will come.
        """
        return self._do(self._talk.next_event(timeout))

    def events(self, count: int, timeout: float | None = None) -> list[ReceivedEvent]:
        """Wait for so many events; the time is for all of them together."""
        return self._do(self._talk.events(count, timeout))

    def __iter__(self) -> Self:
        """All events, until the app ends the stream."""
        return self

    def __next__(self) -> ReceivedEvent:
        try:
            return self.next_event()
        except StreamOver:
            if self._talk.exhausted:
                raise StopIteration from None
            raise

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait for the app to end the stream and to be done with the request.

        Events that came before the end can still be taken.

        Raises:
            StreamTimeout: if it does not end in time.
        """
        self._do(self._talk.wait_closed(timeout))

    def drop(self, timeout: float | None = None) -> None:
        """Leave, as a tab that is closed, and wait for the app to notice and to let go. Twice is fine.

        Events that were not taken are lost with the connection, as if they had been on their way: the
        next connection does not say that they came.

        Raises:
            StreamTimeout: if the app does not notice in time.
        """
        self._do(self._talk.drop(timeout))

    def reconnect(self) -> Self:
        """Connect again, as an EventSource does, at once and with its ``Last-Event-ID``.

        A connection that is still there is dropped before. ``status`` and ``headers`` are then those of
        the new answer.
        """
        self._do(self._talk.reconnect())
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.drop()
        except Exception as late:
            if not note_on(error, late):
                raise

    def _wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _do(self, steps: Steps[T]) -> T:
        try:
            wait = next(steps)
            while True:
                with self._news:
                    happened = self._news.wait_for(wait.done, wait.seconds)
                wait = steps.send(happened)
        except StopIteration as over:
            result: T = over.value
            return result


class AsyncEventStream(_Stream):
    """As ``EventStream``, for coroutines. ``async with`` opens it and drops it, or ``await`` opens it."""

    def __init__(self, talk: Conversation) -> None:
        super().__init__(talk)
        self._news = asyncio.Event()
        self._opened = False
        talk.changed = self._news.set

    async def next_event(self, timeout: float | None = None) -> ReceivedEvent:
        """Wait for the next event: see ``EventStream.next_event``."""
        return await self._do(self._talk.next_event(timeout))

    async def events(self, count: int, timeout: float | None = None) -> list[ReceivedEvent]:
        """Wait for so many events: see ``EventStream.events``."""
        return await self._do(self._talk.events(count, timeout))

    def __aiter__(self) -> Self:
        """All events, until the app ends the stream."""
        return self

    async def __anext__(self) -> ReceivedEvent:
        try:
            return await self.next_event()
        except StreamOver:
            if self._talk.exhausted:
                raise StopAsyncIteration from None
            raise

    async def wait_closed(self, timeout: float | None = None) -> None:
        """Wait for the app to end the stream: see ``EventStream.wait_closed``."""
        await self._do(self._talk.wait_closed(timeout))

    async def drop(self, timeout: float | None = None) -> None:
        """Leave: see ``EventStream.drop``. An app that does not notice in time is cancelled."""
        await self._do(self._talk.drop(timeout))

    async def reconnect(self) -> Self:
        """Connect again: see ``EventStream.reconnect``."""
        await self._do(self._talk.reconnect())
        return self

    async def _open(self) -> Self:
        if not self._opened:
            self._opened = True
            await self._do(self._talk.open())
        return self

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.drop()
        except Exception as late:
            if not note_on(error, late):
                raise

    async def _do(self, steps: Steps[T]) -> T:
        try:
            wait = next(steps)
            while True:
                happened = True
                try:
                    async with asyncio.timeout(wait.seconds):
                        while not wait.done():
                            self._news.clear()
                            await self._news.wait()
                except TimeoutError:
                    happened = wait.done()
                wait = steps.send(happened)
        except StopIteration as over:
            result: T = over.value
            return result
