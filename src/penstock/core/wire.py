"""How records and Penstock's own notices look on the wire.

The format is that of the WHATWG HTML standard, section "Server-sent events". Values were checked when
the event was made, so nothing is checked or repaired here. Lines of data end at CR, LF or CRLF only:
U+2028, U+0085 and their like are ordinary characters to the standard and to us.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from penstock.core.position import Gap, Position
from penstock.core.record import Record

CONTENT_TYPE = "text/event-stream; charset=utf-8"
HEADERS = (
    ("Content-Type", CONTENT_TYPE),
    ("Cache-Control", "no-cache, no-transform"),  # no-transform: no hop may compress it
    ("X-Accel-Buffering", "no"),  # nginx sends each event as it comes
)

_LINE_END = re.compile("\r\n|\r|\n")


def encode_record(record: Record) -> bytes:
    """The block of one record: ``id``, ``event`` and ``retry`` if it has them, its lines of data."""
    lines = [f"id: {record.epoch}:{record.seq}\n"]
    if record.end:
        ended = json.dumps({"channel": record.channel})
        lines.append(f"event: penstock.end\ndata: {ended}\n\n")
        return "".join(lines).encode()
    if record.event is not None:
        lines.append(f"event: {record.event}\n")
    if record.retry is not None:
        lines.append(f"retry: {record.retry}\n")
    data = record.data
    if "\n" in data or "\r" in data:
        lines.extend(f"data: {line}\n" for line in _LINE_END.split(data))
        lines.append("\n")
    else:
        lines.append(f"data: {data}\n\n")
    return "".join(lines).encode()


def encode_retry(retry_ms: int) -> bytes:
    """The reconnection time; no block of its own: another must follow."""
    return b"retry: %d\n" % retry_ms


def encode_position(position: Position) -> bytes:
    """A position event: it reaches no listener that did not ask, and sets the client's last event id.

    It has an empty ``data`` line, because some clients take no id from a block without one.
    """
    return f"id: {position}\nevent: penstock.position\ndata: \n\n".encode()


def encode_gap(gap: Gap) -> bytes:
    """A gap notice. Its id is where the stream goes on, so the client learns both or neither."""
    notice = json.dumps({"reason": gap.reason.value, "after": gap.after, "resumes": str(gap.resumes)})
    return f"id: {gap.resumes}\nevent: penstock.gap\ndata: {notice}\n\n".encode()


def encode_revoked(reason: str) -> bytes:
    """A notice that nobody may read the stream any more. Its position comes with the farewell."""
    return f"event: penstock.revoked\ndata: {json.dumps({'reason': reason})}\n\n".encode()


def encode_error(message: str, position: Position | None = None) -> bytes:
    """An error notice.

    Args:
        message: what is told.
        position: what the client has, said back to it: where an answer begins with a notice that has no
            id, some clients (and the standard to the letter) forget theirs.
    """
    has = f"id: {position}\n" if position is not None else ""
    return f"{has}event: penstock.error\ndata: {json.dumps({'message': message})}\n\n".encode()


def encode_chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1); data is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


class Entry:
    """A record with its bytes, which are made once, when somebody first asks."""

    __slots__ = ("_chunk", "_wire", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._wire: bytes | None = None
        self._chunk: bytes | None = None

    @property
    def wire(self) -> bytes:
        """The record's block."""
        if self._wire is None:  # two threads may both make it: the bytes are the same
            self._wire = encode_record(self.record)
        return self._wire

    @property
    def chunk(self) -> bytes:
        """The record's block as a chunk of its own, so that a client that falls behind can stop after it."""
        if self._chunk is None:
            self._chunk = encode_chunk(encode_record(self.record) if self._wire is None else self._wire)
        return self._chunk


Item = Entry | Gap | Position  # what a stream is given: a record, a gap notice, a position event


class Block:
    """Items that leave together, joined once, however many streams they go to."""

    __slots__ = ("_chunks", "_wire", "items")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self._wire: bytes | None = None
        self._chunks: bytes | None = None

    @property
    def wire(self) -> bytes:
        """The bytes of all items, in order."""
        if self._wire is None:
            self._wire = b"".join(map(encode_item, self.items))
        return self._wire

    @property
    def chunks(self) -> bytes:
        """The same, each item as a chunk of its own."""
        if self._chunks is None:
            self._chunks = b"".join(map(encode_item_chunk, self.items))
        return self._chunks

    @property
    def events(self) -> int:
        """How many of the items are records."""
        return sum(isinstance(item, Entry) for item in self.items)


def encode_item(item: Item) -> bytes:
    """The bytes of one item."""
    if isinstance(item, Entry):
        return item.wire
    return encode_gap(item) if isinstance(item, Gap) else encode_position(item)


def encode_item_chunk(item: Item) -> bytes:
    """The bytes of one item, as a chunk."""
    return item.chunk if isinstance(item, Entry) else encode_chunk(encode_item(item))
