"""Channel names, patterns, and the set of both that one stream follows.

A channel is a name of segments parted by ``/``: ``chat``, ``room/7``. A pattern is a channel name in
which whole segments are wildcards: ``*`` stands for exactly one segment, ``**`` for any number of them,
none included. ``room/*`` matches ``room/7``; ``room/**`` matches ``room``, ``room/7`` and ``room/7/typing``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from penstock.errors import BadChannel

MAX_CHANNEL_CHARS = 200  # names are stored with every record and compared at every delivery
MAX_SEGMENTS = 16  # bounds the cost of matching one pattern
OWN = "penstock."  # channels that begin so are Penstock's own; no pattern matches them
MAX_CHANNELS_PER_STREAM = 100  # bounds the cost of matching one stream


def refuse_own(name: str) -> str:
    """Return the name if it is not one of Penstock's own channels, which users neither write nor read.

    Raises:
        BadChannel: if it is.
    """
    if isinstance(name, str) and name.startswith(OWN):
        raise BadChannel(f"channel {name!r}: names that begin with {OWN!r} are Penstock's own")
    return name


def check_channel(name: str) -> str:
    """Return the name if it may be published to.

    Raises:
        BadChannel: if it is no text, empty, too long, has an empty segment, white space, a control
            character or a wildcard.
    """
    _check_name(name, "channel")
    if "*" in name:
        raise BadChannel(f"channel {name!r} has a wildcard: only streams may follow patterns")
    return name


def check_pattern(name: str) -> str:
    """Return the name if a stream may subscribe to it: a channel, or a pattern.

    Raises:
        BadChannel: as ``check_channel``, and if a wildcard is not a whole segment.
    """
    _check_name(name, "pattern")
    for segment in name.split("/"):
        if "*" in segment and segment not in ("*", "**"):
            raise BadChannel(f"pattern {name!r}: a wildcard must be a whole segment: 'room/*'")
    return name


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str):
        raise BadChannel(f"a {what} is text, not {type(name).__name__}: {name!r:.80}")
    if not 1 <= len(name) <= MAX_CHANNEL_CHARS:
        raise BadChannel(f"a {what} has 1 to {MAX_CHANNEL_CHARS} characters; {name[:40]!r} has {len(name)}")
    if not name.isprintable() or " " in name:  # of all white space the space alone is printable
        raise BadChannel(f"{what} {name!r} has white space, a control or an unprintable character")
    segments = name.split("/")
    if "" in segments:
        raise BadChannel(f"{what} {name!r} has an empty segment: 'room/7', not '/room//7'")
    if len(segments) > MAX_SEGMENTS:
        raise BadChannel(f"{what} {name!r} has over {MAX_SEGMENTS} segments")


@lru_cache(maxsize=16_384)  # a replay asks the same few pairs for every record
def matches(pattern: str, channel: str) -> bool:
    """Tell whether a checked pattern covers a checked channel.

    The last ``**`` met is the only one that is ever gone back to, so the cost is at most the product of
    both numbers of segments: no pattern of a stranger makes it explode.
    """
    if channel.startswith(OWN):
        return False
    want, have = pattern.split("/"), channel.split("/")
    w = h = 0
    star: int | None = None
    mark = 0
    while h < len(have):
        if w < len(want) and want[w] == "**":
            star, mark = w, h
            w += 1
        elif w < len(want) and want[w] in ("*", have[h]):
            w += 1
            h += 1
        elif star is not None:
            mark += 1
            w, h = star + 1, mark
        else:
            return False
    return all(rest == "**" for rest in want[w:])


@dataclass(frozen=True, slots=True)
class Subscription:
    """The channels and patterns that a stream follows. Equal sets are equal subscriptions.

    Args:
        names: channels and patterns, in any order; doubles are one.

    Raises:
        BadChannel: if there are none, too many, or one that is no channel and no pattern.
    """

    names: frozenset[str]
    channels: frozenset[str] = field(init=False, compare=False, repr=False)
    patterns: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __init__(self, names: Iterable[str]) -> None:
        if isinstance(names, str):
            names = (names,)
        unique = frozenset(check_pattern(name) for name in names)
        if not 1 <= len(unique) <= MAX_CHANNELS_PER_STREAM:
            raise BadChannel(
                f"a stream follows 1 to {MAX_CHANNELS_PER_STREAM} channels, not {len(unique)}; "
                "a pattern such as 'room/*' follows many"
            )
        object.__setattr__(self, "names", unique)
        object.__setattr__(self, "channels", frozenset(n for n in unique if "*" not in n))
        object.__setattr__(self, "patterns", tuple(sorted(n for n in unique if "*" in n)))

    def covers(self, channel: str) -> bool:
        """Tell whether events of the channel belong to this subscription."""
        return channel in self.channels or any(matches(p, channel) for p in self.patterns)

    def __str__(self) -> str:
        """The names, sorted, parted by commas."""
        return ",".join(sorted(self.names))
