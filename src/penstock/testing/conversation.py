"""What an EventSource does, request after request, without any waiting of its own.

Each deed is a generator: where it must wait, it yields a ``Wait`` and is sent whether that came true in
time. A thread and a coroutine wait in different ways; what they wait for, and all that follows from it, is
the same and stands here once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

from penstock.testing.exchange import Call, Exchange
from penstock.testing.faults import StreamOver, StreamTimeout
from penstock.testing.received import Reader, ReceivedEvent
from penstock.testing.request import Request

T = TypeVar("T")

GRACE_S = 1.0  # for an app to stop, when the test has failed already
_SHOWN_BYTES = 300
_SEND_AT_ONCE = (
    ": a stream should begin with something, a comment for one, since many servers send the headers with the "
    "first bytes and a browser's 'open' waits for them (wait_open=False does not wait)"
)


class Wait(NamedTuple):
    """What a deed waits for, and how many seconds at the most."""

    done: Callable[[], bool]
    seconds: float


Steps = Generator[Wait, bool, T]


class _Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        return max(0.0, self._at - time.monotonic())


class Conversation:
    """A client and its stream, over all its connections.

    Args:
        request: the first request, and but for the event id all that follow.
        reader: reads the answers.
        call: lets the app begin to answer.
        wait_open: whether a connection is open only when its first bytes have come.
        timeout_s: how long each wait takes at the most, where nothing else is said.

    Attributes:
        changed: wakes whoever waits; called in any thread.
        reader: what was read so far.
    """

    def __init__(
        self,
        request: Request,
        reader: Reader,
        call: Callable[[Exchange], Call],
        *,
        wait_open: bool,
        timeout_s: float,
    ) -> None:
        self.changed: Callable[[], None] = _nothing
        self.reader = reader
        self._request = request
        self._call_app = call
        self._wait_open = wait_open
        self._timeout_s = timeout_s
        self._exchange: Exchange | None = None
        self._call: Call | None = None  # None when nothing of it is left
        self._told = False  # whether the test knows what broke this connection

    # What is known without waiting

    @property
    def exchange(self) -> Exchange:
        """The present request and its answer."""
        if self._exchange is None:
            raise RuntimeError("the stream is not open yet: 'async with' opens it, or 'await'")
        return self._exchange

    @property
    def closed(self) -> bool:
        """Whether the connection is over, whoever ended it."""
        exchange = self.exchange
        return exchange.ended or exchange.left

    @property
    def exhausted(self) -> bool:
        """Whether the app ended the stream, and all of it was given."""
        exchange = self.exchange
        return (
            self._is_legible
            and exchange.ended
            and not (exchange.left or exchange.unread or self.reader.waiting)
        )

    def __str__(self) -> str:
        if self._exchange is None:
            return f"{self._request}, not open yet"
        exchange = self._exchange
        state = "left" if exchange.left else "ended" if exchange.ended else "open"
        taken = f"{self.reader.count} events taken, last_event_id={self.reader.last_event_id!r}"
        return f"{exchange}, {state}, {taken}"

    # Deeds

    def open(self) -> Steps[None]:
        """Send the request, and wait until the stream is open."""
        self.reader.connect()
        self._told = False
        request = self._request.coming_back(self.reader.last_event_id)
        exchange = self._exchange = Exchange(request, lambda: self.changed())
        self._call = self._call_app(exchange)

        def answered() -> bool:
            return exchange.ended or exchange.status is not None

        def opened() -> bool:
            return exchange.ended or exchange.unread

        deadline = _Deadline(self._timeout_s)
        try:
            yield from self._await(answered, deadline, "no answer came")
            if exchange.status is None:
                self._raise_error()
            elif self._wait_open and request.method != "HEAD":
                if self._is_event_stream:
                    yield from self._await(opened, deadline, "no first bytes came", _SEND_AT_ONCE)
                else:
                    yield from self._take_whole(deadline)
        except Exception:
            yield from self._let_go()
            raise

    def next_event(self, timeout_s: float | None) -> Steps[ReceivedEvent]:
        """Wait for the next event."""
        return (yield from self._next_event(self._deadline(timeout_s), "no event came"))

    def events(self, count: int, timeout_s: float | None) -> Steps[list[ReceivedEvent]]:
        """Wait for so many events."""
        deadline = self._deadline(timeout_s)
        found: list[ReceivedEvent] = []
        while len(found) < count:
            what = f"{len(found)} of {count} events came"
            found.append((yield from self._next_event(deadline, what)))
        return found

    def wait_closed(self, timeout_s: float | None) -> Steps[None]:
        """Wait for the app to end the stream, and to be done with the request."""
        deadline = self._deadline(timeout_s)
        exchange, call = self.exchange, self._call
        while call is not None and not (call.over and not exchange.unread):
            while self._read():
                pass  # the app may be waiting for room
            what = "the app did not come back" if exchange.ended else "the app did not end the stream"
            yield from self._await(lambda: exchange.unread or call.over, deadline, what)
        self._reap()
        self._raise_error()

    def drop(self, timeout_s: float | None) -> Steps[None]:
        """Leave, and wait for the app to notice."""
        deadline = self._deadline(timeout_s)
        exchange, call = self._exchange, self._call
        if exchange is None or call is None:
            return
        self._skim()
        self._leave()
        if not (yield Wait(lambda: call.over, deadline.remaining)):
            where = call.where()
            over = yield from self._let_go(asked=True)
            now = "it was cancelled" if over else "here it still does"
            raise StreamTimeout(
                f"the client left, and {deadline.seconds:g} s later the app was still at work; on a server "
                f"it would hold a thread or a task as long ({now})\n{self}{where}"
            )
        self._reap()
        self._raise_error()

    def reconnect(self) -> Steps[None]:
        """Drop the connection if it is still there, and send the request again, with the last event id."""
        yield from self.drop(None)
        yield from self.open()

    # Steps of these

    def _deadline(self, timeout_s: float | None) -> _Deadline:
        return _Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _await(self, done: Callable[[], bool], deadline: _Deadline, what: str, why: str = "") -> Steps[None]:
        exchange, call = self.exchange, self._call

        def broken() -> bool:
            return exchange.fault is not None and not self._told

        happened = yield Wait(lambda: done() or broken(), deadline.remaining)
        self._raise_fault()
        if not happened:
            where = call.where() if call is not None else ""
            raise StreamTimeout(f"{what} within {deadline.seconds:g} s{why}{self._so_far()}{where}")

    def _next_event(self, deadline: _Deadline, what: str) -> Steps[ReceivedEvent]:
        exchange = self.exchange
        while True:
            self._raise_fault()
            if exchange.left:
                raise StreamOver(f"the client has left this stream, and reconnect() opens it again; {self}")
            if (event := self._take()) is not None:
                return event
            if exchange.ended and not exchange.unread:
                self._raise_error()
                raise StreamOver(self._why_over())
            yield from self._await(lambda: exchange.unread or exchange.ended, deadline, what)

    def _leave(self) -> None:
        exchange, call = self.exchange, self._call
        if call is not None and not call.over:
            exchange.left = True
            call.leave()

    def _take_whole(self, deadline: _Deadline) -> Steps[None]:
        """An answer that is no event stream has an end."""
        exchange = self.exchange
        while not exchange.ended:
            while self._read():
                pass
            what = "the end of an answer that is no event stream did not come"
            yield from self._await(lambda: exchange.unread or exchange.ended, deadline, what)

    def _let_go(self, *, asked: bool = False) -> Steps[bool]:
        """Leave, by force if need be, and look back no more: what is told is what went before.

        Returns:
            Whether nothing is left of the call.
        """
        self._leave()
        call, self._call = self._call, None
        if call is None:
            return True
        over: bool = not asked and (yield Wait(lambda: call.over, GRACE_S))
        if not over and call.abandon():
            over = yield Wait(lambda: call.over, GRACE_S)
        if over:
            call.reap()
        return over

    def _reap(self) -> None:
        if self._call is not None:
            self._call.reap()
            self._call = None

    def _take(self) -> ReceivedEvent | None:
        """The next event of what has come."""
        while (event := self.reader.take()) is None:
            if not self._read():
                return None
        return event

    def _skim(self) -> None:
        """Take the positions that have come before the next event."""
        self.reader.skim()
        while not self.reader.waiting and self._read():
            self.reader.skim()

    def _read(self) -> bool:
        """Read some of what has come; False if there is no more."""
        chunk = self.exchange.take()
        if chunk is not None and self._is_legible:
            self.reader.feed(chunk)
        return chunk is not None

    @property
    def _is_event_stream(self) -> bool:
        """Whether an EventSource would take this answer."""
        exchange = self.exchange
        kind = (exchange.headers["Content-Type"] or "").partition(";")[0].strip().lower()
        return exchange.status == 200 and kind == "text/event-stream"

    @property
    def _is_legible(self) -> bool:
        """Whether this client can read it."""
        packed = self.exchange.headers["Content-Encoding"] or "identity"
        return self._is_event_stream and packed.lower() == "identity"

    # What is told

    def _raise_fault(self) -> None:
        fault = self.exchange.fault
        if fault is not None and not self._told:
            self._told = True
            raise fault

    def _raise_error(self) -> None:
        """Raise what the app raised, once. Whatever follows a fault was told with it."""
        self._raise_fault()
        error = self.exchange.error
        if error is not None and not self._told:
            self._told = True
            error.add_note(f"raised by the app while it answered {self.exchange.request}")
            raise error

    def _why_over(self) -> str:
        exchange = self.exchange
        if exchange.request.method == "HEAD":
            return f"a HEAD brings no events; {exchange}"
        if self._is_legible:
            return f"the app has ended the stream{self._so_far()}"
        packed = exchange.headers["Content-Encoding"]
        if packed is not None:
            return f"the events are packed with {packed!r}, which this client does not unpack; {exchange}"
        return f"this is no event stream, and an EventSource would give up{self._so_far()}"

    def _so_far(self) -> str:
        """What came, as further lines of a message."""
        lines = ["", str(self)]
        if self.reader.newest is not None:
            lines.append(f"the last event: {self.reader.newest}")
        body = self.exchange.body
        if len(body) > _SHOWN_BYTES:
            lines.append(f"{len(body)} bytes, the last: {body[-_SHOWN_BYTES:]!r}")
        else:
            lines.append(f"the bytes: {body!r}")
        return "\n".join(lines)


def _nothing() -> None:
    pass
