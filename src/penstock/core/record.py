"""An event as it rests in the log."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from penstock.core.event import Event
from penstock.core.position import Position


class Record(NamedTuple):
    """An event, its place in the log, and when it was stored. Only logs make records.

    Attributes:
        epoch: the incarnation of the log.
        seq: the place in it: 1, 2, 3 … over all channels.
        time: when it was stored, in seconds since 1970-01-01 UTC.
        channel: what it was published to.
        data: the text.
        event: the event type, None for ``message``.
        retry: the reconnection time it carries, in milliseconds.
        key: the idempotency key it was published with.
        end: whether it is the end of its channel.
    """

    epoch: str
    seq: int
    time: float
    channel: str
    data: str
    event: str | None = None
    retry: int | None = None
    key: str | None = None
    end: bool = False

    @classmethod
    def of(cls, event: Event, epoch: str, seq: int, time: float) -> Record:
        """The record that an event becomes."""
        return cls(
            epoch, seq, time, event.channel, event.data, event.event, event.retry, event.key, event.end
        )

    @property
    def position(self) -> Position:
        """The position of a client that has had this record."""
        return Position(self.epoch, self.seq)

    def json(self) -> Any:
        """The data, read as JSON.

        Raises:
            ValueError: if the data is not JSON.
        """
        return json.loads(self.data)
