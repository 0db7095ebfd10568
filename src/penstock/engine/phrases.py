"""What a stream says at its beginning and at its end, the same in every door."""

from __future__ import annotations

import logging
import random
import time

from penstock.core import wire
from penstock.core.channel import Subscription
from penstock.core.position import Position
from penstock.core.stream import Closing, Stream
from penstock.engine.notices import warn
from penstock.engine.origin import Origin
from penstock.errors import PenstockError

logger = logging.getLogger("penstock.streams")

DRAIN_RETRY_MS = (1_000, 10_000)  # a fleet that was drained comes back spread over this
FAILED_RETRY_S, LONGEST_FAILED_RETRY_S = 1.0, 60.0  # between them: as long as it has failed already


def greeting(origin: Origin, retry_ms: int) -> bytes:
    """The first bytes, which leave at once: the gap, if there is one, else the position."""
    told = wire.encode_item(origin.gap if origin.gap is not None else origin.position)
    return wire.encode_retry(retry_ms) + told


def farewell(position: Position, retry_ms: int | None = None) -> bytes:
    """The last bytes of a stream whose client is to come back.

    Args:
        position: what it has had.
        retry_ms: when it is to come back; by default each at a time of its own.
    """
    retry_ms = random.randint(*DRAIN_RETRY_MS) if retry_ms is None else retry_ms
    return wire.encode_retry(retry_ms) + wire.encode_position(position)


_REVOKED = {Closing.EXPIRED: "expired", Closing.KICKED: "kicked"}


def last_words(stream: Stream) -> bytes:
    """What is due to a stream that is over: a farewell, if its client is to come back, and may be why."""
    closing = stream.closing
    if closing in _REVOKED:
        return wire.encode_revoked(_REVOKED[closing]) + farewell(stream.position)
    return farewell(stream.position) if closing in (Closing.DRAINED, Closing.OLD) else b""


class Failures:
    """The errors that end streams: their clients are told, and so is the operator.

    The clients come back after as long as streams have failed already. So the pauses of each double,
    however many there are.

    Args:
        about: the log's URL.
    """

    def __init__(self, about: str) -> None:
        self._about = about
        self._since: float | None = None  # when the first of the streams in a row failed

    def over(self) -> None:
        """A stream got through."""
        self._since = None

    def at_the_start(self, error: PenstockError, position: Position | None) -> bytes:
        """A stream could not begin.

        Args:
            error: why.
            position: what the client has, said back to it.

        Returns:
            Its only bytes.
        """
        warn(logger, "a stream could not begin: %s", error, about=self._about)
        return self._words(position)

    def on_the_way(self, subscription: Subscription, error: Exception) -> bytes:
        """A stream cannot go on.

        Args:
            subscription: the stream's.
            error: what happened.

        Returns:
            Its last bytes.
        """
        if isinstance(error, PenstockError):
            warn(logger, "a stream of %s was ended: %s", subscription, error, about=self._about)
        else:
            logger.error("a stream of %s was ended by an error", subscription, exc_info=error)
        return self._words(None)

    def _words(self, position: Position | None) -> bytes:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        retry_s = min(max(FAILED_RETRY_S, now - self._since), LONGEST_FAILED_RETRY_S)
        retry_ms = round(1_000 * retry_s * random.uniform(0.7, 1.3))
        notice = wire.encode_error("the stream failed; it will be tried again", position)
        return wire.encode_retry(retry_ms) + notice
