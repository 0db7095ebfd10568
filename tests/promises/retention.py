"""Whether the log still has what follows a position, asked as any user could."""

from __future__ import annotations

from penstock import Gap, Penstock


def is_trimmed(url: str, after: str) -> bool:
    """Whether what directly followed a position is gone. There must be later events."""
    gaps: list[Gap] = []
    # One of its own, whose memory holds nothing that the log no longer has.
    with Penstock(url) as bus, bus.subscribe("**", after=after, on_gap=gaps.append) as records:
        next(records)
    return bool(gaps)
