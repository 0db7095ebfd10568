"""Values as PostgreSQL takes and gives them in its binary format.

https://www.postgresql.org/docs/current/protocol-overview.html; an array is a header and its elements, each
with its length before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from psycopg.pq.abc import PGresult

BOOL, BYTEA, INT8, INT4, TEXT, FLOAT8 = 16, 17, 20, 23, 25, 701
_ARRAY_OF = {BOOL: 1000, BYTEA: 1001, INT4: 1007, TEXT: 1009}

_int4 = Struct("!i")
_int8 = Struct("!q")
_float8 = Struct("!d")
_array = Struct("!iiIii")  # dimensions, whether there are NULLs, type, length, lower bound
_NULL = _int4.pack(-1)

read_int4 = _int4.unpack
read_int8 = _int8.unpack
read_float8 = _float8.unpack


class Value(NamedTuple):
    """A parameter of a statement."""

    type: int
    data: bytes | None


def text(value: str | None) -> Value:
    """A ``text``."""
    return Value(TEXT, None if value is None else value.encode())


def bigint(value: int | None) -> Value:
    """A ``bigint``."""
    return Value(INT8, None if value is None else _int8.pack(value))


def integer(value: int) -> Value:
    """An ``integer``."""
    return Value(INT4, _int4.pack(value))


def double(value: float | None) -> Value:
    """A ``double precision``."""
    return Value(FLOAT8, None if value is None else _float8.pack(value))


def boolean(value: bool) -> Value:
    """A ``boolean``."""
    return Value(BOOL, b"\1" if value else b"\0")


def texts(values: Iterable[str | None]) -> Value:
    """A ``text[]``."""
    return _array_of(TEXT, [None if value is None else value.encode() for value in values])


def bytes_of(values: Iterable[str]) -> Value:
    """A ``bytea[]``, of texts in UTF-8."""
    return _array_of(BYTEA, [value.encode() for value in values])


def integers(values: Iterable[int | None]) -> Value:
    """An ``integer[]``."""
    return _array_of(INT4, [None if value is None else _int4.pack(value) for value in values])


def booleans(values: Iterable[bool]) -> Value:
    """A ``boolean[]``."""
    return _array_of(BOOL, [b"\1" if value else b"\0" for value in values])


def none_of(type: int) -> Value:
    """NULL instead of an array."""
    return Value(_ARRAY_OF[type], None)


def _array_of(type: int, elements: Sequence[bytes | None]) -> Value:
    if not elements:
        return Value(_ARRAY_OF[type], _array.pack(0, 0, type, 0, 0)[:12])
    parts = [_array.pack(1, 1 if None in elements else 0, type, len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_NULL)
        else:
            parts.append(_int4.pack(len(element)))
            parts.append(element)
    return Value(_ARRAY_OF[type], b"".join(parts))


def read_bigints(data: bytes) -> list[int]:
    """The elements of a ``bigint[]`` without NULLs."""
    count = _array.unpack_from(data)[3]
    return [_int8.unpack_from(data, _array.size + 4 + 12 * index)[0] for index in range(count)]


def row_of(answer: PGresult, row: int = 0) -> list[Any]:
    """The values of a row, in bytes; None for NULL."""
    value = answer.get_value
    return [value(row, column) for column in range(answer.nfields)]
