"""``sqlite:///relative.db`` and ``sqlite:////absolute.db``, both with ``?sync=full`` or ``?sync=normal``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from urllib.parse import SplitResult, parse_qsl, unquote

from penstock.errors import ConfigError
from penstock.log.base import Log
from penstock.log.sqlite.log import SQLiteLog


def from_url(url: SplitResult) -> Callable[[], Log]:
    """What makes logs of such a URL. The file stays where it is when the process moves."""
    path = unquote(url.path)
    if url.netloc or not path.startswith("/") or path.endswith("/") or "\0" in path:
        shown = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()  # without a password
        raise ConfigError(
            f"{shown!r} names no file: 'sqlite:///relative.db' has three slashes, "
            "'sqlite:////absolute.db' has four"
        )
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    sync = options.pop("sync", "normal")
    if options or sync not in ("normal", "full"):
        raise ConfigError(f"{url.query!r}: the one option of a SQLite log is sync=normal or sync=full")
    return partial(SQLiteLog, os.path.abspath(path[1:]), "full" if sync == "full" else "normal")
