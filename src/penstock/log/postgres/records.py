"""Events on their way into the log, and records on their way out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from psycopg.pq.abc import PGresult

from penstock.core.channel import OWN, Subscription
from penstock.core.event import Event
from penstock.core.record import Record
from penstock.log.postgres.values import (
    BOOL,
    INT4,
    TEXT,
    Value,
    booleans,
    bytes_of,
    integers,
    none_of,
    read_float8,
    read_int4,
    read_int8,
    texts,
)


def new_batch() -> int:
    """A name for one append: 63 bits."""
    return secrets.randbits(63)


def event_values(events: Sequence[Event]) -> list[Value]:
    """Channels, data, types, retries, keys and ends; NULL for those that none has."""
    types, retries = [event.event for event in events], [event.retry for event in events]
    keys, ends = [event.key for event in events], [event.end for event in events]
    return [
        texts([event.channel for event in events]),
        bytes_of([event.data for event in events]),
        texts(types) if any(types) else none_of(TEXT),
        integers(retries) if retries.count(None) < len(retries) else none_of(INT4),
        texts(keys) if any(keys) else none_of(TEXT),
        booleans(ends) if any(ends) else none_of(BOOL),
    ]


def read_records(answer: PGresult) -> list[Record]:
    """The records of an answer whose columns are those of ``read.sql``."""
    if not answer.ntuples or answer.get_value(0, 2) is None:  # a row without a record
        return []
    value: Callable[[int, int], Any] = answer.get_value
    epoch = value(0, 0).decode()
    names: dict[bytes, str] = {}  # channels and times come again and again
    times: dict[bytes, float] = {}
    found: list[Record] = []
    for row in range(answer.ntuples):
        channel = value(row, 5)
        name = names.get(channel) or names.setdefault(channel, channel.decode())
        at = value(row, 4)
        time = times.get(at) or times.setdefault(at, read_float8(at)[0])
        event, retry, key = value(row, 7), value(row, 8), value(row, 9)
        found.append(
            Record(
                epoch,
                read_int8(value(row, 2))[0],
                time,
                name,
                value(row, 6).decode(),
                None if event is None else event.decode(),
                None if retry is None else read_int4(retry)[0],
                None if key is None else key.decode(),
                value(row, 10) == b"\1",
            )
        )
    return found


def subscription_values(wanted: Subscription) -> list[Value]:
    """Channels; and for each pattern from where to where its channels lie, and what they match."""
    literals = [pattern[: pattern.index("*")].rstrip("/") for pattern in wanted.patterns]
    return [
        texts(sorted(wanted.channels)),
        texts(literals),
        texts([literal + "\U0010ffff" * 2 for literal in literals]),
        texts([_expression(pattern) for pattern in wanted.patterns]),
    ]


def _expression(pattern: str) -> str:
    """What matches ``/`` and the names of channels as ``channel.matches`` does."""
    segments = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    parts = [
        segments.get(segment) or "/" + re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", segment)
        for segment in pattern.split("/")
    ]
    return f"^(?!/{re.escape(OWN)}){''.join(parts)}$"
