"""Ties appender, tail, ring and fan-out together: one engine per process and log.

Publishing needs no thread and no loop. The first stream starts both: a loop, on which everything that
concerns all streams happens, and the tail. The loop is the only writer of the ring and of the audiences,
so they need no lock; other threads reach it through the inbox.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from penstock import greenlets, threads
from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Position
from penstock.core.record import Record
from penstock.core.rights import FREE, Rights
from penstock.core.stream import Closing, Stream
from penstock.core.wire import Entry
from penstock.engine.fanout import Fanout
from penstock.engine.inbox import Inbox, Moved, News
from penstock.engine.kicks import Kicks, Predicates
from penstock.engine.loop import new_loop, refuse_eventlet
from penstock.engine.origin import Origin, Wish, find_origin
from penstock.engine.patience import Patience
from penstock.engine.phrases import Failures, greeting
from penstock.engine.publisher import Publisher
from penstock.engine.pull import Pull
from penstock.engine.push import Connection, Outlet, Push
from penstock.engine.ring import Ring
from penstock.engine.stats import Stats
from penstock.engine.streams import Open, Streams, Timer
from penstock.engine.tail import Tail
from penstock.errors import (
    Closed,
    LogError,
    LogUnavailable,
    PenstockError,
)
from penstock.log.base import Log
from penstock.options import Options

logger = logging.getLogger("penstock")

SWEEP_S = 0.5  # how often keep-alives, life times and the retention are looked at
STOPPING_S = 0.1  # how often the server is asked whether it stops
START_TIMEOUT_S = 10.0  # a first stream waits no longer for the log
READERS = 2  # threads that read in the log for pushed streams; more would only wait for each other
APART = 4  # threads that do for greenlets what blocks, and tell users that a stream is over

P = ParamSpec("P")
T = TypeVar("T")


def _apart(
    method: Callable[Concatenate[Engine, P], T],
) -> Callable[Concatenate[Engine, P], T]:
    """A method that blocks: where greenlets are, a thread does it while the others go on."""

    @functools.wraps(method)
    def call(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return engine.apart(functools.partial(method, engine, *args, **kwargs))

    return call


class Engine:
    """Appends to a log, follows it, and fans out.

    Args:
        log: not opened yet; the engine closes it.
        options: the settings.
        predicates: those that streams may be kicked by.
    """

    def __init__(self, log: Log, options: Options, predicates: Predicates | None = None) -> None:
        self.log = log
        self.options = options
        self.ring = Ring(options.ring_events, options.ring_bytes)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.polls = 0  # answers that were bounded for want of a place
        self.failures = Failures(log.url)
        self.patience = Patience(options.keep_alive)
        self._publisher = Publisher(log, options, self._stored, lambda: self.loop)
        self._fanout = Fanout(options.keep_alive)
        self._streams = Streams(self._fanout, self.ring, options.stream_lifetime, self._call_later)
        self._inbox = Inbox(self._call_on_loop, self._take)
        self._tail = Tail(log, self.ring, self._inbox.put_and_wait, self._wake_all)
        self._readers = threads.Pool(READERS, "penstock-read")
        self._pool = threads.Pool(APART, "penstock-apart")
        known = Predicates() if predicates is None else predicates
        self._kicks = Kicks(log, self.ring, self._streams, known, self._readers)
        self._streams.was_kicked = self._kicks.heed
        self._outlet: Outlet | None = None
        self._stopping: Callable[[], bool] | None = None
        # All on the loop runs in a context of its own: streams would keep what apps put into a request's.
        self._context = contextvars.Context()
        self._mutex = threads.Lock()
        self._thread: threads.Thread | None = None
        self._closed = False

    # Publishing

    def publish(self, events: Sequence[Event]) -> list[Position]:
        """Store events, all or none, and return their positions. Blocks."""
        return self._publisher.publish(events)

    async def publish_async(self, events: Sequence[Event]) -> list[Position]:
        """As ``publish``, without blocking."""
        return await self._publisher.publish_async(events)

    def publish_in(self, connection: Any, events: Sequence[Event]) -> None:
        """Lay events into the transaction of a connection; see ``Transactional.store_in``. Blocks."""
        self._publisher.publish_in(connection, events, self.apart)

    async def publish_in_async(self, connection: Any, events: Sequence[Event]) -> None:
        """As ``publish_in``, for connections of coroutines."""
        await self._publisher.publish_in_async(connection, events)

    def kick(self, event: Event) -> Position:
        """Store a kick, as ``Predicates.kick`` makes it. Blocks."""
        return self._publisher.publish([event], own=True)[0]

    async def kick_async(self, event: Event) -> Position:
        """As ``kick``, without blocking."""
        return (await self._publisher.publish_async([event], own=True))[0]

    def _stored(self, records: list[Record]) -> None:
        if self.loop is not None:
            self._inbox.put(records)

    # Streams

    @_apart
    def start(self, door: str) -> None:
        """Start the loop and the tail, if they do not run yet.

        Args:
            door: what the streams leave through, for the log line.

        Raises:
            ConfigError: where eventlet has patched the threads.
        """
        refuse_eventlet()
        with self._mutex:
            if self._closed:
                raise Closed("Penstock is closed")
            if self._thread is not None:
                return
            # Whatever loop the server runs on: all that this one does is to watch descriptors.
            self.loop = self._context.run(new_loop)
            self._outlet = Outlet(self.loop, self._readers, self.failures, self.patience, self._streams.part)
            thread = threads.Thread(self._run, "penstock-engine")
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had now; the next stream tries again
                self.loop.close()
                self.loop = None
                raise
            self._thread = thread
            self._tail.start()
            if self._stopping is not None:
                self._call_on_loop(self._ask_whether_stopping)
        options = self.options
        logger.info(
            "streams from %s through %s; keep-alive %g s; ring of %d events, %d bytes at the most; kept: "
            "%s s, %s events, %s bytes",
            self.log.url, door, options.keep_alive, options.ring_events, options.ring_bytes,
            *options.retention,
        )  # fmt: skip

    @_apart
    def find_origin(self, subscription: Subscription, wish: Wish, last_event_id: str | None = None) -> Origin:
        """See ``origin.find_origin``. The engine must have been started. Blocks.

        Raises:
            LogError: if the log cannot be read now.
        """
        self._tail.looked.wait(START_TIMEOUT_S)
        known = self.ring.bounds
        if known is None:
            error = self._tail.error
            if isinstance(error, LogError):
                raise type(error)(*error.args) from error
            raise LogUnavailable(f"{self.log.url} did not answer in {START_TIMEOUT_S:g} s")
        return find_origin(self.log, known, subscription, wish, last_event_id)

    def open(
        self,
        subscription: Subscription,
        origin: Origin,
        wake: Callable[[], None],
        *,
        client: bool = True,
        rights: Rights = FREE,
    ) -> Pull:
        """Open a stream that its driver pulls; ``leave`` must be called when it is over.

        Args:
            subscription: what it follows.
            origin: where it begins.
            wake: see ``Pull``.
            client: whether a client is behind it, to which a drain must leave the time of a farewell.
            rights: the right to read it.
        """
        pull = self.detached(subscription, origin, wake, rights)
        pull.client = client
        if not self._call_on_loop(lambda: self._join(pull, rights)):
            pull.close(Closing.DRAINED)
        return pull

    def push(
        self, connection: Connection, subscription: Subscription, origin: Origin, rights: Rights = FREE
    ) -> None:
        """Serve a stream on a connection that is the engine's from now on, whatever happens.

        Args:
            connection: the client's; the head of the response has been sent.
            subscription: what it follows.
            origin: where it begins.
            rights: the right to read it.
        """
        assert self._outlet is not None, "the engine was not started"
        self.patience.begin_push(connection.fd)
        stream = Stream(self._fanout.shared(subscription), origin.position, origin.ended)
        push = Push(self.log, self.ring, stream, connection, self._outlet)
        first = greeting(origin, self.options.retry)

        def begin() -> None:
            if push.begin(first):
                self._join(push, rights)

        if not self._call_on_loop(begin):
            os.close(connection.fd)
            connection.over()

    def detached(
        self,
        subscription: Subscription,
        origin: Origin,
        wake: Callable[[], None],
        rights: Rights = FREE,
    ) -> Pull:
        """A stream that hears no news: it can be polled for what there is, no more."""
        stream = Stream(self._fanout.shared(subscription), origin.position, origin.ended)
        pull = Pull(self.log, self.ring, stream, wake)
        if rights.over(time.time()):
            pull.close(Closing.EXPIRED)
        return pull

    def leave(self, pull: Pull) -> None:
        """Forget a stream."""
        self._call_on_loop(lambda: self._streams.part(pull))

    def drain_when(self, stopping: Callable[[], bool]) -> None:
        """Drain as soon as the server around us says that it stops."""
        first = self._stopping is None
        self._stopping = stopping
        if first:
            self._call_on_loop(self._ask_whether_stopping)

    def begin_drain(self) -> None:
        """End all streams, and whoever comes from now on, without waiting for it."""
        if not self._call_on_loop(self._streams.drain):
            self._streams.draining = True

    # On the loop

    def _join(self, stream: Open, rights: Rights) -> None:
        assert self.loop is not None
        self._kicks.begin(self.loop)
        self._streams.join(stream, rights)

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        assert self.loop is not None
        return self.loop.call_later(delay_s, call)

    def _take(self, queued: list[News]) -> None:
        """Bring news into the ring, and fan it out at once."""
        entries: list[Entry] = []
        before = self.ring.head
        for news in queued:
            if isinstance(news, Moved):
                self.ring.move(*news)
                self._fanout.restart(news.head)  # who has not had the entries so far reads them in the log
                entries, before = [], news.head
                continue
            head = self.ring.head
            fresh = news if news[0].seq > head else news[head + 1 - news[0].seq :]
            # What does not directly follow, the tail will read in its turn.
            if fresh and fresh[0].seq == head + 1 and fresh[0].epoch == self.ring.epoch:
                entries += self.ring.append(fresh)
        self._fanout.turn(entries, before, time.monotonic())

    def _sweep(self) -> None:
        assert self.loop is not None
        self.loop.call_later(SWEEP_S, self._sweep)
        epoch = self.ring.epoch
        position = Position(epoch, self.ring.head) if epoch is not None else None
        self._fanout.sweep(position, time.monotonic())
        self._streams.end_old()
        self.patience.look()
        self._publisher.tick()

    def _ask_whether_stopping(self) -> None:
        assert self.loop is not None
        assert self._stopping is not None
        if self._streams.draining:
            return
        if self._stopping():
            logger.info("the server stops: draining %d streams", len(self._streams.open))
            self._streams.drain()
            return
        self.loop.call_later(STOPPING_S, self._ask_whether_stopping)

    def _run(self) -> None:
        assert self.loop is not None
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._sweep)
        try:
            self.loop.run_forever()
            self.loop.call_soon(self.loop.stop)  # whatever was queued while it stopped
            self.loop.run_forever()
        finally:
            self.loop.close()

    def _wake_all(self) -> None:
        """Called by the tail when the log went away or came back."""
        self._call_on_loop(self._fanout.wake)

    def _call_on_loop(self, call: Callable[[], None]) -> bool:
        """Let the loop call something. False if there is no loop, or no more."""
        if self.loop is None:
            return False
        try:
            self.loop.call_soon_threadsafe(call, context=self._context)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            return False
        return True

    # The whole

    def apart(self, call: Callable[[], T]) -> T:
        """Call what may block: where greenlets are, in a thread, while the others go on."""
        return greenlets.apart(self._pool, call)

    def call_apart(self, call: Callable[[], None]) -> None:
        """Let a thread call something that may block and does not raise. Returns at once."""
        if not self._pool.submit(call):
            call()

    @_apart
    def stats(self) -> Stats:
        """A snapshot. May block: the log is asked for its head."""
        streams = self._streams
        running = self.loop is not None
        lag: int | None = None
        if running:
            try:
                lag = max(0, self.log.bounds().head - self.ring.head)
            except PenstockError:
                lag = None
        return Stats(
            log_url=self.log.url,
            log_state=self._tail.state if running else "idle",
            streams=len(streams.open),
            audiences=len(self._fanout.audiences) - self._kicks.following,
            lagging=sum(stream.lagging for stream in streams.open),
            polls=self.polls,
            published=self._publisher.published,
            delivered=streams.delivered,
            bytes=streams.bytes,
            gaps=streams.gaps,
            ring_events=len(self.ring),
            ring_bytes=self.ring.bytes,
            tail_seq=self.ring.head if running and self.ring.bounds is not None else None,
            tail_lag=lag,
            draining=streams.draining,
        )

    @property
    def has_clients(self) -> bool:
        """Whether a stream is open that has a client."""
        return any(stream.client for stream in self._streams.open)

    @_apart
    def drain(self, timeout_s: float) -> bool:
        """End all streams, each with a reconnection time of its own, and open no more.

        Returns:
            Whether those that have a client were over in time.
        """
        self.begin_drain()
        begun: list[bool] = []  # by then who was handed over before is among the open streams
        if not self._call_on_loop(lambda: begun.append(True)):
            begun.append(True)
        deadline = time.monotonic() + timeout_s
        while waiting := not begun or self.has_clients:
            if time.monotonic() > deadline:
                break
            threads.sleep(0.005)
        return not waiting

    @_apart
    def close(self) -> None:
        """End everything that was started, and the log. Does nothing the second time."""
        with self._mutex:
            if self._closed:
                return
            self.drain(1.0)
            self._closed = self._publisher.closed = True
        self._call_on_loop(self._streams.cut_all)
        self._publisher.close()
        self._tail.stop()
        self._inbox.close()
        self._readers.close()
        self._pool.close()
        self.log.close()
        if self.loop is not None and self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2.0)
            self._tail.join(2.0)
