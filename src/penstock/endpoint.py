"""What the ready-made endpoints of all faces have in common: streams of channels that the client names.

``?channel=a&channel=b``: a stranger wrote these names, so each is denied unless the app allows it. Patterns
are denied to all, since what matches them tomorrow nobody has been asked about.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from penstock.core.channel import MAX_CHANNELS_PER_STREAM, check_channel, refuse_own
from penstock.doors.cors import Headers, cors_headers, preflight_headers
from penstock.errors import BadChannel, ConfigError
from penstock.options import Options

CHANNEL = "channel"  # the argument of the query
METHODS = ("GET", "HEAD", "OPTIONS")

Authorize = Callable[[Any, str], object]  # a truth, or where the face can wait, an awaitable one

logger = logging.getLogger("penstock.endpoint")


class Denied(Exception):
    """A request that gets no stream.

    Args:
        status: the HTTP status.
        words: what the client is told.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class Reply(NamedTuple):
    """An answer that is no stream: what a face makes its framework's response of."""

    status: int
    headers: Headers
    body: bytes


def named_channels(names: Sequence[str]) -> list[str]:
    """The channels that a client named, each once.

    Raises:
        Denied: if there are none, too many, or one that is none.
    """
    unique = list(dict.fromkeys(names))
    if not unique:
        raise Denied(400, f"Which channel? Name it: ?{CHANNEL}=news")
    if len(unique) > MAX_CHANNELS_PER_STREAM:
        raise Denied(400, f"A stream follows at most {MAX_CHANNELS_PER_STREAM} channels.")
    for name in unique:
        try:
            refuse_own(check_channel(name))
        except BadChannel as error:
            raise Denied(400, f"{error}.") from error
    return unique


def check_authorize(authorize: Authorize | None, *, may_wait: bool) -> Authorize:
    """What decides about each channel, when an endpoint is made.

    Args:
        authorize: the app's, called with the request and the channel; None to deny everything.
        may_wait: whether it may be a coroutine function.

    Raises:
        ConfigError: if it is nothing that can be called.
    """
    if authorize is None:
        logger.warning("an endpoint without authorize= refuses every channel: say who may read which")
        return _nobody
    if not callable(authorize):
        raise ConfigError(f"authorize is called with a request and a channel; {authorize!r:.80} cannot be")
    if not may_wait and inspect.iscoroutinefunction(authorize):
        raise ConfigError("authorize is a coroutine function, and nobody could await it here: write 'def'")
    return authorize


def allow(authorize: Authorize, request: Any, names: Sequence[str]) -> None:
    """Ask about each channel.

    Raises:
        Denied: if one is not allowed.
        ConfigError: if the answer would have to be awaited.
    """
    for name in names:
        answer = authorize(request, name)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigError("authorize gave something to be awaited, and nobody can here: write 'def'")
        _heed(answer, name)


async def aallow(authorize: Authorize, request: Any, names: Sequence[str]) -> None:
    """As ``allow``, for coroutines."""
    for name in names:
        answer = authorize(request, name)
        while inspect.isawaitable(answer):  # what runs in a thread may give a coroutine too, and all are true
            answer = await answer
        _heed(answer, name)


def denial(denied: Denied, options: Options, web_origin: str | None) -> Reply:
    """The answer to a request that gets no stream. An ``EventSource`` does not come back after it."""
    plain = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    headers = plain + cors_headers(options.cors_origins, web_origin)
    return Reply(denied.status, headers, f"{denied.words}\n".encode())


def preflight(options: Options, web_origin: str | None) -> Reply:
    """The answer to OPTIONS."""
    return Reply(204, preflight_headers(options.cors_origins, web_origin), b"")


def value_for(request: Any, given: Any) -> Any:
    """An argument that is a value, or is made of the request by a function."""
    return given(request) if callable(given) else given


async def avalue_for(request: Any, given: Any) -> Any:
    """As ``value_for``, for coroutines: the function may be one too."""
    value = value_for(request, given)
    return await value if inspect.isawaitable(value) else value


def _heed(answer: Any, name: str) -> None:
    if not answer:
        raise Denied(403, f"Channel {name!r} is not yours to read.")


def _nobody(request: Any, channel: str) -> bool:
    return False
