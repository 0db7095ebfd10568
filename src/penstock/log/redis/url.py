"""``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``, and their options.

A server, or several with commas between them; a user and a password; a database; and options::

    redis://user:password@host:6379/0?prefix=shop
    unix:///run/redis.sock?db=1
    redis+sentinel://host1,host2:26379/mymaster/0
    redis+cluster://host1:7000,host2:7000

No message shows more of a URL than the names of its options: what is in the wrong place may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote

from penstock.errors import ConfigError
from penstock.log.base import Log
from penstock.log.redis.log import RedisLog
from penstock.log.redis.target import (
    CONNECT_TIMEOUT_S,
    DEFAULT_PREFIX,
    PORT,
    SENTINEL_PORT,
    TIMEOUT_S,
    Address,
    Credentials,
    Target,
    Way,
)

_PREFIX = re.compile(r"[!-z|~]{1,100}", re.ASCII)  # what is printable; no space and no braces
_MAX_DB = 1_000_000
_MAX_REPLICAS = 100
_LONGEST_S = 3600.0

_OPTIONS = {"prefix", "timeout", "connect_timeout", "replicas"}
_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}


def from_url(url: SplitResult) -> Callable[[], Log]:
    """What makes logs of such a URL."""
    return partial(RedisLog, target_of(url))


def target_of(url: SplitResult) -> Target:
    """What a URL says.

    Raises:
        ConfigError: if it cannot be.
    """
    if url.fragment:
        raise ConfigError(f"a {url.scheme}: URL has no '#'; in a password it is written %23")
    base, _, form = url.scheme.partition("+")
    way: Way = "sentinel" if form == "sentinel" else "cluster" if form == "cluster" else "server"
    user_info, _, hosts = url.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    options = _options(url, base, way)
    if base == "unix":
        if hosts or not url.path.strip("/"):
            raise ConfigError("a unix: URL names a socket: 'unix:///run/redis.sock' has three slashes")
        addresses: tuple[Address, ...] = (Address(unquote(url.path), None),)
        service, db = "", options.pop("db", "0")
        shown = "unix://" + quote(addresses[0].host)
    else:
        addresses = tuple(_address(host, url.scheme, way) for host in (hosts or "localhost").split(","))
        service, db = _path(url, way, options)
        shown = f"{url.scheme}://{','.join(map(str, addresses))}"
        shown += f"/{quote(service)}" if service else ""
    number = _whole("db", db, _MAX_DB)
    if way == "server" and len(addresses) > 1:
        raise ConfigError(
            f"a {url.scheme}: URL names one server; several are named by {base}+sentinel: or {base}+cluster:"
        )
    if way == "cluster" and number:
        raise ConfigError("a cluster has the database 0 alone")
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError("prefix= is 1 to 100 printable characters, without spaces and braces")
    if number:
        shown += f"?db={number}" if base == "unix" else f"/{number}"
    if prefix != DEFAULT_PREFIX:
        shown += f"{'&' if '?' in shown else '?'}prefix={quote(prefix)}"
    return Target(
        url=shown,
        way=way,
        addresses=addresses,
        service=service,
        db=number,
        prefix=prefix,
        credentials=Credentials(unquote(user) or None, unquote(password) or None),
        sentinel_credentials=Credentials(options.get("sentinel_username"), options.get("sentinel_password")),
        tls=_tls(options) if base == "rediss" else None,
        timeout_s=_seconds("timeout", options, TIMEOUT_S, 1.0),
        connect_timeout_s=_seconds("connect_timeout", options, CONNECT_TIMEOUT_S, 0.1),
        replicas=_whole("replicas", options.get("replicas", "0"), _MAX_REPLICAS),
    )


def _options(url: SplitResult, base: str, way: Way) -> dict[str, str]:
    pairs = parse_qsl(url.query, keep_blank_values=True)
    options = dict(pairs)
    known = {*_OPTIONS, "db"}
    known |= _TLS_OPTIONS if base == "rediss" else set()
    known |= _SENTINEL_OPTIONS if way == "sentinel" else set()
    if unknown := set(options) - known:
        # What is no name may be the rest of a password with a ? in it.
        named = ", ".join(
            sorted(name if re.fullmatch("[a-z_]+", name) else "(not shown)" for name in unknown)
        )
        why = "; those of TLS need rediss:" if base != "rediss" and unknown <= _TLS_OPTIONS else ""
        raise ConfigError(
            f"a {url.scheme}: URL has no option {named}{why}; there are {', '.join(sorted(known))}"
        )
    if len(options) < len(pairs):
        raise ConfigError(f"an option of the {url.scheme}: URL comes twice")
    return options


def _path(url: SplitResult, way: Way, options: dict[str, str]) -> tuple[str, str]:
    """The name that sentinels know, and the database."""
    parts = [unquote(part) for part in url.path.split("/") if part]
    service = ""
    if way == "sentinel":
        if not parts:
            raise ConfigError(
                f"a {url.scheme}: URL ends with what the sentinels call the primary: "
                f"'{url.scheme}://host1,host2/mymaster'"
            )
        service = parts.pop(0)
    if len(parts) > 1 or (parts and "db" in options):
        raise ConfigError(f"a {url.scheme}: URL names one database, by its number: '/0'")
    return service, parts[0] if parts else options.pop("db", "0")


def _address(text: str, scheme: str, way: Way) -> Address:
    found = re.fullmatch(r"\[([^\[\]]+)\](?::(\d{1,5}))?|([^:\[\]]+)(?::(\d{1,5}))?", text)
    port = int(found[2] or found[4] or 0) if found else 0
    if found is None or port > 65_535:
        raise ConfigError(
            f"a host of the {scheme}: URL cannot be read; it is 'host', 'host:port' or '[IPv6]:port', and "
            "in a user's name or password @ is written %40, : %3A, / %2F, # %23 and ? %3F"
        )
    return Address(unquote(found[1] or found[3]), port or (SENTINEL_PORT if way == "sentinel" else PORT))


def _whole(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) > most:
        raise ConfigError(f"{name} is a whole number from 0 to {most}")
    return int(text)


def _seconds(name: str, options: dict[str, str], default: float, least: float) -> float:
    try:
        seconds = float(options.get(name, default))
    except ValueError:
        seconds = 0.0
    if not least <= seconds <= _LONGEST_S:
        raise ConfigError(f"{name}= is a number of seconds from {least:g} to {_LONGEST_S:g}")
    return seconds


def _tls(options: dict[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {name: options[name] for name in _TLS_OPTIONS if name in options}
    needs = tls.setdefault("ssl_cert_reqs", "required")
    if needs not in ("required", "optional", "none"):
        raise ConfigError("ssl_cert_reqs= is required, optional or none")
    check = tls.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false", "1", "0", "yes", "no"):
        raise ConfigError("ssl_check_hostname= is true or false")
    # Without a certificate there is no name in it.
    tls["ssl_check_hostname"] = check in ("true", "1", "yes") and needs != "none"
    return tls
