"""Every setting of Penstock, with its unit, its default and its reason.

In code they are keyword arguments (``Penstock(url, keep_alive=20)``); in Flask each is the setting of
the same name in capitals with ``PENSTOCK_`` before it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.event import MAX_EVENT_BYTES, MAX_RETRY_MS
from penstock.errors import ConfigError
from penstock.log.base import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked settings.

    Attributes:
        keep_alive: seconds of silence after which a stream is sent its position, so that no hop takes
            the connection for dead.
        retry: milliseconds after which a browser reconnects.
        publish_timeout: seconds for which a publisher tries again while the log is away.
        max_event_bytes: the largest event.
        max_streams: streams of this process at once; None lets the door choose: by the server's number
            of threads where each holds one, by the process's limit of open files where it does not.
        max_streams_per_client: streams of one client address at once, past which it gets a 503; None for
            1,000 of a public address and any number of a private one, which may be a proxy's.
        overflow: what a stream past that limit gets. ``poll``: what it missed, at once, and an end, so
            that it comes back for more and nothing is lost. ``refuse``: 503, after which an
            EventSource does not come back.
        cors_origins: pages of which other sites may read streams: ``https://app.example``, with credentials;
            ``*`` for those of all sites, without.
        stream_lifetime: seconds after which a stream is ended, so that it reconnects, give or take 20 %;
            None for no end.
        ring_events: the newest events kept in memory for streams that come back.
        ring_bytes: the most memory that these may hold.
        max_age: seconds that an event is kept; None for no limit.
        max_events: the most events that are kept; None for no limit.
        max_bytes: the most storage that they may take; None for no limit.

    Raises:
        ConfigError: for a value of the wrong type or out of its range.
    """

    keep_alive: float = 15.0  # proxies cut silent connections after 30 to 60 s
    retry: int = 3000
    publish_timeout: float = 5.0
    max_event_bytes: int = MAX_EVENT_BYTES
    max_streams: int | None = None
    max_streams_per_client: int | None = None
    overflow: Literal["poll", "refuse"] = "poll"
    cors_origins: Sequence[str] = ()
    stream_lifetime: float | None = None
    ring_events: int = 10_000
    ring_bytes: int = 16 * 1024 * 1024
    max_age: float | None = 24 * 3600.0
    max_events: int | None = 1_000_000
    max_bytes: int | None = 1024**3

    def __post_init__(self) -> None:
        self._check("keep_alive", float, 0.1, 3600)
        self._check("retry", int, 1, MAX_RETRY_MS)
        self._check("publish_timeout", float, 0, 3600)
        self._check("max_event_bytes", int, 1, 16 * 1024 * 1024)
        self._check("max_streams", int, 0, 1_000_000, none=True)
        self._check("max_streams_per_client", int, 1, 1_000_000, none=True)
        if self.overflow not in ("poll", "refuse"):
            raise ConfigError(f"overflow is 'poll' or 'refuse', not {self.overflow!r}")
        object.__setattr__(self, "cors_origins", _origins(self.cors_origins))
        self._check("stream_lifetime", float, 1, 365 * 86400, none=True)
        self._check("ring_events", int, 1, 10_000_000)
        self._check("ring_bytes", int, 1024, 64 * 1024**3)
        self._check("max_age", float, 1, 100 * 365 * 86400, none=True)
        self._check("max_events", int, 1, 10**15, none=True)
        self._check("max_bytes", int, 64 * 1024, 10**18, none=True)

    def _check(self, name: str, kind: type, low: float, high: float, *, none: bool = False) -> None:
        value = getattr(self, name)
        if value is None and none:
            return
        kinds = (int, float) if kind is float else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            number = "a number" if kind is float else "a whole number"
            also = " or None" if none else ""
            raise ConfigError(f"{name} is {number} from {low:.15g} to {high:.15g}{also}, not {value!r}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of all options."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Options:
        """Options from names and values.

        Raises:
            ConfigError: for a name that is none, with the likeliest right one, and for a bad value.
        """
        refuse_unknown("option", settings, cls.names())
        return cls(**settings)

    @property
    def retention(self) -> Retention:
        """What the log keeps."""
        return Retention(self.max_age, self.max_events, self.max_bytes)


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+")  # scheme, host and port alone (RFC 6454)


def _origins(given: object) -> tuple[str, ...]:
    """The allow-list, as browsers write origins: in small letters."""
    bad = given
    if isinstance(given, Sequence) and not isinstance(given, str):
        wrong = [
            one
            for one in given
            if one != "*" and not (isinstance(one, str) and _ORIGIN.fullmatch(one.lower()))
        ]
        if not wrong:
            return tuple(one.lower() for one in given)
        bad = wrong[0]
    raise ConfigError(
        "cors_origins is a list of origins such as 'https://app.example', without a path and a slash at the "
        f"end, or '*', not {given!r:.200}" + (f": see {bad!r:.80}" if bad is not given else "")
    )


def refuse_unknown(what: str, given: Iterable[str], known: Sequence[str], prefix: str = "") -> None:
    """Refuse a name that is none: it was meant to set something, and would not.

    Args:
        what: what the names are names of.
        given: the names, without their prefix.
        known: those that there are, without it too.
        prefix: what all of them begin with.

    Raises:
        ConfigError: with the likeliest right one.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            there_are = ", ".join(prefix + each for each in known)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"there are {there_are}"
            raise ConfigError(f"there is no {what} {prefix + name!r}; {hint}")
