"""A door's answer as a response of Django's: its status, its headers and its body, and nothing else."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, StreamingHttpResponse

from penstock.django.clients import Client
from penstock.django.connections import agive_back, give_back
from penstock.doors import asgi, asgi_body, wsgi
from penstock.doors.asgi_stream import Scope
from penstock.doors.cors import Headers
from penstock.doors.handover import MARK


class StreamResponse(StreamingHttpResponse):
    """A stream. Cookies and further headers may be set on it as on any response.

    It says that it has a ``Content-Encoding``, which it has not: what compresses responses would hold the
    events back (under WSGI until the end), or send each as an archive of its own, and asks for this first.

    Args:
        body: iterated by the server; its ``close`` is called with the response's.
        status: the HTTP status.
        headers: the headers, all there are.
    """

    def __init__(self, body: Any, status: int, headers: Headers) -> None:
        super().__init__(body, status=status)
        _set_headers(self, headers)

    def has_header(self, header: str) -> bool:
        """Whether it has a header, or passes as if it had."""
        return header.lower() == "content-encoding" or super().has_header(header)

    __contains__ = has_header


def of_wsgi(answer: wsgi.Answer) -> StreamResponse | HttpResponse:
    """The response to a request over WSGI."""
    if isinstance(answer.body, list):
        return whole(answer.status, answer.headers, b"".join(answer.body))
    body = answer.body if _leaves(answer.headers) else _Body(answer.body)
    return StreamResponse(body, answer.status, answer.headers)


def of_asgi(answer: asgi.Answer, scope: Scope, words: bytes | None = None) -> StreamResponse | HttpResponse:
    """The response to a request over ASGI.

    Args:
        answer: the door's.
        scope: the ASGI connection scope.
        words: all of its body, where it is no stream.
    """
    if words is not None:
        return whole(answer.status, answer.headers, words)
    body = answer.body if _leaves(answer.headers) else _AsyncBody(answer.body, scope)
    return StreamResponse(body, answer.status, answer.headers)


async def read_whole(body: asgi_body.Body) -> bytes:
    """All of a body that has an end, which is closed."""
    try:
        return b"".join([chunk async for chunk in body])
    finally:
        body.close()


def whole(status: int, headers: Headers, body: bytes) -> HttpResponse:
    """A response that is no stream."""
    response = HttpResponse(body, status=status)
    _set_headers(response, headers)
    return response


def _set_headers(response: HttpResponse | StreamingHttpResponse, headers: Headers) -> None:
    del response.headers["Content-Type"]
    for name, value in headers:
        response.headers[name] = value


def _leaves(headers: Headers) -> bool:
    """Whether the connection is handed over, so that the response is over at once."""
    return any(name == MARK for name, _ in headers)


class _Body:
    """A stream's bytes, in one of the server's threads.

    Args:
        body: the door's.
    """

    def __init__(self, body: wsgi.Body) -> None:
        self._body = body
        self._begun = False

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            give_back()
        return next(self._body)

    def close(self) -> None:
        """End it, begun or not."""
        self._body.close()


class _AsyncBody:
    """A stream's bytes, on the server's loop.

    Args:
        body: the door's.
        scope: the ASGI connection scope.
    """

    def __init__(self, body: asgi_body.Body, scope: Scope) -> None:
        self._body = body
        self._scope = scope
        self._client: Client | None = None

    def __aiter__(self) -> _AsyncBody:
        return self

    async def __anext__(self) -> bytes:
        client = self._client
        if client is None:
            await agive_back()
            first = await anext(self._body)
            self._client = Client(self._body, self._scope)
            return first
        await client.wait_for_room(last=False)
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            await client.wait_for_room(last=True)
            raise

    async def aclose(self) -> None:
        """End it, on the loop."""
        await self._body.aclose()
        self.close()

    def close(self) -> None:
        """End it, begun or not; from any thread."""
        self._body.close()
        if self._client is not None:
            self._client.forget()
