"""Makes the messages of an append: one with the events, and before it signposts to it.

**Keys.** A signpost to the event of a key lies under the subject of that key; so the newest message of that
subject tells whether the key is taken. It is asked about after the newest message of the
whole stream, and the append is stored only if that one is still the newest: nobody can have stored the key
in between. Most keys are new. So the first try does not ask at all, but lets JetStream refuse a message whose
subject has one already (``Nats-Expected-Last-Subject-Sequence: 0``); that costs nothing.

A signpost counts only if the message that it points to has the key. The chain of an append is stored without
anything in between, or it ends early (its writer died, or another was faster): then nothing is where its
signposts point to, or something else is, and the key is free. They are removed with what is trimmed, as their
message is; until then a key whose record is trimmed is free as well.

**Channels.** In the same way the newest messages under a channel's subjects lead to its newest events: those
with events, of the first channel of an append, and signposts for the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.core.event import Event
from penstock.errors import EventTooLarge
from penstock.log.base import Appended
from penstock.log.nats.chain import Chain
from penstock.log.nats.connection import Connection
from penstock.log.nats.entry import Entry, encode, new_id
from penstock.log.nats.stream import HEADER_BYTES, Message, Stream

_Key = tuple[str, str]


class Appending:
    """One append.

    Args:
        stream: where to.
        connection: the log's; it knows how large a message may be.
        chain: the log's.
        events: what to store.
    """

    def __init__(self, stream: Stream, connection: Connection, chain: Chain, events: Sequence[Event]) -> None:
        self._stream = stream
        self._connection = connection
        self._chain = chain
        self._events = events
        self._keys = {
            (event.channel, event.key): stream.subjects.key(event.channel, event.key)
            for event in events
            if event.key is not None
        }
        self._body = b"" if self._keys else encode(events)
        self._seqs: list[int] = []
        self._taken: dict[_Key, int] = {}  # keys that are there already, and their seqs
        self._looked_in = ""  # the epoch where that is so
        self._is_some_void = False

    async def run(self) -> Appended:
        """Store the events."""
        tip, messages = await self._chain.commit(self._make)
        if messages:
            entry = messages[-1].entry
            return Appended(entry.epoch, entry.first, self._seqs, entry.time)
        return Appended(tip.epoch, tip.head + 1, self._seqs, time.time())

    async def _make(self, tip: Entry, look: bool) -> list[Message]:
        used: set[_Key] = set()
        if look or self._is_some_void:  # a void signpost may be another by now
            self._taken, used = await self._look_up(tip)
            self._is_some_void = bool(used)
        elif self._looked_in != tip.epoch:
            self._taken = {}
        self._looked_in = tip.epoch
        taken = {key: seq for key, seq in self._taken.items() if seq > tip.trimmed}
        new = self._number(tip.head + 1, taken)
        if not new:
            return []
        subjects = self._stream.subjects
        channel, *others = dict.fromkeys(event.channel for event in new)
        keys = [(event.channel, event.key) for event in new if event.key is not None]
        signs = [(self._keys[key], key not in used) for key in keys]
        signs += [(subjects.channel(name), False) for name in others]
        now, own, count = time.time(), new_id(), len(signs)
        messages = []
        for index, (subject, only_if_new) in enumerate(signs):
            tip = tip.next(now, own=own, signposts=index, left=count - index)
            messages.append(Message(subject, tip, only_if_new))
        body = encode(new) if self._keys else self._body
        entry = tip.next(now, own=own, events=len(new), signposts=count, body=body)
        self._check_size(entry)
        return [*messages, Message(subjects.events(channel), entry)]

    def _number(self, first: int, taken: dict[_Key, int]) -> list[Event]:
        """Give each event its seq; return those that are new."""
        known = dict(taken)
        new: list[Event] = []
        self._seqs = []
        for event in self._events:
            seq = first + len(new)
            if event.key is not None:
                seq = known.setdefault((event.channel, event.key), seq)
            self._seqs.append(seq)
            if seq == first + len(new):
                new.append(event)
        return new

    async def _look_up(self, tip: Entry) -> tuple[dict[_Key, int], set[_Key]]:
        """The seqs of keys that are taken, and the keys that are not though there is a signpost."""
        found = await self._stream.get_all([{"last_by_subj": subject} for subject in self._keys.values()])
        newest = {key: entry for key, entry in zip(self._keys, found, strict=True) if entry is not None}
        places = {sign.place + sign.left for sign in newest.values()}
        entries = await self._stream.get_all([{"seq": place} for place in places])
        there = {
            (record.channel, record.key): record.seq
            for entry in entries
            if entry is not None
            for record in entry.records(tip.epoch, tip.trimmed)
        }
        taken = {key: there[key] for key in newest if key in there}
        return taken, set(newest) - set(taken)

    def _check_size(self, entry: Entry) -> None:
        most = self._connection.max_payload
        size = entry.end_size - entry.size + HEADER_BYTES
        if most and size > most:
            raise EventTooLarge(
                f"{entry.events} event(s) make a message of {size} bytes, over the server's max_payload of "
                f"{most}; nothing was stored: raise max_payload in its configuration, or publish less at once"
            )
