"""``postgresql://user:password@host:port/database?options``, as libpq has it, and some options of our own.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import get_args
from urllib.parse import SplitResult, quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from penstock.errors import ConfigError
from penstock.log.base import Log
from penstock.log.postgres.log import PostgresLog
from penstock.log.postgres.options import CONNECT_TIMEOUT_S, TIMEOUT_S, Create, Doorbell, Place
from penstock.log.postgres.sql import Names

_OWN = ("create", "doorbell", "listen", "prefix", "schema", "sync", "timeout")
_SYNC = ("on", "off", "local", "remote_write", "remote_apply")
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,29}")  # with what follows it, a name has at most 63 bytes
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,31}")
_SECRET = ("password", "sslpassword", "oauth_client_secret")
_HIDDEN = "…"


def from_url(url: SplitResult) -> Callable[[], Log]:
    """What makes logs of such a URL."""
    if url.fragment:
        raise ConfigError("the URL of a postgresql: log has a '#'; in a password it is written %23")
    own: dict[str, str] = {}
    others: list[str] = []  # as they are written
    for pair in filter(None, url.query.split("&")):
        name, _, value = pair.partition("=")
        if unquote(name) in _OWN:
            own[unquote(name)] = unquote(value)
        else:
            others.append(pair)
    parameters = _parameters(url, others)
    place = Place(
        conninfo=make_conninfo("", **parameters),
        shown=_shown(url),
        names=Names(
            _matching(own, "schema", _SCHEMA, "public", "letters, digits, '_' and '-', up to 32"),
            _matching(own, "prefix", _PREFIX, "penstock", "small letters, digits and '_', up to 30"),
        ),
        create="init" if _one_of(own, "create", get_args(Create), "use") == "init" else "use",
        timeout_s=_timeout(own),
        doorbell="poll" if _one_of(own, "doorbell", get_args(Doorbell), "listen") == "poll" else "listen",
        listen=_listen(own, parameters),
        sync=_one_of(own, "sync", _SYNC, None),
    )
    return partial(PostgresLog, place)


def _parameters(url: SplitResult, query: list[str]) -> dict[str, str]:
    """What libpq makes of a URL, and what is set unless that says otherwise."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    for pair in query:
        name = unquote(pair.partition("=")[0])
        if name not in known:
            near = difflib.get_close_matches(name, [*_OWN, *known], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"the URL of a postgresql: log has no option {name!r}{hint} Its own are {', '.join(_OWN)}; "
                "all others are those of libpq"
            )
    text = f"postgresql://{url.netloc}{url.path}" + ("?" + "&".join(query) if query else "")
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except (psycopg.Error, UnicodeDecodeError, UnicodeEncodeError, ValueError):
        raise ConfigError(
            f"{_shown(url)!r} cannot be read: it is postgresql://user:password@host:port/database?options, "
            "and what has a meaning in a URL is written in a password as %40 for @, %2F for /, %3A for :"
        ) from None  # what libpq says may show the password
    for port in given.get("port", "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigError(f"{_shown(url)!r}: a port is a number up to 65535")
    # A server that has gone without a word is noticed by the kernel, also where nobody waits for an answer.
    defaults = {
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "fallback_application_name": "penstock",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    }
    if "," in given.get("host", ""):
        defaults["target_session_attrs"] = "read-write"
    return {**defaults, **given, "client_encoding": "UTF8"}


def _listen(own: Mapping[str, str], parameters: Mapping[str, str]) -> str | None:
    where = own.get("listen")
    if where is None:
        return None
    host, _, port = where.rpartition(":") if ":" in where else (where, "", "5432")
    if not host or not port.isdigit():
        raise ConfigError(f"listen={where!r}: it is the server itself, as HOST or HOST:PORT")
    alike = {name: value for name, value in parameters.items() if name != "hostaddr"}
    return make_conninfo("", **{**alike, "host": host, "port": port})


def _shown(url: SplitResult) -> str:
    """The URL without what is secret."""
    user, at, host = url.netloc.rpartition("@")
    query = [
        f"{pair.partition('=')[0]}={_HIDDEN}" if unquote(pair.partition("=")[0]) in _SECRET else pair
        for pair in url.query.split("&")
    ]
    shown = f"postgresql://{quote(unquote(user.partition(':')[0]))}{at}{host}{url.path}"
    return shown + (f"?{'&'.join(query)}" if url.query else "")


def _matching(own: Mapping[str, str], name: str, pattern: re.Pattern[str], default: str, what: str) -> str:
    value = own.get(name, default)
    if not pattern.fullmatch(value):
        raise ConfigError(f"{name}={value!r}: it is {what}")
    return value


def _one_of(own: Mapping[str, str], name: str, known: tuple[str, ...], default: str | None) -> str | None:
    value = own.get(name, default)
    if value is not None and value not in known:
        raise ConfigError(f"{name}={value!r}: it is one of {', '.join(known)}")
    return value


def _timeout(own: Mapping[str, str]) -> float:
    try:
        value = float(own.get("timeout", TIMEOUT_S))
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= 3600:
        raise ConfigError(f"timeout={own['timeout']!r}: it is a number of seconds, from 0.1 to 3600")
    return value
