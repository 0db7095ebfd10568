"""The one border where the driver's errors, and the server's, become ours."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    ResponseError,
    TimeoutError,
)

from penstock.errors import (
    LogCorrupt,
    LogDenied,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    PenstockError,
)

# The first word of what a server answers. The driver takes some away and makes a class of each; and what
# is refused within a script is told in the midst of a sentence by servers before 7.0.
_CODES_OF_CLASSES = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "AuthorizationError": "NOPERM",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_CODES = re.compile(
    r"\b(ASK|BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN"
    r"|UNBLOCKED|WRONGPASS|WRONGTYPE)\b"
)
# Those that say nothing against the connection, nor against the server being the right one.
_PASSING = {"BUSY", "MISCONF", "NOPERM", "NOREPLICAS", "OOM", "WRONGTYPE"}

_NOT_NOW = {
    "ASK": "its part of the cluster is being moved",
    "BUSY": "the server is busy with somebody's script",
    "CLUSTERDOWN": "the cluster is down, or its part that holds the log",
    "LOADING": "the server is reading its data from its disk",
    "MASTERDOWN": "the server is a replica that has lost its primary",
    "MOVED": "another node of the cluster has it now",
    "NOREPLICAS": "the server has not enough replicas (min-replicas-to-write)",
    "READONLY": "the server is a replica, which may only be read",
    "TRYAGAIN": "its part of the cluster is being moved",
    "UNBLOCKED": "the server has become a replica",
}


def code_of(error: BaseException) -> str:
    """What a server refused something for; empty if it is unknown."""
    of_class = _CODES_OF_CLASSES.get(type(error).__name__)
    if of_class is not None:
        return of_class
    found = _CODES.search(str(error)) if isinstance(error, ResponseError) else None
    return found[1] if found else ""


def is_answer(error: BaseException) -> bool:
    """Whether the server itself says that it did not obey; else nobody knows whether it did."""
    return isinstance(error, ResponseError | AuthenticationError | AuthorizationError | BusyLoadingError)


def is_broken(error: BaseException) -> bool:
    """Whether the connection ended; as it may have long before, if it was not used."""
    return not is_answer(error) and not isinstance(error, TimeoutError)


def is_passing(error: BaseException) -> bool:
    """Whether the connection is as good as before."""
    return code_of(error) in _PASSING


def is_elsewhere(error: BaseException) -> bool:
    """Whether another server has to be asked."""
    return code_of(error) in ("ASK", "MOVED")


class Border:
    """Where errors about one log are translated.

    Args:
        url: the log.
        timeout_s: for how long an answer is waited for, for the message.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s

    def translate(self, error: BaseException, what: str) -> PenstockError:
        """Ours for one of the driver's, or of the system's.

        Args:
            error: theirs.
            what: what was done, for the message: "could not <what>".
        """
        could_not = f"could not {what} in {self._url}"
        if is_answer(error):
            return _of_server(error, could_not)
        if any(isinstance(cause, PermissionError) for cause in _causes(error)):
            return LogDenied(f"{could_not}: this user may not connect to the socket ({error})")
        return LogUnavailable(f"{could_not}: {self._of_network(error)}; nothing was stored")

    def _of_network(self, error: BaseException) -> str:
        for cause in _causes(error):
            if isinstance(cause, socket.gaierror):
                return f"the name of the server is not known ({cause.strerror})"
            if isinstance(cause, ssl.SSLError):
                return f"TLS failed ({cause}); the options ssl_… of the URL say whom to trust"
        if isinstance(error, TimeoutError | socket.timeout):
            return f"the server did not answer within {self._timeout_s:g} s ({error})"
        if isinstance(error, InvalidResponse):
            return f"what answers does not speak the protocol of Redis ({error!s:.100})"
        if isinstance(error, ConnectionError | OSError):
            return f"the connection to the server failed ({error})"
        return f"{type(error).__name__}: {error}"


def _of_server(error: BaseException, could_not: str) -> PenstockError:
    code, said = code_of(error), f"{error}"
    if code == "OOM":
        return LogFull(
            f"{could_not}: the server has no memory left (maxmemory); nothing was stored, and what was "
            "before is kept: raise maxmemory, or lower the retention"
        )
    if code == "MISCONF":
        kind = LogFull if "No space left" in said else LogUnavailable
        return kind(
            f"{could_not}: the server takes no writes because it cannot write to its disk ({said}); "
            "nothing was stored: see the server's log"
        )
    if code == "WRONGTYPE":
        return NotALog(
            f"{could_not}: a key with this prefix is something else than a log's ({said}); it was left as "
            "it is: choose another prefix="
        )
    if code in ("NOAUTH", "WRONGPASS"):
        return LogDenied(
            f"{could_not}: the server does not let us in ({said}); name the right user and password in "
            "the URL"
        )
    if code == "NOPERM":
        return LogDenied(
            f"{could_not}: this user may not do that ({said}); see docs/redis.md for what it needs"
        )
    if code in _NOT_NOW:
        return LogUnavailable(f"{could_not}: {_NOT_NOW[code]} ({said}); nothing was stored")
    if "equal or smaller than the target" in said:
        return LogCorrupt(f"{could_not}: something else has written to the stream ({said})")
    if "unknown command" in said or "syntax error" in said:
        return LogUnusable(f"{could_not}: Redis or Valkey 6.2 or newer is needed ({said})")
    return LogUnavailable(f"{could_not}: the server refused ({said}); nothing was stored")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
