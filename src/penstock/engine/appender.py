"""Group commit: concurrent publishes become one append.

There is no thread of its own for callers that may block. Who comes while the log is busy joins a group; the
first of a group leads: it waits for the append before, then appends for all of them. So a lone publisher
pays for nothing but its own append, and many share each one. Coroutines and greenlets, which may not
block, share one thread that takes part as a caller among others.

Commits are short, so it is the switching of threads that costs. Two things keep groups large and switches
few. A leader waits a moment for those of the last group, who are likely to publish again; else the first
of them would commit alone and the others behind it. And those whose group is stored are woken one by the
other: woken all at once they would only queue for the GIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence

from penstock import greenlets, threads
from penstock.core.event import Event
from penstock.core.position import Position
from penstock.core.record import Record
from penstock.errors import AppendUnsure, Closed, LogFull, LogUnavailable
from penstock.log.base import Log

_Reply = asyncio.Future[list[Position]] | greenlets.Answer[list[Position]]

MAX_GROUP_EVENTS = 1_000  # bounds what the last of a group waits for
MAX_GROUP_CHARS = 4 * 1024 * 1024  # and the memory that the group takes
LINGER_S = 0.0002  # what woken threads need to come back; when they do not, a group is late by this
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5  # between tries while the log is away


class _Ticket:
    """One caller's events, and what became of them."""

    __slots__ = ("chars", "error", "events", "positions")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.chars = sum([len(event.data) for event in events])
        self.positions: list[Position] | None = None
        self.error: BaseException | None = None


class _Group:
    """Callers whose events are appended together. The first leads."""

    __slots__ = ("_chars", "_events", "complete", "done", "tickets")

    def __init__(self, leader: _Ticket) -> None:
        self.tickets = [leader]
        self._events = len(leader.events)
        self._chars = leader.chars
        self.complete = threads.Lock()  # released when as many have come as were expected
        self.done = threads.Lock()  # released when it is over: a turnstile, each lets the next pass
        self.complete.acquire()
        self.done.acquire()

    def takes(self, ticket: _Ticket) -> bool:
        """Add a ticket if there is room."""
        self._events += len(ticket.events)
        self._chars += ticket.chars
        if self._events > MAX_GROUP_EVENTS or self._chars > MAX_GROUP_CHARS:
            self.expect_no_more()
            return False
        self.tickets.append(ticket)
        return True

    def expect_no_more(self) -> None:
        """Let the leader wait no longer."""
        if self.complete.locked():
            self.complete.release()


class Appender:
    """Stores events in a log, in groups.

    Args:
        log: where to.
        stored: is told of new records, in the order of the log, before their publishers are.
        patience_s: for how long a caller tries again while the log is away.
    """

    def __init__(self, log: Log, stored: Callable[[list[Record]], None], patience_s: float) -> None:
        self._log = log
        self._stored = stored
        self._patience_s = patience_s
        self._mutex = threads.Lock()
        self._groups: list[_Group] = []  # whose turn has not come; the last one takes who comes now
        self._appending = threads.Lock()  # held by the leader whose turn it is
        self._expected = 1  # so many are likely to join the next group
        self._apart = _CallersApart(self)
        self.published = 0

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Store events, all or none. Blocks, but not the other greenlets of a greenlet.

        Returns:
            The position of each; once they are stored.

        Raises:
            LogUnavailable: not stored, though tried until patience was at its end.
            AppendUnsure: stored or not.
        """
        if greenlets.are_here():
            return self._apart.append_in_greenlet(events)
        deadline = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._append_once(events)
            except LogFull:
                raise
            except LogUnavailable:
                if time.monotonic() + pause_s > deadline:
                    raise
            threads.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def append_async(self, events: Sequence[Event]) -> list[Position]:
        """As ``append``, without blocking the caller's loop."""
        return await self._apart.append(events)

    def close(self) -> None:
        """End the thread that serves those who may not block, if there is one."""
        self._apart.close()

    def _append_once(self, events: Sequence[Event]) -> list[Position]:
        ticket = _Ticket(events)
        while ticket.positions is None and ticket.error is None:  # again if the leader was interrupted
            group = self._join(ticket)
            if group.tickets[0] is ticket:
                self._lead(group)
            else:
                self._wait(group, ticket)
        if ticket.error is not None:
            raise ticket.error
        assert ticket.positions is not None
        return ticket.positions

    def _join(self, ticket: _Ticket) -> _Group:
        with self._mutex:
            if not self._groups or not self._groups[-1].takes(ticket):
                self._groups.append(_Group(ticket))
            group = self._groups[-1]
            if len(group.tickets) >= self._expected:
                group.expect_no_more()
            return group

    def _wait(self, group: _Group, ticket: _Ticket) -> None:
        try:
            with group.done:
                pass
        except BaseException:  # KeyboardInterrupt: if it can still be helped, the event is not stored
            with self._mutex:
                if group in self._groups:
                    group.tickets.remove(ticket)
            raise

    def _lead(self, group: _Group) -> None:
        try:
            with self._appending:
                group.complete.acquire(timeout=LINGER_S)
                self._close_group(group)
                self._append_group(group.tickets)
                with self._mutex:
                    self._expected = len(group.tickets)
                    if self._groups:
                        self._expected += len(self._groups[-1].tickets)
        except BaseException:
            self._close_group(group)
            raise
        finally:
            group.done.release()

    def _close_group(self, group: _Group) -> None:
        """Let nobody join any more."""
        with self._mutex:
            if group in self._groups:
                self._groups.remove(group)

    def _append_group(self, group: list[_Ticket]) -> None:
        """Append all tickets at once; if one may spoil it for all, each by itself."""
        try:
            records = self._store(group)
        except Exception as error:
            apart = len(group) > 1 and _may_be_of_one(error)
            for ticket in group:
                ticket.error = error
            for ticket in group if apart else []:
                self._append_group([ticket])
        except BaseException as error:  # KeyboardInterrupt in the leader: nobody can say for the others
            for ticket in group:
                ticket.error = AppendUnsure(f"interrupted while storing: {error!r}")
            raise
        else:
            if records:
                self._stored(records)

    def _store(self, group: list[_Ticket]) -> list[Record]:
        events = [event for ticket in group for event in ticket.events]
        epoch, first, seqs, now = self._log.append(events)
        records: list[Record] = []
        for event, seq in zip(events, seqs, strict=True):
            if seq == first + len(records):
                records.append(Record.of(event, epoch, seq, now))
        start = 0
        for ticket in group:
            end = start + len(ticket.events)
            ticket.positions = [Position(epoch, seq) for seq in seqs[start:end]]
            ticket.error = None
            start = end
        self.published += len(records)
        return records


def _may_be_of_one(error: BaseException) -> bool:
    """Whether a single event of a group may be to blame: then the others are stored without it."""
    return isinstance(error, LogFull) or not isinstance(error, LogUnavailable | AppendUnsure)


class _CallersApart:
    """The one thread that appends for coroutines and greenlets, started by the first of them."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._mutex = threads.Lock()
        self._calls: deque[tuple[Sequence[Event], _Reply]] = deque()
        self._some = threads.Queue()  # holds something for each call
        self._thread: threads.Thread | None = None
        self._closed = False

    async def append(self, events: Sequence[Event]) -> list[Position]:
        future: asyncio.Future[list[Position]] = asyncio.get_running_loop().create_future()
        self._put(events, future)
        return await future

    def append_in_greenlet(self, events: Sequence[Event]) -> list[Position]:
        answer: greenlets.Answer[list[Position]] = greenlets.Answer()
        self._put(events, answer)
        return answer.wait()

    def close(self) -> None:
        with self._mutex:
            self._closed = True
        self._some.put(True)

    def _put(self, events: Sequence[Event], reply: _Reply) -> None:
        with self._mutex:
            if self._closed:
                raise Closed("Penstock is closed; the event was not stored")
            self._calls.append((events, reply))
            if self._thread is None:
                self._thread = threads.Thread(self._run, "penstock-append")
                self._thread.start()
        self._some.put(True)

    def _run(self) -> None:
        while True:
            self._some.get()
            group = []
            size = 0
            while self._calls and size < MAX_GROUP_EVENTS:
                group.append(self._calls.popleft())
                size += len(group[-1][0])
            if group:
                self._append(group)
            elif self._closed:
                return

    def _append(self, group: list[tuple[Sequence[Event], _Reply]]) -> None:
        try:
            positions = self._appender.append([event for events, _ in group for event in events])
        except BaseException as error:
            if len(group) > 1 and _may_be_of_one(error):
                for call in group:
                    self._append([call])
                return
            _answer([(reply, error) for _, reply in group])
            return
        start = 0
        answers: list[tuple[_Reply, list[Position] | BaseException]] = []
        for events, reply in group:
            answers.append((reply, positions[start : start + len(events)]))
            start += len(events)
        _answer(answers)


def _answer(answers: Sequence[tuple[_Reply, list[Position] | BaseException]]) -> None:
    """Complete futures, with one wake-up for each loop or hub."""
    Futures = list[tuple[asyncio.Future[list[Position]], list[Position] | BaseException]]
    by_loop: dict[asyncio.AbstractEventLoop, Futures] = {}
    for reply, answer in answers:
        if isinstance(reply, asyncio.Future):
            by_loop.setdefault(reply.get_loop(), []).append((reply, answer))
        elif isinstance(answer, BaseException):
            reply.give(None, answer)
        else:
            reply.give(answer)

    def complete(futures: Futures) -> None:
        for future, answer in futures:
            if future.done():  # cancelled meanwhile; the events are stored all the same
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(complete, futures)
