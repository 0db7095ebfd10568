"""Whose a stream is, and for how long it may be read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.core.channel import Subscription
from penstock.errors import ConfigError

MAX_USER_CHARS = 200  # a user's name is kept with each stream, and stored with each kick


def check_user(user: str | int) -> str:
    """Return a user as the text that users are compared by: 7 and ``"7"`` are the same.

    Raises:
        ConfigError: if it is neither text nor a whole number, or too long.
    """
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise ConfigError(f"a user is text or a whole number, as in a primary key, not {user!r:.80}")
    text = str(user)
    if not 1 <= len(text) <= MAX_USER_CHARS:
        raise ConfigError(f"a user has 1 to {MAX_USER_CHARS} characters; {text[:40]!r} has {len(text)}")
    return text


@dataclass(frozen=True, slots=True)
class Rights:
    """The right to read a stream.

    Args:
        user: whose it is; None for nobody's in particular.
        until: when it ends, in seconds since 1970; None for never.

    Raises:
        ConfigError: for a value that cannot be compared with others.
    """

    user: str | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        if self.user is not None:
            object.__setattr__(self, "user", check_user(self.user))
        until = self.until
        if until is None:
            return
        if isinstance(until, bool) or not isinstance(until, int | float) or not math.isfinite(until):
            raise ConfigError(f"until is a time in seconds since 1970, not {until!r:.80}")

    def over(self, now: float) -> bool:
        """Tell whether the right has ended.

        Args:
            now: seconds since 1970.
        """
        return self.until is not None and self.until <= now


FREE = Rights()  # the right of a stream that nothing was said of


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """An open stream, as the predicate of a kick sees it.

    Attributes:
        user: whose it is; None if nothing was said of it.
        channels: the channels and patterns that it follows.
        until: when its right ends, in seconds since 1970; None for never.
    """

    user: str | None
    channels: frozenset[str]
    until: float | None = None

    @classmethod
    def of(cls, subscription: Subscription, rights: Rights) -> StreamInfo:
        """What there is to be told of a stream."""
        return cls(rights.user, subscription.names, rights.until)
