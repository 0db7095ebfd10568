"""What a user publishes, and how data of any kind becomes the text that is stored and sent."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.core.channel import check_channel
from penstock.errors import BadData, EventTooLarge, InvalidEvent

MAX_EVENT_BYTES = 256 * 1024  # default; one event is held whole in the ring, in blocks and in browsers
MAX_TYPE_CHARS = 200
MAX_KEY_CHARS = 200
MAX_RETRY_MS = 24 * 3600 * 1000  # a longer pause is a mistake of units: retry is in milliseconds
OWN_TYPES = "penstock."  # the prefix of the event types that are Penstock's own
MAX_JSON_DEPTH = 50  # how deep the cause of bad data is looked for


@dataclass(frozen=True, slots=True)
class Event:
    """An event, checked when it is made.

    Args:
        channel: the name it is published to.
        data: ``str`` is kept as it is, ``bytes`` must be UTF-8, anything else becomes JSON.
        event: the event type (``addEventListener(type)``); None is EventSource's ``message``.
        retry: the browser's reconnection time from now on, in milliseconds.
        key: an idempotency key: per channel, the same key is stored once while its record is kept.
        end: this event is the end of its channel; then data is empty.

    Raises:
        InvalidEvent: for a value that could not be delivered as it is, or would forge another field.
    """

    channel: str
    data: Any
    event: str | None = None
    retry: int | None = None
    key: str | None = None
    end: bool = False

    def __post_init__(self) -> None:
        for name in ("channel", "event", "key"):
            value = getattr(self, name)
            if type(value) is not str and isinstance(value, str):
                object.__setattr__(self, name, _plain(value))
        check_channel(self.channel)
        if self.event is not None:
            _check_line(self.event, "event", MAX_TYPE_CHARS)
            if self.event.startswith(OWN_TYPES):
                raise InvalidEvent(f"event {self.event!r}: types that begin with 'penstock.' are ours")
        if self.key is not None:
            _check_line(self.key, "key", MAX_KEY_CHARS)
        if self.retry is not None and (type(self.retry) is not int or not 0 <= self.retry <= MAX_RETRY_MS):
            raise InvalidEvent(
                f"retry is a whole number of milliseconds up to {MAX_RETRY_MS}, not {self.retry!r}"
            )
        object.__setattr__(self, "data", to_text(self.data))
        if self.end and (self.data or self.event is not None):
            raise InvalidEvent("the end of a channel has no data and no type")

    @property
    def size(self) -> int:
        """Bytes of data, type and channel together, in UTF-8: what the size limit counts."""
        return len(self.data.encode()) + len((self.event or "").encode()) + len(self.channel.encode())

    def check_size(self, limit: int) -> None:
        """Raise EventTooLarge if the event has more than ``limit`` bytes."""
        # At most 4 bytes a character: the common small event is not encoded to be counted.
        if 4 * len(self.data) + 4 * (MAX_TYPE_CHARS + 200) > limit and self.size > limit:
            raise EventTooLarge(
                f"an event for {self.channel!r} has {self.size} bytes, over the limit of {limit}; it "
                "was not stored: send a reference to it, or raise max_event_bytes"
            )


def _plain(text: str) -> str:
    """The text of a subclass of ``str``, such as an enum whose members format as their names."""
    return str.__str__(text)


def _check_line(value: object, what: str, most: int) -> None:
    if not isinstance(value, str):
        raise InvalidEvent(f"{what} is text, not {type(value).__name__}: {value!r:.80}")
    if not 1 <= len(value) <= most:
        raise InvalidEvent(f"{what} has 1 to {most} characters, not {len(value)}")
    if "\n" in value or "\r" in value or "\0" in value:
        raise InvalidEvent(f"{what} {value!r} has CR, LF or NUL, which would forge another field")
    _check_utf8(value, what)


def _check_utf8(text: str, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"{what} has a lone surrogate at character {error.start}, which UTF-8 cannot carry"
        ) from error


def compact_json(value: Any) -> str:
    """JSON without needless spaces, letters as they are (RFC 8259: no NaN, no Infinity)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_text(data: Any, dumps: Callable[[Any], str] = compact_json) -> str:
    """Turn data into the text that is stored.

    Args:
        data: ``str`` as it is; ``bytes`` that are UTF-8; anything else goes through ``dumps``.
        dumps: the JSON encoder.

    Raises:
        BadData: if it is none of these; the message says where in the data.
    """
    if isinstance(data, str):
        text = data if type(data) is str else _plain(data)
    elif isinstance(data, bytes | bytearray | memoryview):
        try:
            return bytes(data).decode()
        except UnicodeDecodeError as error:
            raise BadData(
                f"data is bytes that are not UTF-8 (at byte {error.start}); encode binary data, "
                "as base64 for one: server-sent events carry text alone"
            ) from error
    else:
        try:
            text = dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            where, why = _find_bad(data, dumps, error)
            raise BadData(f"{where} cannot be stored as JSON: {why}") from error
    _check_utf8(text, "data")
    return text


def _find_bad(
    data: Any,
    dumps: Callable[[Any], str],
    error: Exception,
    path: str = "data",
    around: tuple[Any, ...] = (),
) -> tuple[str, str]:
    """The innermost part of the data that the encoder refuses, and why.

    Args:
        data: what is refused.
        dumps: the encoder.
        error: what it said.
        path: where in the whole this is.
        around: the containers that it lies in.
    """
    parts: list[tuple[str, Any]] = []
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str | int | float | bool | None):
                kind = type(key).__name__
                return f"{path}: the key {_brief.repr(key)}", f"a key is text, not {kind}"
        parts = [(f"{path}[{_brief.repr(key)}]", value) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        parts = [(f"{path}[{index}]", value) for index, value in enumerate(data)]
    around = (*around, data)
    for inner, value in parts if len(around) <= MAX_JSON_DEPTH else []:
        if any(value is container for container in around):
            return f"{inner}, {_describe(value)},", "circular, it lies within itself"
        try:
            dumps(value)
        except (TypeError, ValueError, RecursionError) as inner_error:
            return _find_bad(value, dumps, inner_error, inner, around)
    return f"{path}, {_describe(data)},", str(error)


def _describe(data: Any) -> str:
    return f"{type(data).__name__} {_brief.repr(data)}"


_brief = reprlib.Repr()  # short for anything: long, deep, or with a repr that fails
_brief.maxstring = _brief.maxother = 60
