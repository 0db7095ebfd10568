"""The one border where errors of the driver, of JetStream and of the network become ours."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator
from typing import Any

from nats import errors as nats

from penstock.errors import (
    EventTooLarge,
    LogDenied,
    LogError,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    PenstockError,
)

# Of JetStream's error codes, those that are met here by name.
NO_MESSAGE = 10037
STREAM_EXISTS = 10058
NO_STREAM = 10059
NOT_ENABLED = {10039, 10076}
OTHERS_WROTE = {10070, 10071, 10164, 10158, 10163}  # not the last message, sequence; one is on its way

_FULL = {10002, 10023, 10028, 10047, 10122}
_TOO_LARGE = {10054, 10097}
_OVERLAP = 10065
_NO_CLUSTER = 10074
_NO_PEERS = 10005
_STORE_FAILED = 10077
_WRONG_LAST = re.compile(r"wrong last sequence: (\d+)")
_NO_ROOM = re.compile("maximum|no space|quota|resource|limit", re.IGNORECASE)
_DENIED = re.compile(r"authori[sz]ation|authentication|permissions|credential|nonce|nkey", re.IGNORECASE)


class ConnectionLost(Exception):
    """The connection broke, or nothing came through it: what was sent may have arrived."""


class NoResponders(Exception):
    """Nobody in the cluster takes messages of this subject now: what was sent is nowhere."""


class Refused(Exception):
    """JetStream's own error; what was asked for was not done.

    Attributes:
        number: of JetStream's list of errors.
        code: as of HTTP.
        last: the place of the newest message, of the stream or of a subject, if it is not the expected one.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        self.number = int(error.get("err_code", 0))
        self.code = int(error.get("code", 0))
        found = _WRONG_LAST.search(str(error.get("description", "")))
        self.last = int(found[1]) if found is not None else None
        super().__init__(f"{error.get('description', 'no reason given')} ({self.number or self.code})")


@contextlib.contextmanager
def translated(what: str, url: str) -> Iterator[None]:
    """Let no foreign error out of the block.

    Args:
        what: what the block does, for the message: "could not <what>".
        url: the log's.
    """
    try:
        yield
    except PenstockError:
        raise
    except Refused as error:
        raise _of_jetstream(error, f"could not {what}: {url}") from error
    except NoResponders as error:
        raise LogUnavailable(
            f"could not {what}: no server of {url} leads the stream now; nothing was stored: it may be "
            "electing one, or too few servers are up"
        ) from error
    except Exception as error:
        raise LogUnavailable(f"could not {what}: {url}: {_text(error)}; nothing was stored") from error


def is_denial(error: Exception) -> bool:
    """Whether the server knows us and says no."""
    return isinstance(error, nats.AuthorizationError) or (
        isinstance(error, nats.Error) and bool(_DENIED.search(str(error)))
    )


def connecting(errors: dict[str, Exception], url: str) -> LogError:
    """What to say when no server could be reached.

    Args:
        errors: why, by server.
        url: the log's.
    """
    why = "; ".join(f"{server}: {_text(error)}" for server, error in errors.items())
    for server, error in errors.items():
        if isinstance(error, ssl.SSLCertVerificationError):
            return LogUnusable(
                f"{server} has no certificate that is trusted here ({error.verify_message}); name the "
                "authority that signed it: tls_ca=/path.pem in the log's URL"
            )
        if is_denial(error):
            return LogDenied(
                f"{server} does not let us in ({_text(error)}): check user and password, token or creds "
                f"of {url}"
            )
    return LogUnavailable(f"no server of {url} can be reached ({why}); nothing was stored")


def denied(error: Exception, url: str) -> LogDenied:
    """What to say when a subject may not be used."""
    return LogDenied(
        f"{url}: {_text(error)}; nothing was stored: docs/nats.md has the permissions that are needed"
    )


def not_enabled(url: str) -> LogUnusable:
    """What to say when there is no JetStream."""
    return LogUnusable(
        f"JetStream is not enabled at {url}, or not for this account: start the server with --jetstream "
        "and --store_dir, or give its configuration a block jetstream {}"
    )


def _of_jetstream(error: Refused, said: str) -> Exception:
    number, text = error.number, str(error)
    if number in _FULL or (number == _STORE_FAILED and _NO_ROOM.search(text)):
        return LogFull(
            f"{said}: no room: {text}; nothing was stored, and what was before is kept: give JetStream or "
            "the stream more room, or lower the retention"
        )
    if number in NOT_ENABLED:
        return not_enabled(said)
    if number in _TOO_LARGE:
        return EventTooLarge(f"{said}: {text}: raise the stream's max_msg_size; nothing was stored")
    if number == _OVERLAP:
        return NotALog(
            f"{said}: another stream has subjects of this name ({text}); it was left as it is: name another "
            "stream in the log's URL, or another prefix="
        )
    if number == _NO_CLUSTER:
        return LogUnusable(f"{said}: {text}: replicas= needs a cluster with JetStream of so many servers")
    if error.code == 503 or number in (_NO_PEERS, _STORE_FAILED):
        return LogUnavailable(f"{said}: {text}; nothing was stored")
    return LogUnusable(f"{said}: JetStream refuses: {text}; nothing was stored")


def _text(error: BaseException) -> str:
    text = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    return "no answer in time" if isinstance(error, TimeoutError) else text
