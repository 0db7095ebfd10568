"""What property tests draw from: names, texts, events, records, and cuts of bytes.

``few`` and ``many`` say how often a property is tried. There is no deadline: the machine may be busy.
"""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from penstock import Event, Record

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
many = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])

EPOCH = "k3v9x2ab"

# What parsers trip over: line ends of all kinds, NUL, BOM, the parts of a field, two planes of Unicode.
_TRICKY = "\r\n\0\t\v\f\x1c\x85\u2028\u2029\ufeff: é€\U0001f600"

texts = st.text(st.one_of(st.sampled_from(_TRICKY), st.characters(codec="utf-8")), max_size=40)
"""Any text that UTF-8 can carry."""

lines = st.text(
    st.one_of(
        st.sampled_from("".join(c for c in _TRICKY if c not in "\r\n\0")),
        st.characters(codec="utf-8", exclude_characters="\r\n\0"),
    ),
    min_size=1,
    max_size=20,
)
"""Text that fits in one field."""

_segments = st.text("ab7é", min_size=1, max_size=2)

channels = st.lists(_segments, min_size=1, max_size=4).map("/".join)
"""Channel names, of few letters, so that they often meet."""

patterns = st.lists(st.one_of(_segments, st.sampled_from(["*", "**"])), min_size=1, max_size=5).map("/".join)
"""Channel names and patterns."""

events = st.builds(
    Event,
    channels,
    texts,
    event=st.one_of(st.none(), lines.filter(lambda line: not line.startswith("penstock."))),
    retry=st.one_of(st.none(), st.integers(0, 86_400_000)),
    key=st.one_of(st.none(), lines),
)
"""Events of all kinds but ends."""


def record(
    seq: int, channel: str = "chat", data: str = "", *, end: bool = False, epoch: str = EPOCH
) -> Record:
    """A record as a log would have made it."""
    return Record(epoch, seq, 1.5, channel, data, end=end)


def record_of(event: Event, seq: int = 1) -> Record:
    """The record of an event."""
    return Record(EPOCH, seq, 1.5, event.channel, event.data, event.event, event.retry, event.key, event.end)


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    """Where something of this size is cut; pieces may be empty."""
    return sorted(draw(st.lists(st.integers(0, size), max_size=8)))


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The pieces of the bytes."""
    edges = [0, *at, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]
