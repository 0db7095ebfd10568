"""What is put into a log, and what is found there."""

from __future__ import annotations

from penstock.core.event import Event
from penstock.log.base import Log
from penstock.testing.storage import everything


def some(*data: str, key: str | None = None) -> list[Event]:
    """Events of one channel."""
    return [Event("check", text, key=key) for text in data]


def data_of(log: Log) -> list[str]:
    """The data of all that rests in a log."""
    return [record.data for record in everything(log)]
