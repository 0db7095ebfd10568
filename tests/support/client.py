"""A client of server-sent events that does what an EventSource does, and tells what it saw.

with SSEClient(f"{server.url}/events?channel=chat", auto_reconnect=True) as client:
    client.wait_open()
    ...
    client.wait_for_messages(3)
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from penstock.core.parser import Message, Parser
from tests.support.wait import DEADLINE_S

_CONNECT_WITHIN_S = 20.0
_READ_BYTES = 65_536
_OWN_TYPES = "penstock."


class SSEClient:
    """A stream, read by a thread from the moment this is made.

    With ``auto_reconnect`` it comes back ``reconnect_delay_s`` after a connection was lost or
    refused, with its ``Last-Event-ID``. The pause is fixed, whatever ``retry`` says, so that tests
    are short. As an EventSource it stops for good at an answer that is no stream: 204, 404, 503.

    Attributes:
        received: all messages, in order, over all connections.
        messages: those that users published.
        notices: those of Penstock itself: positions, gaps, ends.
        last_event_id: what the next connection sends.
        retry_ms: the pause that the server last asked for.
        statuses: the HTTP status of each answer.
        headers: those of the last answer.
        errors: what broke connections, this client's own cuts aside.
    """

    def __init__(
        self,
        url: str,
        last_event_id: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        auto_reconnect: bool = False,
        reconnect_delay_s: float = 0.05,
    ) -> None:
        self.url = url
        self.received: list[Message] = []
        self.messages: list[Message] = []
        self.notices: list[Message] = []
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self.statuses: list[int] = []
        self.headers = http.client.HTTPMessage()
        self.errors: list[OSError | http.client.HTTPException] = []
        self._more_headers = dict(headers or {})
        self._auto_reconnect = auto_reconnect
        self._reconnect_delay_s = reconnect_delay_s
        self._given = 0  # messages that ``next`` has given
        self._changed = threading.Condition()  # guards all that the thread writes
        self._socket: socket.socket | None = None
        self._is_open = False
        self._is_done = False
        self._stop = threading.Event()
        self._thread = self._start()

    def wait_open(self, deadline_s: float = DEADLINE_S) -> Self:
        """Wait for this connection's first event: what is published from now on will come."""
        self._wait(lambda: self._is_open, deadline_s, "the first event of the stream")
        return self

    def wait_for_messages(self, count: int, deadline_s: float = DEADLINE_S) -> list[Message]:
        """Wait until users' messages are ``count`` or more, over all connections; give them all."""
        self._wait(lambda: len(self.messages) >= count, deadline_s, f"{count} messages")
        with self._changed:
            return list(self.messages)

    def wait_for_notice(self, event: str, deadline_s: float = DEADLINE_S) -> Message:
        """Wait for a notice of this type, and give the newest."""
        self._wait(lambda: event in {n.event for n in self.notices}, deadline_s, f"a {event}")
        with self._changed:
            return next(n for n in reversed(self.notices) if n.event == event)

    def wait_closed(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the server has ended this for good: it will not come back by itself."""
        self._wait(lambda: self._is_done, deadline_s, "the end of the stream")

    def next(self, timeout: float = DEADLINE_S) -> Message:
        """The next message of a user that this method has not given yet."""
        self._wait(lambda: len(self.messages) > self._given, timeout, "one more message")
        self._given += 1
        return self.messages[self._given - 1]

    def close(self) -> None:
        """Drop the connection without a word, as a tab that is closed; twice is fine."""
        self._stop.set()
        with self._changed:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the server was faster
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * _CONNECT_WITHIN_S)
        assert not self._thread.is_alive(), f"{self} does not end"

    def reconnect(self) -> None:
        """Drop the connection, and come back with the last event id."""
        self.close()
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        self._stop.clear()
        self._is_open = self._is_done = False
        thread = threading.Thread(target=self._run, name=f"SSEClient {self.url}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            while self._connect() and self._auto_reconnect:
                if self._stop.wait(self._reconnect_delay_s):
                    break
        finally:
            with self._changed:
                self._is_done = True
                self._changed.notify_all()

    def _connect(self) -> bool:
        """Follow one connection to its end; tell whether an EventSource would come back."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_CONNECT_WITHIN_S)
        try:
            connection.connect()
            connection.sock.settimeout(None)  # a stream may be silent for long
            with self._changed:
                if self._stop.is_set():
                    return False
                self._socket = connection.sock
            connection.request("GET", f"{parts.path or '/'}?{parts.query}", headers=self._headers())
            with connection.getresponse() as response:
                return self._follow(response)
        except (OSError, http.client.HTTPException) as error:
            with self._changed:
                if not self._stop.is_set():
                    self.errors.append(error)
            return True
        finally:
            with self._changed:
                self._socket = None
                self._is_open = False
            connection.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return headers | self._more_headers

    def _follow(self, response: http.client.HTTPResponse) -> bool:
        with self._changed:
            self.statuses.append(response.status)
            self.headers = response.headers
            self._changed.notify_all()
        if response.status != 200 or response.headers.get_content_type() != "text/event-stream":
            return False
        parser = Parser(self.last_event_id)
        while chunk := response.read1(_READ_BYTES):
            messages = parser.feed(chunk)
            with self._changed:
                self.last_event_id = parser.last_event_id
                self.retry_ms = self.retry_ms if parser.retry_ms is None else parser.retry_ms
                for message in messages:
                    self._is_open = True
                    self.received.append(message)
                    is_own = message.event.startswith(_OWN_TYPES)
                    (self.notices if is_own else self.messages).append(message)
                self._changed.notify_all()
        return True

    def _wait(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._is_done, deadline_s)
            if not condition():
                why = "it ended before" if self._is_done else f"not within {deadline_s:g} s"
                raise AssertionError(f"{what}: {why}; {self}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        newest = self.received[-1] if self.received else None
        return (
            f"<SSEClient {self.url} statuses={self.statuses[-5:]} errors={self.errors[-3:]} "
            f"messages={len(self.messages)} last_event_id={self.last_event_id!r} newest={newest}>"
        )
