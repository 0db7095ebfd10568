"""Publishing in Django: what happens in a transaction is told when it is committed, and never if it is not.

In a transaction an event waits for the commit, as with ``transaction.on_commit``, and is gone with a
rollback, also with that of the savepoint in which it was published. It is checked at once: what could not
be stored raises in the line that publishes it. Outside of transactions it is stored at once.

What the commit promises to others (the rows are there) is then true, so an error of the log comes too late to
undo it, and must not pretend to: Django logs it, on ``django.db.backends.base``, and goes on with the other
callbacks. Who wants the event or nothing publishes before the commit, with ``on_commit=False``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils.asyncio import async_unsafe
from django.utils.functional import Promise

from penstock.core.channel import refuse_own
from penstock.core.event import Event, to_text
from penstock.core.position import Position
from penstock.django.process import get_bus
from penstock.django.streams import as_user
from penstock.engine.kicks import Predicate
from penstock.errors import InvalidEvent, PenstockError

T = TypeVar("T")


@async_unsafe("publish() would block the event loop: write 'await apublish(…)'")
def publish(
    channel: str,
    data: Any,
    *,
    event: str | None = None,
    retry: int | None = None,
    key: str | None = None,
    on_commit: bool = True,
    using: str | None = None,
    connection: object = None,
) -> Position | None:
    """Publish an event: when the transaction is committed, or at once if there is none.

    Args:
        channel: the channel, such as ``chat`` or ``room/7``.
        data: ``str`` is sent as it is, ``bytes`` must be UTF-8, anything else becomes JSON by Django's
            encoder: dates, decimals, UUIDs and lazy texts too.
        event: the event type, None for ``message``.
        retry: the browser's reconnection time from now on, in milliseconds.
        key: an idempotency key, see ``penstock.Penstock.publish``.
        on_commit: whether it waits for the commit.
        using: the database whose transaction it is; the default one if not given.
        connection: with a log in PostgreSQL, ``django.db.connection`` or another to the log's database: the
            event is written in its transaction and comes with the commit, or not at all, even if the process
            dies at that moment. ``on_commit`` and ``using`` have no part in it.

    Returns:
        Where it rests; None if it waits for the commit.

    Raises:
        InvalidEvent: it could not be delivered as it is; nothing is stored, now or later.
        LogUnavailable, AppendUnsure, LogUnusable: where it was to be stored at once. At a commit these
            are logged.
    """
    batch = [_event(channel, data, event, retry, key)]
    positions = publish_many(batch, on_commit=on_commit, using=using, connection=connection)
    return None if positions is None else positions[0]


async def apublish(
    channel: str,
    data: Any,
    *,
    event: str | None = None,
    retry: int | None = None,
    key: str | None = None,
    on_commit: bool = True,
    using: str | None = None,
) -> Position | None:
    """As ``publish``, for coroutines.

    A transaction that it waits for is one around the coroutine, in code that called ``async_to_sync``.
    """
    batch = [_event(channel, data, event, retry, key)]
    positions = await apublish_many(batch, on_commit=on_commit, using=using)
    return None if positions is None else positions[0]


@async_unsafe("publish_many() would block the event loop: write 'await apublish_many(…)'")
def publish_many(
    events: Iterable[Event],
    *,
    on_commit: bool = True,
    using: str | None = None,
    connection: object = None,
) -> list[Position] | None:
    """Publish events together: all are stored, or none. See ``publish``.

    An ``Event`` turns its data into text when it is made; what only Django's encoder can encode, give it as
    ``json.dumps(data, cls=DjangoJSONEncoder)``.
    """
    batch = _checked(events)
    bus = get_bus()
    if connection is not None:
        bus.publish_many(batch, connection=connection)
        return None
    return _store(lambda: bus.publish_many(batch), _names(batch), on_commit, using)


async def apublish_many(
    events: Iterable[Event], *, on_commit: bool = True, using: str | None = None
) -> list[Position] | None:
    """As ``publish_many``, for coroutines."""
    batch = _checked(events)
    bus = get_bus()
    if on_commit and await _waits(lambda: bus.publish_many(batch), _names(batch), using):
        return None
    return await bus.apublish_many(batch)


def end(channel: str, *, on_commit: bool = True, using: str | None = None) -> Position | None:
    """End a channel: its streams are told and closed. It waits for a commit as ``publish`` does."""
    positions = publish_many([Event(channel, "", end=True)], on_commit=on_commit, using=using)
    return None if positions is None else positions[0]


async def aend(channel: str, *, on_commit: bool = True, using: str | None = None) -> Position | None:
    """As ``end``, for coroutines."""
    positions = await apublish_many([Event(channel, "", end=True)], on_commit=on_commit, using=using)
    return None if positions is None else positions[0]


@async_unsafe("kick() would block the event loop: write 'await akick(…)'")
def kick(
    who: str | int | uuid.UUID | Predicate, *arguments: Any, on_commit: bool = True, using: str | None = None
) -> Position | None:
    """Close streams at once, in every process. See ``penstock.Penstock.kick``.

    Take the right away first, then kick. Both may be in one transaction, since this waits for its commit as
    ``publish`` does: nobody comes back before the right is gone.

    Args:
        who: the user whose streams are closed, as ``stream(user=...)`` was given it; or a function that
            ``predicate`` made known.
        arguments: what the function is called with after the stream's ``StreamInfo``.
        on_commit: whether it waits for the commit.
        using: the database whose transaction it is.

    Returns:
        Where the kick rests; None if it waits for the commit.

    Raises:
        ConfigError: for a function that is not known.
        LogUnavailable, AppendUnsure, LogUnusable: as ``publish``; nobody was kicked.
    """
    bus = get_bus()
    order = bus.predicates.kick(as_user(who), arguments)
    return _store(lambda: bus.engine.kick(order), "a kick", on_commit, using)


async def akick(
    who: str | int | uuid.UUID | Predicate, *arguments: Any, on_commit: bool = True, using: str | None = None
) -> Position | None:
    """As ``kick``, for coroutines."""
    bus = get_bus()
    order = bus.predicates.kick(as_user(who), arguments)
    if on_commit and await _waits(lambda: bus.engine.kick(order), "a kick", using):
        return None
    return await bus.engine.kick_async(order)


def _event(channel: str, data: Any, event: str | None, retry: int | None, key: str | None) -> Event:
    if isinstance(data, Promise):  # a lazy translation is text, in the language of now
        data = str(data)
    return Event(channel, to_text(data, _dumps), event, retry, key)


def _dumps(data: Any) -> str:
    return json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _checked(events: Iterable[Event]) -> list[Event]:
    """The events, of which none will be refused at the commit."""
    batch = list(events)
    limit = get_bus().options.max_event_bytes
    for event in batch:
        if not isinstance(event, Event):
            raise InvalidEvent(f"an Event is published, not {event!r:.80}; nothing was stored")
        refuse_own(event.channel)
        event.check_size(limit)
    return batch


def _names(batch: Sequence[Event]) -> str:
    channels = ", ".join(sorted({event.channel for event in batch}))
    return f"{len(batch)} event(s) for {channels:.200}"


def _store(call: Callable[[], T], what: str, on_commit: bool, using: str | None) -> T | None:
    if on_commit and _register(call, what, using):
        return None
    return call()


async def _waits(call: Callable[[], object], what: str, using: str | None) -> bool:
    """As ``_register``, in the thread that has the transactions of this coroutine's request."""
    return await sync_to_async(_register)(call, what, using)


def _register(call: Callable[[], object], what: str, using: str | None) -> bool:
    """Let something wait for the commit. False if there is no transaction: no connection is made for that."""
    connection = transaction.get_connection(using)
    if connection.in_atomic_block or (connection.connection is not None and not connection.autocommit):

        def publish_at_commit() -> None:
            try:
                call()
            except PenstockError as error:
                error.add_note(f"The transaction was committed, and {what} waited for that.")
                raise

        transaction.on_commit(publish_at_commit, using, robust=True)
        return True
    return False
