"""One message of the stream: what it says, and under which subject it lies.

The first line of its payload is ASCII, so that ``nats stream view`` shows it to people too::

    penstock 1 k3v9x2ab 0f3a… 77c1… 41 0 42 3 1767225600.25 9120 0 0

It says everything about the log up to and with this message, so the newest one alone tells its state.
What follows is JSON: a row for each event.

Most messages carry events. Some carry none: one that begins a log or an epoch or hides what was trimmed;
and the **signposts**, which lie under the subject of a key or a channel and point to the message with its
event. They make JetStream's index of subjects ours. An append of one channel without keys needs none.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.errors import LogCorrupt, NotALog, SchemaTooNew

SCHEMA_VERSION = 1
_MAGIC = b"penstock"
MESSAGE_BYTES = 150  # what the server keeps of a message beside its payload, about
_NOBODY = "-"  # in place of the id of a message that is not there


class Entry(NamedTuple):
    """A message, and the state of the log with it.

    Attributes:
        epoch: the epoch from this message on.
        id: random, the same for all messages of an append; by it two messages in one place are told apart.
        before: the id of the message that precedes all of this append.
        place: its sequence in the stream.
        trimmed: records up to this one are hidden.
        first: the seq of its first record, or of the next if it has none.
        events: how many records it has.
        time: what they carry.
        size: that of all messages before it, since the log began.
        signposts: how many of its own precede it.
        left: of a signpost, how many places ahead the message with the event lies; else 0.
        body: the rows of its events.
    """

    epoch: str
    id: str
    before: str
    place: int
    trimmed: int
    first: int
    events: int
    time: float
    size: int
    signposts: int
    left: int
    body: bytes

    @property
    def head(self) -> int:
        """The seq of the newest record up to here."""
        return self.first + self.events - 1

    @property
    def end_size(self) -> int:
        """The size of all up to here. What has no events, but is no signpost, counts as nothing."""
        if not self.events and not self.left:
            return self.size
        return self.size + MESSAGE_BYTES + len(self._line()) + len(self.body)

    def is_next_to(self, other: Entry) -> bool:
        """Whether it lies directly behind another, but for its own signposts."""
        return self.place - self.signposts - 1 == other.place

    def follows(self, other: Entry) -> bool:
        """Whether it was written to follow another."""
        return self.is_next_to(other) and self.before == other.id

    def next(
        self,
        now: float,
        *,
        own: str = "",
        epoch: str = "",
        trimmed: int = 0,
        events: int = 0,
        signposts: int = 0,
        left: int = 0,
        body: bytes = b"",
    ) -> Entry:
        """The entry that is to follow this one; what is not said stays as it is, or is nothing."""
        return Entry(
            epoch or self.epoch,
            own or new_id(),
            self.before if own and own == self.id else self.id,
            self.place + 1,
            max(trimmed, self.trimmed),
            self.head + 1,
            events,
            now,
            self.end_size,
            signposts,
            left,
            body,
        )

    def payload(self) -> bytes:
        """The message's bytes."""
        return self._line() + self.body

    def _line(self) -> bytes:
        return b"%s %d %s\n" % (_MAGIC, SCHEMA_VERSION, " ".join(map(str, self[:-1])).encode())

    def records(self, epoch: str, after: int) -> list[Record]:
        """Its records that follow a seq, as those of an epoch.

        Raises:
            LogCorrupt: if they cannot be read.
        """
        if not self.events:
            return []
        try:
            rows = json.loads(self.body)
            records = [Record(epoch, seq, self.time, *row) for seq, row in enumerate(rows, self.first)]
        except (TypeError, ValueError) as error:
            raise LogCorrupt(f"the events in message {self.place} of the stream cannot be read") from error
        return records[max(0, after + 1 - self.first) :]


def new_id() -> str:
    """A name for a message: 64 random bits."""
    return secrets.token_hex(8)


def begin(place: int, epoch: str, now: float) -> Entry:
    """The first message of a log."""
    return Entry(epoch, new_id(), _NOBODY, place, 0, 1, 0, now, 0, 0, 0, b"")


def read_entry(payload: bytes, place: int | None = None) -> Entry:
    """The entry of a message's bytes.

    Args:
        payload: the bytes.
        place: where the message lies, if the server said so.

    Raises:
        NotALog: if it is somebody else's.
        SchemaTooNew: if a newer Penstock wrote it.
    """
    line, _, body = payload.partition(b"\n")
    fields = line.split(b" ")
    if fields[0] != _MAGIC or len(fields) < 2 or not fields[1].isdigit():
        which = "a message" if place is None else f"message {place}"
        raise NotALog(f"{which} of the stream is not of Penstock; nothing was touched")
    if int(fields[1]) > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the stream has schema version {int(fields[1])}, this Penstock knows up to "
            f"{SCHEMA_VERSION}; upgrade Penstock: the log was left as it is"
        )
    try:
        epoch, own, before, at, trimmed, first, count, now, size, signposts, left = (
            field.decode() for field in fields[2:]
        )
        entry = Entry(
            epoch, own, before, int(at), int(trimmed), int(first), int(count), float(now), int(size),
            int(signposts), int(left), body,
        )  # fmt: skip
    except ValueError as error:
        raise LogCorrupt(f"a message of the stream cannot be read: {line[:200]!r}") from error
    if place is not None and entry.place != place:
        raise LogCorrupt(
            f"message {place} of the stream was written for place {entry.place}: messages were copied from "
            "another stream, which makes no log; restore a backup of the whole stream instead"
        )
    return entry


def encode(events: Iterable[Event]) -> bytes:
    """The rows of events; most have a channel and data alone."""
    rows: list[Sequence[str | int | None]] = [
        (event.channel, event.data)
        if event.event is None and event.retry is None and event.key is None and not event.end
        else (event.channel, event.data, event.event, event.retry, event.key, event.end)
        for event in events
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()


class Subjects:
    """The subjects of a log.

    Args:
        prefix: what all begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._events, self._channels, self._keys = f"{prefix}.log", f"{prefix}.channel", f"{prefix}.key"
        self.stored = f"{prefix}.stored.>"  # where JetStream tells of what it stored
        self.log = f"{self._events}.>"  # all but signposts
        self.state = f"{self._events}.=state"  # what has no events; no channel is encoded so
        self.all = [self.log, f"{self._channels}.>", f"{self._keys}.*"]

    def events(self, channel: str) -> str:
        """Where a message with events lies, of which the first is of this channel."""
        return f"{self._events}.{_tokens(channel)}"

    def channel(self, name: str) -> str:
        """Where signposts to other events of a channel lie."""
        return f"{self._channels}.{_tokens(name)}"

    def of_channel(self, name: str) -> list[str]:
        """Where all that leads to events of a channel lies."""
        return [self.events(name), self.channel(name)]

    def of_pattern(self, pattern: str) -> list[str]:
        """Filters that find at least all that leads to what a pattern covers."""
        literal = pattern[: pattern.index("*")].rstrip("/")
        if not literal:
            return [self.log]  # all events are there
        return [subject + more for subject in self.of_channel(literal) for more in ("", ".>")]

    def key(self, channel: str, key: str) -> str:
        """Where a signpost to the event of a key lies."""
        digest = blake2b(f"{channel}\0{key}".encode(), digest_size=16)  # no two meet by chance
        return f"{self._keys}.{digest.hexdigest()}"


@lru_cache(maxsize=16_384)
def _tokens(channel: str) -> str:
    """``room/7`` is ``room.7``; what NATS would understand otherwise is %-encoded."""
    return ".".join(quote(segment, safe="").replace(".", "%2E") for segment in channel.split("/"))
