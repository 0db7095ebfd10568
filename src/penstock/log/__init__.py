"""Durable, totally ordered logs, one engine each.

The rule of this layer: it imports ``penstock.core``, ``penstock.loops``, ``penstock.threads`` and
``penstock.errors``, and a driver only in the package of the engine that needs it. Its locks and its waiting
are of ``penstock.threads``.
``open_log`` turns a URL into a log.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from penstock.errors import ConfigError, MissingExtra
from penstock.log.base import Log

__all__ = ["LogMaker", "log_maker", "open_log"]

LogMaker = Callable[[], Log]


def open_log(url: str) -> Log:
    """The log that a URL names; not opened yet.

    ``memory:`` · ``sqlite:///relative.db`` · ``sqlite:////absolute.db`` · ``redis://`` · ``postgresql://`` ·
    ``nats://``; the page docs/logs.md has the options of each.

    Raises:
        ConfigError: if the URL names none.
    """
    return log_maker(url)()


def log_maker(url: str) -> LogMaker:
    """What makes logs of a URL: the same one each time, wherever the process has moved meanwhile.

    Raises:
        ConfigError: if the URL names none.
    """
    if not isinstance(url, str) or not url:
        raise ConfigError(f"a log's URL is text such as 'sqlite:///penstock.db', not {url!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in url):  # bytes of a command line, for one
        raise ConfigError(f"a log's URL is UTF-8, which {url!r} is not")
    scheme, colon, _ = url.partition(":")
    kind = _KINDS.get(scheme) if colon else None
    if kind is None:
        known = ", ".join(f"{name}:" for name in _KINDS)
        shown = f"'{scheme}:'" if colon else "a URL without a scheme"
        raise ConfigError(f"no log is known for {shown}; there are {known}, as in 'sqlite:///app.db'")
    try:
        split = urlsplit(url)
    except ValueError:  # whose words may have the password
        raise ConfigError(
            f"the URL of a {scheme}: log cannot be read: its host has a letter that no host has, or a '[' "
            "without its ']'. In a user's name or a password such are written as %5B"
        ) from None
    return kind.maker()(split)


class _Kind(NamedTuple):
    """Where the logs of a scheme are made."""

    package: str
    extra: str | None = None  # that has the driver
    beside: str = ""  # what the driver needs, where the system does not have it

    @property
    def install(self) -> str:
        """What is to be installed, as it is written for pip."""
        return f"'penstock[{self.extra}]'" + (f" '{self.beside}'" if self.beside else "")

    def maker(self) -> Callable[[SplitResult], LogMaker]:
        try:
            module = import_module(self.package)
        except ImportError as error:
            if self.extra is None or (error.name or "").startswith("penstock"):
                raise
            raise MissingExtra(
                f"the driver that this log needs cannot be imported ({error}): pip install {self.install}"
            ) from error
        return cast(Callable[[SplitResult], LogMaker], module.from_url)


_REDIS = _Kind("penstock.log.redis", "redis")
_POSTGRES = _Kind("penstock.log.postgres", "postgres", beside="psycopg[binary]")
_KINDS = {
    "memory": _Kind("penstock.log.memory"),
    "sqlite": _Kind("penstock.log.sqlite"),
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "nats": _Kind("penstock.log.nats", "nats"),
}
