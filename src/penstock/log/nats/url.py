"""``nats://user:password@host1:4222,host2:4222/stream?replicas=3``; the page docs/nats.md has all options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote

from penstock.errors import ConfigError
from penstock.log.base import Log

PORT = 4222
STREAM = "penstock"
TIMEOUT_S = 10.0  # for an operation, with what it takes to find out whether it was done
CONNECT_TIMEOUT_S = 5.0

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]@/?#]+)(?::([0-9]{1,5}))?")
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,100}")  # what JetStream takes is more, but a folder of that name too
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Server(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """As in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """What a log's URL says. What is secret is not shown.

    Attributes:
        servers: those of the cluster that are known.
        user: a user, or None.
        password: the user's password.
        token: a token, or None.
        stream: the stream's name.
        prefix: what its subjects begin with.
        replicas: on how many servers a new stream rests.
        domain: the JetStream domain, or None for that of the servers.
        timeout_s: how long an operation may take.
        connect_timeout_s: how long a server may take to answer a new connection.
        tls: whether to refuse a connection without TLS.
        tls_ca: the authority that signed the servers' certificates, a file; or None for the system's.
        tls_cert: our own certificate, a file; or None.
        tls_key: its key, a file; None if it is in the same.
        creds: a file of credentials (a JWT and its key), or None.
        nkey: a file with the seed of an NKey, or None.
        inbox: what the subjects of answers begin with.
    """

    servers: tuple[Server, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    stream: str = STREAM
    prefix: str = STREAM
    replicas: int = 1
    domain: str | None = None
    timeout_s: float = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    creds: str | None = None
    nkey: str | None = None
    inbox: str = "_INBOX"

    @property
    def answer_s(self) -> float:
        """How long to wait for one answer: then there is time to ask again, and elsewhere."""
        return self.timeout_s / 4

    @property
    def url(self) -> str:
        """How to name the log to a person."""
        return f"nats://{','.join(map(str, self.servers))}/{self.stream}"


def from_url(url: SplitResult) -> Callable[[], Log]:
    """What makes logs of such a URL."""
    from penstock.log.nats.log import NatsLog

    return partial(NatsLog, settings_of(url))


def settings_of(url: SplitResult) -> Settings:
    """Read a URL.

    Raises:
        ConfigError: if it is no URL of a log; the message shows neither password nor token.
    """
    if "@" in url.path + url.query + url.fragment:  # an unencoded / or ? in a password has cut it in two
        raise ConfigError(
            "a nats: URL is 'nats://user:password@host:4222/stream'; letters of the password such as @ / ? # "
            "are %-encoded"
        )
    login, _, hosts = url.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    stream = unquote(url.path).strip("/") or STREAM
    if not _STREAM.fullmatch(stream):
        raise ConfigError(
            f"the path of a nats: URL is the name of a stream, of letters, digits, - and _; not {stream!r}"
        )
    options = _Options(url.query)
    settings = Settings(
        servers=tuple(map(_server, hosts.split(","))),
        user=unquote(user) if colon else None,
        password=unquote(password) if colon else None,
        token=unquote(user) if user and not colon else None,
        stream=stream,
        prefix=options.matching("prefix", _PREFIX, "words parted by dots") or stream,
        replicas=int(options.number("replicas", 1, 5, whole=True) or 1),
        domain=options.matching("domain", _PREFIX, "the name of a JetStream domain"),
        timeout_s=options.number("timeout", 0.1, 600) or TIMEOUT_S,
        connect_timeout_s=options.number("connect_timeout", 0.1, 600) or CONNECT_TIMEOUT_S,
        tls=options.yes_or_no("tls"),
        tls_ca=options.text("tls_ca"),
        tls_cert=options.text("tls_cert"),
        tls_key=options.text("tls_key"),
        creds=options.text("creds"),
        nkey=options.text("nkey"),
        inbox=options.matching("inbox", _PREFIX, "words parted by dots") or "_INBOX",
    )
    options.refuse_the_rest()
    if sum(way is not None for way in (settings.user, settings.token, settings.creds, settings.nkey)) > 1:
        raise ConfigError("a nats: URL has a user and password, a token, creds= or nkey=: one of them")
    if settings.tls_key is not None and settings.tls_cert is None:
        raise ConfigError("tls_key= is the key of tls_cert=, which is missing in the nats: URL")
    return settings


def _server(text: str) -> Server:
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or PORT) not in range(1, 65_536):
        raise ConfigError(
            "a server of the nats: URL cannot be read; it is 'nats://host:4222/stream', with a user "
            "'nats://user:password@host:4222/stream', with several servers of a cluster "
            "'nats://one:4222,two:4222/stream'"  # it is not shown: it may be a password without a host
        )
    return Server(found[1].strip("[]"), int(found[2] or PORT))


class _Options:
    """The options of a URL; each is taken once."""

    def __init__(self, query: str) -> None:
        pairs = parse_qsl(query, keep_blank_values=True)
        self._left = dict(pairs)
        if len(self._left) != len(pairs):
            raise ConfigError("an option of the nats: URL is there twice")

    def text(self, name: str) -> str | None:
        value = self._left.pop(name, None)
        if value == "":
            raise ConfigError(f"the option {name}= of the nats: URL is empty")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], what: str) -> str | None:
        value = self.text(name)
        if value is not None and not pattern.fullmatch(value):
            raise ConfigError(f"the option {name}= of a nats: URL is {what}, not {value!r}")
        return value

    def number(self, name: str, least: float, most: float, *, whole: bool = False) -> float | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(int(value) if whole else float(value))
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            what = "a whole number" if whole else "a number"
            raise ConfigError(
                f"the option {name}= of a nats: URL is {what} from {least} to {most}, not {value!r}"
            )
        return number

    def yes_or_no(self, name: str) -> bool:
        value = self.text(name) or "no"
        if value not in _YES_OR_NO:
            raise ConfigError(f"the option {name}= of a nats: URL is yes or no, not {value!r}")
        return _YES_OR_NO[value]

    def refuse_the_rest(self) -> None:
        if self._left:
            known = (
                "replicas prefix domain timeout connect_timeout tls tls_ca tls_cert tls_key creds nkey inbox"
            )
            raise ConfigError(
                f"{', '.join(map(repr, self._left))}: no option of a nats: URL; there are "
                + ", ".join(f"{name}=" for name in known.split())
            )
