"""Blocks: how events lie in the stream.

What one append stores is one entry of the stream, or several if it is large: a block. Its id is
``<seq of its last event>-0``, so ``XRANGE`` and ``XREAD`` find it by what follows a seq. Its first field is
named ``<mark> <mark of the block before it>``, and holds JSON::

    [time, [channel, data], [channel, data, event, retry, key, end], ...]

The mark is ``<append>/<number>``, and a name that nobody else gives: by it a log is known to be the same,
and an append is found whose answer was lost. For each event with a key there is one more field, named by
its seq; it holds what the key is called in the hash.

One block for many events costs the server, its memory and who reads it a fraction of an entry for each;
and many blocks are decoded by one call of a parser written in C.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.errors import LogCorrupt

# As in append.lua. A reader that wants a part of a block is sent all of it.
BLOCK_CHARS, BLOCK_EVENTS = 65_536, 256

# An entry as the server sends it: its id, and its fields.
Entry = tuple[bytes, list[bytes]]

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Piece(NamedTuple):
    """Events that are stored together: any number without keys, or one with a key.

    Attributes:
        events: how many.
        key: what its key is called in the hash; empty for none.
        text: as they stand in a block.
    """

    events: int
    key: str
    text: str


def encode(events: Iterable[Event]) -> list[Piece]:
    """The pieces of an append."""
    pieces: list[Piece] = []
    run: list[str] = []
    chars = 0
    for event in events:
        text = _encode_one(event)
        full = chars + len(text) > BLOCK_CHARS or len(run) == BLOCK_EVENTS
        if run and (full or event.key is not None):
            pieces.append(Piece(len(run), "", ",".join(run)))
            run, chars = [], 0
        if event.key is not None:
            # Neither has a line feed, so no two make the same name; and no field of the log's own has one.
            pieces.append(Piece(1, f"{event.channel}\n{event.key}", text))
        else:
            run.append(text)
            chars += len(text)
    if run:
        pieces.append(Piece(len(run), "", ",".join(run)))
    return pieces


def _encode_one(event: Event) -> str:
    if event.event is None and event.retry is None and event.key is None and not event.end:
        return f"[{_quoted(event.channel)},{_quoted(event.data)}]"
    return _json([event.channel, event.data, event.event, event.retry, event.key, event.end])


def seqs_of(pieces: Iterable[Piece], first: int, of_keys: Iterable[int]) -> list[int]:
    """The seq of each event of an append, of which the server tells those of keys alone."""
    seqs: list[int] = []
    following = first
    of_key = iter(of_keys)
    for piece in pieces:
        if piece.key:
            seqs.append(next(of_key))
            following += seqs[-1] == following
        else:
            seqs.extend(range(following, following + piece.events))
            following += piece.events
    return seqs


def decode(entries: Sequence[Entry], epoch: str, after: int) -> list[Record]:
    """The records of entries that follow a seq, directly: all up to it may have been trimmed.

    Raises:
        LogCorrupt: if they are no blocks, or one is missing among them.
    """
    if not entries:
        return []
    try:
        blocks: list[list[Any]] = json.loads(b"[%b]" % b",".join([fields[1] for _, fields in entries]))
        first = seq = seq_of(entries[0]) - len(blocks[0]) + 2
        records: list[Record] = []
        add, new, of = records.append, tuple.__new__, Record  # Record's own is slower
        for block in blocks:
            time = block[0]
            for event in block[1:]:
                if len(event) == 2:  # by far the most
                    channel, data = event
                    add(new(of, (epoch, seq, time, channel, data, None, None, None, False)))
                else:
                    add(new(of, (epoch, seq, time, *event)))
                seq += 1
        if seq != seq_of(entries[-1]) + 1 or first > after + 1:
            raise ValueError(f"{len(records)} records from {first} to {seq_of(entries[-1])}")
    except (ValueError, IndexError, TypeError) as error:
        raise LogCorrupt(f"what follows {after} in the stream is no log's: {error}") from error
    return records[after + 1 - first :]


def seq_of(entry: Entry) -> int:
    """The seq of the last event of a block."""
    return int(entry[0].partition(b"-")[0])


def size_of(entries: Sequence[Entry]) -> int:
    """The bytes of the events of blocks."""
    return sum([len(fields[1]) for _, fields in entries])


def marks_of(entry: Entry) -> tuple[str, str]:
    """The mark of a block, and that of the block before it."""
    mark, _, before = entry[1][0].decode().partition(" ")
    return mark, before
