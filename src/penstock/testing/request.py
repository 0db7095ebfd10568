"""What a client asks for, before it is put into the words of WSGI or ASGI."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, unquote_to_bytes, urlencode

Query = Mapping[str, str | int | Sequence[str | int]]

HOST = "testserver"  # the name that Starlette's and Django's test clients have too, so settings know it
PORT = 80
SOFTWARE = "penstock.testing"
_LAST_EVENT_ID = "Last-Event-ID"
_IN_PATHS = "/%:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        method: GET, HEAD, …
        target: the path as it stands in the request line, without the query.
        query: what follows the question mark.
        headers: names and values, each name once.
        body: what is sent.
        last_event_id: what an EventSource says when it comes back; empty if it has none.
        extra: what is laid over the environ or the scope.
    """

    method: str
    target: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    last_event_id: str
    extra: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        path: str,
        *,
        method: str,
        query: Query | None,
        headers: Mapping[str, str] | None,
        cookies: Mapping[str, str] | None,
        body: bytes,
        last_event_id: str,
        extra: Mapping[str, Any] | None,
    ) -> Self:
        """A request as ``Client.stream`` takes it.

        Raises:
            ValueError: for a path that is none.
        """
        path, _, search = path.partition("#")[0].partition("?")
        if not path.startswith("/"):
            raise ValueError(f"a path begins with '/', unlike {path!r}")
        searches = [search] if search else []
        if query:
            searches.append(urlencode(query, doseq=True))
        sent = {"Host": HOST, "Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if body:
            sent["Content-Length"] = str(len(body))
        known = {name.lower(): name for name in [*sent, _LAST_EVENT_ID]}
        for name, value in (headers or {}).items():
            sent[known.get(name.lower(), name)] = value
        last_event_id = sent.pop(_LAST_EVENT_ID, "") or last_event_id
        return cls(
            method=method.upper(),
            target=quote(path, safe=_IN_PATHS),
            query="&".join(searches),
            headers=sent,
            body=body,
            last_event_id=last_event_id,
            extra=dict(extra or {}),
        )

    def coming_back(self, last_event_id: str) -> Self:
        """The same request, from a client that has an event id."""
        return dataclasses.replace(self, last_event_id=last_event_id)

    def __str__(self) -> str:
        return f"{self.method} {self.target}{'?' if self.query else ''}{self.query}"

    @property
    def path(self) -> bytes:
        """The path without percent-encoding."""
        return unquote_to_bytes(self.target)

    @property
    def header_lines(self) -> list[tuple[str, bytes]]:
        """All headers, as a browser would put them on the wire."""
        lines = [(name, value.encode()) for name, value in self.headers.items()]
        if self.last_event_id:
            lines.append((_LAST_EVENT_ID, self.last_event_id.encode()))
        return lines
