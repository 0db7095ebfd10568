"""Which pages of other sites may read a stream (CORS, as the Fetch standard has it).

A page of the same site needs nothing of this. ``cors_origins`` lists the others. Cookies and other
credentials are for origins that are named: a ``*`` lets every site read what anybody may read without them.
"""

from __future__ import annotations

from collections.abc import Sequence

PREFLIGHT_S = 600  # a browser asks no more often than that
ALLOWED_HEADERS = "Last-Event-ID, Cache-Control, Authorization, X-Requested-With"

Headers = list[tuple[str, str]]


def cors_headers(allowed: Sequence[str], web_origin: str | None) -> Headers:
    """The headers of an answer.

    Args:
        allowed: the setting ``cors_origins``.
        web_origin: the request's ``Origin``; None if it has none.
    """
    if not allowed:
        return []
    if web_origin is not None and web_origin.lower() in allowed:
        allow = ("Access-Control-Allow-Origin", web_origin)
        return [allow, ("Access-Control-Allow-Credentials", "true"), ("Vary", "Origin")]
    if "*" in allowed:
        anybody = [("Access-Control-Allow-Origin", "*")]
        return anybody if len(allowed) == 1 else [*anybody, ("Vary", "Origin")]
    return [("Vary", "Origin")]


def preflight_headers(allowed: Sequence[str], web_origin: str | None) -> Headers:
    """The headers of the answer to OPTIONS, by which a browser asks what it may send."""
    headers = cors_headers(allowed, web_origin)
    if any(name == "Access-Control-Allow-Origin" for name, _ in headers):
        headers += [
            ("Access-Control-Allow-Methods", "GET, HEAD"),
            ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
            ("Access-Control-Max-Age", str(PREFLIGHT_S)),
        ]
    return [("Allow", "GET, HEAD, OPTIONS"), *headers]
