"""An incremental parser of server-sent events: bytes in any cut in, messages out.

It follows the WHATWG HTML standard, "Interpreting an event stream": UTF-8 with replacement, one leading
BOM dropped, lines that end at CRLF, CR or LF, an id with NUL ignored, a retry of ASCII digits only, a
block without data dispatched to nobody but its id kept, an incomplete block at the end dropped.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

MAX_BLOCK_CHARS = 16 * 1024 * 1024  # a server that never ends a block must not fill the memory

_LINE_END = re.compile("\r\n|\r|\n")
_RETRY = re.compile("[0-9]{1,10}", re.ASCII)  # more digits are no pause that anybody waits for


class Message(NamedTuple):
    """What an EventSource would dispatch.

    Attributes:
        event: the type, ``message`` if the block named none.
        data: the lines of data, joined by LF.
        id: the last event id as of this message.
    """

    event: str
    data: str
    id: str


class Parser:
    """Turns bytes into messages.

    Attributes:
        last_event_id: what a client sends as ``Last-Event-ID`` when it comes back.
        retry_ms: the reconnection time the server asked for, None if it did not.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True
        self._skip_lf = False  # the last piece ended with CR: an LF that follows belongs to it
        self._partial: list[str] = []  # pieces of the line that is not complete yet
        self._held = 0  # characters of the unfinished block, its unfinished line included
        self._data: list[str] = []
        self._event = ""
        self._id = last_event_id

    def feed(self, chunk: bytes) -> list[Message]:
        """Take the next bytes.

        Returns:
            The messages that these bytes completed.

        Raises:
            ValueError: if a block grows over ``MAX_BLOCK_CHARS``.
        """
        text = self._decoder.decode(chunk)
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        if self._skip_lf and text:
            self._skip_lf = False
            text = text.removeprefix("\n")
        if not text:
            return []
        messages: list[Message] = []
        start = 0
        for end in _LINE_END.finditer(text):
            self._partial.append(text[start : end.start()])
            line, self._partial = "".join(self._partial), []
            self._held += end.start() - start
            start = end.end()
            if line:
                self._take_line(line)
            else:
                self._dispatch(messages)
        if start < len(text):
            self._partial.append(text[start:])
            self._held += len(text) - start
        elif text.endswith("\r"):
            self._skip_lf = True
        if self._held > MAX_BLOCK_CHARS:
            raise ValueError(f"a block of over {MAX_BLOCK_CHARS} characters has no end")
        return messages

    def _take_line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and _RETRY.fullmatch(value):
            self.retry_ms = int(value)

    def _dispatch(self, messages: list[Message]) -> None:
        self.last_event_id = self._id
        if self._data:
            messages.append(Message(self._event or "message", "\n".join(self._data), self.last_event_id))
        self._data, self._event, self._held = [], "", 0
