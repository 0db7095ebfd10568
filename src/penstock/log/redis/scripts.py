"""The scripts that the server runs, each in one atomic step, and what they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

SCHEMA_VERSION = 1

# What the hash holds, and what a script answers first.
FIELDS = ("schema", "epoch", "trimmed", "head", "last", "blocks", "bytes", "largest")


class Script(NamedTuple):
    """A script, and the name by which a server knows it that ran it before."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script of a file beside this one."""
    parts = ["look"] if name == "look" else ["log", name]
    text = "\n".join(files(__package__).joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class State(NamedTuple):
    """A log as a whole.

    Attributes:
        epoch: its incarnation.
        trimmed: the highest seq that was removed.
        head: the highest seq that was given out.
        last: the mark of the newest block.
        blocks: how many there are.
        bytes: how large they are together.
        largest: how large the largest is that ever was.
    """

    epoch: str
    trimmed: int
    head: int
    last: str
    blocks: int
    bytes: int
    largest: int

    @classmethod
    def of(cls, fields: Sequence[str]) -> State:
        """From the values of ``FIELDS``."""
        _, epoch, trimmed, head, last, blocks, size, largest = fields
        return cls(epoch, int(trimmed), int(head), last, int(blocks), int(size), int(largest))
