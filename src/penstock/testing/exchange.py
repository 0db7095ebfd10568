"""One request and what it brought so far: between an app that writes it and a test that reads it.

The two may be in different threads. Each attribute has one side that writes it, writes come before the
wake-up, and a deque is safe with one thread at each end; so there is no lock. Nobody waits here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol
from wsgiref.headers import Headers

from penstock.testing.faults import ProtocolFault
from penstock.testing.request import Request

HIGH_WATER = 64 * 1024  # bytes that an app may be ahead of its client, as with a server and its sockets


class Call(Protocol):
    """An app at work on a request."""

    @property
    def over(self) -> bool:
        """Whether the app has come back, and nothing of it is left."""

    def leave(self) -> None:
        """Tell the app that its client has left. Does not wait."""

    def abandon(self) -> bool:
        """Stop an app that does not end. Does not wait.

        Returns:
            Whether anything could be done.
        """

    def reap(self) -> None:
        """Clear away what is left of a call that is over."""

    def where(self) -> str:
        """The lines of code where the app is now; empty where that cannot be seen."""


class Exchange:
    """A request and its answer.

    Args:
        request: what was asked.
        changed: called, in the app's thread, when there is news.

    Attributes:
        status: of the answer; None before it began.
        reason: what stands behind the status; ASGI has none.
        headers: of the answer.
        ended: whether the app has ended the answer, well or not.
        left: whether the client has left.
        error: what the app raised.
        fault: the first rule that the app broke.
        freed: called, in the test's thread, when the app may send more.
    """

    def __init__(self, request: Request, changed: Callable[[], None]) -> None:
        self.request = request
        self.status: int | None = None
        self.reason = ""
        self.headers = Headers([])
        self.ended = False
        self.left = False
        self.error: BaseException | None = None
        self.fault: ProtocolFault | None = None
        self.freed: Callable[[], None] = _nothing
        self._changed = changed
        self._body: list[bytes] = []  # all that came
        self._unread: deque[bytes] = deque()
        self._came = self._read = 0  # bytes

    def __str__(self) -> str:
        answer = "no answer yet"
        if self.status is not None:
            answer = " ".join(filter(None, [str(self.status), self.reason, self.headers["Content-Type"]]))
        return f"{self.request} → {answer}"

    # The app's side

    def begin(self, status: int, reason: str, headers: Iterable[tuple[str, str]]) -> None:
        """The status and the headers."""
        self.reason = reason
        self.headers = Headers(list(headers))
        self.status = status
        self._changed()

    def bring(self, chunk: bytes) -> None:
        """Bytes of the body. What a HEAD brings is thrown away, as servers do."""
        self._came += len(chunk)
        if chunk and self.request.method != "HEAD":
            self._body.append(chunk)
            self._unread.append(chunk)
            self._changed()

    def end(self, error: BaseException | None = None) -> None:
        """The answer is over."""
        if error is not None:
            self.error = error
        self.ended = True
        self._changed()

    def refuse(self, fault: ProtocolFault) -> None:
        """Note that a rule was broken. The test is told, whatever the app makes of it."""
        if self.fault is None:
            self.fault = fault
        self._changed()

    @property
    def full(self) -> bool:
        """Whether the app must wait for its client to read."""
        return self._came - self._read > HIGH_WATER

    # The test's side

    @property
    def body(self) -> bytes:
        """All that came, whether it was taken or not."""
        return b"".join(self._body)

    @property
    def unread(self) -> bool:
        """Whether there are bytes to take."""
        return bool(self._unread)

    def take(self) -> bytes | None:
        """The next bytes; None if there are none now."""
        if not self._unread:
            return None
        chunk = self._unread.popleft()
        self._read += len(chunk)
        self.freed()
        return chunk


def _nothing() -> None:
    pass
