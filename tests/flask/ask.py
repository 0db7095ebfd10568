"""Short requests to a server under test, and a connection whose bytes are looked at as they come."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

ANSWER_WITHIN_S = DEADLINE_S


def get(server: Server, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=ANSWER_WITHIN_S) as answer:
        return str(answer.read().decode())


def post(server: Server, path: str, **form: str) -> str:
    body = urlencode(form).encode()
    with urllib.request.urlopen(server.url + path, body, timeout=ANSWER_WITHIN_S) as answer:
        return str(answer.read().decode())


def publish(server: Server, channel: str, *data: str, event: str | None = None) -> list[str]:
    """Publish one event after the other, and give their positions."""
    typed = {} if event is None else {"event": event}
    return [post(server, "/publish", channel=channel, data=each, **typed) for each in data]


def stats(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(server, "/stats"))
    return found


def wait_for_streams(server: Server, count: int, deadline_s: float = DEADLINE_S) -> None:
    wait_for(
        lambda: stats(server)["streams"] == count,
        deadline_s,
        lambda: f"{count} streams, not {stats(server)['streams']}",
    )


def events_url(*channels: str, **query: str | int) -> str:
    wanted = [("channel", channel) for channel in channels]
    return "/events?" + urlencode([*wanted, *query.items()], quote_via=quote)


@contextmanager
def answer(
    server: Server,
    path: str,
    *,
    method: str = "GET",
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """One answer whose body is not read yet; its connection is closed in the end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_WITHIN_S)
    connection._http_vsn = int(version.replace(".", ""))  # type: ignore[attr-defined]
    connection._http_vsn_str = f"HTTP/{version}"  # type: ignore[attr-defined]
    try:
        connection.request(method, path, headers=dict(headers or {}))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def read_block(response: http.client.HTTPResponse) -> str:
    """The next block of a stream: its lines up to an empty one."""
    lines: list[bytes] = []
    while (line := response.readline()) not in (b"\n", b""):
        lines.append(line)
    return b"".join(lines).decode()
