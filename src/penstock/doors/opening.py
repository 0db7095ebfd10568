"""What every door decides before the first byte of a stream."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from penstock.core import wire
from penstock.core.position import Position
from penstock.core.stream import Closing
from penstock.core.wire import Block
from penstock.doors.ask import Ask
from penstock.doors.cors import Headers, cors_headers
from penstock.doors.places import Full, Places
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Origin
from penstock.engine.phrases import farewell, greeting, last_words
from penstock.errors import MalformedPosition, PenstockError

SLICE_BYTES = 1024 * 1024  # the most that a bounded answer holds, so that it stays short
SLICE_RETRY_MS = (2_000, 4_000)  # and then its client comes back
REFUSED_RETRY_S = 5


class Client(NamedTuple):
    """Who asks, as far as it is known.

    Attributes:
        address: its address.
        fd: the descriptor of its connection.
    """

    address: str | None = None
    fd: int | None = None


class Opening(NamedTuple):
    """What a request for a stream is answered with.

    Attributes:
        status: the HTTP status.
        headers: the headers.
        words: the whole body, where there is no origin.
        origin: where the stream begins, or the bounded answer.
        give_back: gives the stream's place back; None for a bounded answer, which has none.
    """

    status: int
    headers: Headers
    words: bytes = b""
    origin: Origin | None = None
    give_back: Callable[[], None] | None = None


def head_only(engine: Engine, ask: Ask) -> Opening:
    """The answer to HEAD."""
    return Opening(200, [*wire.HEADERS, *_cors(engine, ask)])


def decide(engine: Engine, places: Places, ask: Ask, client: Client, *, bounded: bool = False) -> Opening:
    """Decide how to answer. Blocks: the log may be read.

    Args:
        engine: the engine; it was started.
        places: those of the door.
        ask: what is asked for.
        client: who asks.
        bounded: whether whoever asks reads no answer but a whole one.
    """
    cors = _cors(engine, ask)
    headers = [*wire.HEADERS, *cors]
    subscription = ask.subscription
    try:
        origin = engine.find_origin(subscription, ask.wish, ask.last_event_id)
    except PenstockError as error:
        words = engine.failures.at_the_start(error, _position(ask.last_event_id))
        return Opening(200, headers, words)
    if origin.gap is None and not subscription.patterns and origin.ended >= subscription.channels:
        return Opening(204, cors)
    if bounded:
        return Opening(200, headers, b"", origin)
    try:
        return Opening(200, headers, b"", origin, places.take(*client))
    except Full as full:
        if full.one_client or places.refuses:
            return refusal(cors)
        engine.polls += 1
        return Opening(200, headers, b"", origin)


def refusal(headers: Headers) -> Opening:
    """The answer where there is no place: to be tried again later."""
    plain = ("Content-Type", "text/plain; charset=utf-8")
    words = b"All places for streams are taken. Try again later.\n"
    return Opening(503, [("Retry-After", str(REFUSED_RETRY_S)), plain, *headers], words)


def _cors(engine: Engine, ask: Ask) -> Headers:
    return cors_headers(engine.options.cors_origins, ask.web_origin)


def slice_of(engine: Engine, ask: Ask, origin: Origin) -> Iterator[bytes]:
    """A bounded answer: what there is, and when to come back for more. Blocks."""
    subscription = ask.subscription
    pull = engine.detached(subscription, origin, lambda: None, ask.rights)
    size = 0
    try:
        yield greeting(origin, engine.options.retry)
        while size < SLICE_BYTES:
            step = pull.poll()
            block = engine.apart(pull.read) if step is Next.READ else step
            if isinstance(block, Block):
                size += len(block.wire)
                pull.count_bytes(len(block.wire))
                yield block.wire
            elif step is not Next.READ:
                break
        engine.failures.over()
        if pull.stream.closing is Closing.EXPIRED:
            yield last_words(pull.stream)
        elif pull.stream.closing is not Closing.ENDED:
            retry_ms = 0 if size >= SLICE_BYTES else random.randint(*SLICE_RETRY_MS)
            yield farewell(pull.stream.position, retry_ms)
    except Exception as error:
        yield engine.failures.on_the_way(subscription, error)
    finally:
        engine.leave(pull)


def _position(last_event_id: str | None) -> Position | None:
    """What the client of a stream that could not begin has."""
    with contextlib.suppress(MalformedPosition):
        return Position.parse(last_event_id) if last_event_id is not None else None
    return None
