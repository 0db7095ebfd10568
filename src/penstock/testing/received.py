"""What an EventSource makes of the bytes of its connections: events, its last event id, its pause.

An event counts when the test takes it. What was not taken when the connection broke is thrown away, as if
it had been lost on the way, and the next request asks for it again: a test that passes has seen the server
replay it.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from penstock.core.parser import Message, Parser

POSITION = "penstock.position"
_ID_ALONE = ""  # no event has this type: a block with an id and without data, which is none
_PASSED_OVER = (POSITION, _ID_ALONE)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as an EventSource gives it to its listeners.

    Attributes:
        event: the type, ``message`` if the server named none.
        data: its data.
        id: the last event id as of this event, at Penstock's streams its position.
    """

    event: str
    data: str
    id: str

    def json(self) -> Any:
        """The data, decoded.

        Raises:
            ValueError: if it is no JSON.
        """
        try:
            return json.loads(self.data)
        except ValueError as error:
            error.add_note(f"in {self}")
            raise


class Reader:
    """Reads one connection after the other.

    Args:
        last_event_id: what the client has before its first connection.
        raw: whether position events are given too.

    Attributes:
        last_event_id: that of the last event that was taken.
        retry_ms: the reconnection time that the server asked for last.
        count: how many events were taken.
        newest: the last of them.
    """

    def __init__(self, last_event_id: str, raw: bool) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self.count = 0
        self.newest: ReceivedEvent | None = None
        self._raw = raw
        self._parser = Parser()
        self._waiting: deque[Message] = deque()  # not taken yet

    def connect(self) -> None:
        """Begin with another connection."""
        self._parser = Parser(self.last_event_id)
        self._waiting.clear()

    @property
    def waiting(self) -> bool:
        """Whether there are events, or positions, that were not taken."""
        return bool(self._waiting)

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of this connection."""
        for line in chunk.splitlines(keepends=True):
            before = self._parser.last_event_id
            messages = self._parser.feed(line)
            self._waiting.extend(messages)
            if not messages and self._parser.last_event_id != before:
                self._waiting.append(Message(_ID_ALONE, "", self._parser.last_event_id))
        if self._parser.retry_ms is not None:
            self.retry_ms = self._parser.retry_ms

    def take(self) -> ReceivedEvent | None:
        """The next event; None if there is none yet."""
        while self._waiting:
            message = self._waiting.popleft()
            self.last_event_id = message.id
            if message.event not in _PASSED_OVER or (self._raw and message.event == POSITION):
                self.count += 1
                self.newest = ReceivedEvent(message.event, message.data, message.id)
                return self.newest
        return None

    def skim(self) -> None:
        """Take the positions before the next event: nobody waits for them, but they count."""
        while self._waiting and self._waiting[0].event in _PASSED_OVER:
            self.last_event_id = self._waiting.popleft().id
