"""Durable, totally ordered logs, one engine each.

The rule of this layer: it imports ``penstock.core``, ``penstock.threads`` and ``penstock.errors``, and a
driver only in the module of the engine that needs it. Its locks and its waiting are of ``penstock.threads``.
``open_log`` turns a URL into a log.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from penstock.errors import ConfigError
from penstock.log.base import Log
from penstock.log.memory import MemoryLog

__all__ = ["open_log"]


def open_log(url: str) -> Log:
    """The log that a URL names; not opened yet.

    ``memory:`` · ``sqlite:///relative.db`` · ``sqlite:////absolute.db``, both with ``?sync=full`` or
    ``?sync=normal``.

    Raises:
        ConfigError: if the URL names none.
    """
    if not isinstance(url, str) or not url:
        raise ConfigError(f"a log's URL is text such as 'sqlite:///penstock.db', not {url!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in url):  # bytes of a command line, for one
        raise ConfigError(f"a log's URL is UTF-8, which {url!r} is not")
    scheme, colon, _ = url.partition(":")
    make = _SCHEMES.get(scheme) if colon else None
    if make is None:
        known = ", ".join(f"{name}:" for name in _SCHEMES)
        shown = f"'{scheme}:'" if colon else "a URL without a scheme"
        raise ConfigError(f"no log is known for {shown}; there are {known}, as in 'sqlite:///app.db'")
    return make(urlsplit(url))


def _memory(url: SplitResult) -> Log:
    if url.netloc or url.path or url.query:
        raise ConfigError("the log in memory is 'memory:' and nothing more")
    return MemoryLog()


def _sqlite(url: SplitResult) -> Log:
    from penstock.log.sqlite import SQLiteLog

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
    return SQLiteLog(path[1:], "full" if sync == "full" else "normal")


_SCHEMES: dict[str, Callable[[SplitResult], Log]] = {"memory": _memory, "sqlite": _sqlite}
