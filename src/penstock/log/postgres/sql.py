"""The statements of a log: those of the ``.sql`` files, with its names in them.

``@record`` in a file is the table ``penstock_record`` of the schema ``public``, or whatever the URL says;
``@bell`` is the channel of notifications, and ``@planned`` how functions are planned.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

SCHEMA_VERSION = 1

_PARTS = ("schema", "append", "outbox", "read", "trim")  # of which the objects are made, in this order
_NAME = re.compile(r"@(\w+)")
# The plans of functions are kept. They may have been made when the tables were small, or for other values;
# and what seems costly then would be compiled, which takes longer than all that is asked here.
_PLANNED = "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off"


class Names(NamedTuple):
    """What the objects of a log are called.

    Attributes:
        schema: where they are.
        prefix: how their names begin.
    """

    schema: str = "public"
    prefix: str = "penstock"

    @property
    def bell(self) -> str:
        """The channel of notifications."""
        return f"{self.schema}.{self.prefix}"

    def of(self, name: str) -> str:
        """An object's name, as it stands in statements."""
        return f"{quoted(self.schema)}.{quoted(f'{self.prefix}_{name}')}"

    def fill(self, text: str) -> str:
        """Put the names in the place of each ``@name``."""
        own = {"bell": f"'{self.bell}'", "planned": _PLANNED}
        return _NAME.sub(lambda found: own.get(found[1]) or self.of(found[1]), text)


class Statements(NamedTuple):
    """What a log asks its server for, with its names."""

    append: bytes
    settle: bytes
    renew: bytes
    look: bytes
    read: bytes
    latest: bytes
    trim: bytes
    forget: bytes
    version: bytes


def quoted(name: str) -> str:
    """An identifier as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def creation(names: Names) -> str:
    """What makes the objects of a log."""
    return names.fill("\n".join(map(_text, _PARTS)))


@lru_cache
def statements(names: Names) -> Statements:
    """The statements of a log."""

    def call(function: str, parameters: int) -> bytes:
        numbers = ", ".join(f"${number}" for number in range(1, parameters + 1))
        return names.fill(f"SELECT * FROM @{function}({numbers})").encode()

    return Statements(
        append=call("append", 13),
        settle=call("settle", 4),
        renew=call("renew", 3),
        look=call("look", 3),
        read=call("read", 6),
        latest=call("latest", 6),
        trim=call("trim", 4),
        forget=call("forget", 0),
        version=names.fill("SELECT version, id FROM @log").encode(),
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.sql").read_text("utf-8")
