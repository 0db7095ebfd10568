"""What a face asks of a door: a stream of some channels, for this client, as its view decided."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import NamedTuple

from penstock.core.channel import Subscription, refuse_own
from penstock.core.position import Position
from penstock.core.rights import FREE, Rights
from penstock.engine.origin import Wish, check_wish
from penstock.errors import ConfigError

OnClose = Callable[[], object]
Until = datetime.datetime | float


class Ask(NamedTuple):
    """A stream, as a view asks for it. To be made by ``check_ask``.

    Attributes:
        subscription: what the stream follows; the view has seen to it that the client may.
        wish: where it begins for a client without a position.
        rights: whose it is, and until when.
        on_close: called once, in a thread, when the answer is over, whatever it was.
        last_event_id: the position that the client sent; None for none.
        web_origin: the request's ``Origin`` (RFC 6454): of which site the page is; None if it has none.
    """

    subscription: Subscription
    wish: Wish = Wish()
    rights: Rights = FREE
    on_close: OnClose | None = None
    last_event_id: str | None = None
    web_origin: str | None = None


def check_ask(
    channels: Iterable[str],
    *,
    last: int | None = None,
    after: Position | str | None = None,
    user: str | int | None = None,
    until: Until | None = None,
    on_close: OnClose | None = None,
) -> Ask:
    """Read the arguments of ``stream``, which are the same in every framework.

    Args:
        channels: channels and patterns (``room/*``).
        last: begin with the last so many events, for a client that comes for the first time.
        after: begin after this position, or with the ``earliest`` event, likewise.
        user: whose stream it is, so that ``kick`` finds it; text or a number.
        until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970.
        on_close: called once when the answer is over.

    Raises:
        BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
    """
    subscription = Subscription(map(refuse_own, channels))
    wish = check_wish(after, last)
    rights = FREE
    if user is not None or until is not None:
        rights = Rights(str(user) if type(user) is int else user, _seconds(until))  # type: ignore[arg-type]
    if on_close is not None and not callable(on_close):
        raise ConfigError(f"on_close is something to be called, not {on_close!r:.80}")
    return Ask(subscription, wish, rights, on_close)


def of_request(ask: Ask, header: Callable[[str], str | None], query: Callable[[str], str | None]) -> Ask:
    """Add what the client's request says.

    Args:
        ask: what the view asks for.
        header: gives a header by its name.
        query: gives an argument of the query by its name.
    """
    # For clients that cannot set headers. An empty one is none: an EventSource sends none either.
    last_event_id = header("Last-Event-ID") or query("last_event_id")
    return ask._replace(last_event_id=last_event_id or None, web_origin=header("Origin") or None)


def _seconds(until: Until | None) -> float | None:
    if not isinstance(until, datetime.datetime):
        return until
    if until.tzinfo is None:
        raise ConfigError(
            f"until is a time without a time zone, {until!r}: say datetime.now(timezone.utc) + …"
        )
    return until.timestamp()
