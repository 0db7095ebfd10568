"""The one border where the errors of psycopg and of the server become ours.

The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

from penstock.errors import (
    LogCorrupt,
    LogDenied,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    PenstockError,
)
from penstock.log.postgres.session import Lost, Refusal

GIVEN_UP, OTHER_LOG, NO_ROW = "PS001", "PS002", "PS003"  # what functions of ours raise

_UNDEFINED_TABLE, _UNDEFINED_FUNCTION, _NO_SCHEMA = "42P01", "42883", "3F000"
MISSING = (_UNDEFINED_TABLE, _UNDEFINED_FUNCTION, _NO_SCHEMA, NO_ROW)  # what a log needs is not there
READ_ONLY = "25006"
DUPLICATES = ("42P07", "42723", "42P06", "42710")  # of a table, a function, a schema, another object

_KINDS: dict[str, tuple[type[LogUnavailable] | type[LogUnusable], str]] = {
    "25006": (
        LogUnavailable,
        "it takes no writes: it is a standby, or was set read-only",
    ),
    "42501": (LogDenied, "grant this user what it lacks, or make the log as another with 'penstock init'"),
    "53100": (LogFull, "what was before is kept: free some disk, or lower the retention"),
    "53400": (LogUnavailable, "raise that limit of the server"),
    "54000": (LogUnavailable, "if it is the queue of notifications: end the session that does not take them"),
    "55P03": (LogUnavailable, "others held the log for so long"),
    "57014": (LogUnavailable, "statement_timeout is too short for this, or somebody cancelled it"),
    "XX001": (LogCorrupt, "restore a backup and run 'penstock renew'"),
    "XX002": (LogCorrupt, "REINDEX the table, or restore a backup and run 'penstock renew'"),
}
_SHAPE = re.compile(r"42(703|702|804|809|P10)|22P0[23]|23502")  # columns that are not ours

# A server that refuses a connection tells libpq why, but libpq hands on the words alone.
_DENIED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|role .* does not exist"
    r"|role .* is not permitted|permission denied for database|pg_hba\.conf rejects"
    r"|SSL.*(certificate|verify)|no such user"
)
_NOWHERE = re.compile(r"database .* does not exist|no such database")


def of_refusal(refusal: Refusal, what: str, where: str) -> PenstockError:
    """The error that an answer of the server is.

    Args:
        refusal: the answer.
        what: what was to be done, for the message: "could not <what>".
        where: the log.
    """
    head = f"could not {what} in {where}: {refusal.text}"
    kind, advice = _KINDS.get(refusal.state, (LogUnavailable, ""))
    if refusal.state in MISSING:
        kind, advice = NotALog, "parts of the log are gone; restore a backup, or drop what is left of it"
    elif _SHAPE.fullmatch(refusal.state):
        kind, advice = NotALog, "the tables there are no Penstock log's; choose another prefix= or schema="
    return kind(f"{head}; nothing was stored" + (f": {advice}" if advice else f" (SQLSTATE {refusal.state})"))


def of_connecting(message: str, where: str) -> PenstockError:
    """The error that a failure to connect is.

    Args:
        message: what psycopg says.
        where: the log.
    """
    said = " ".join(message.split())
    if _NOWHERE.search(said):
        return LogUnusable(f"{where}: {said}; make that database (createdb), or correct the URL")
    if _DENIED.search(said):
        return LogDenied(f"{where} does not let this user in: {said}; nothing was stored")
    return LogUnavailable(f"{where} cannot be reached: {said}; nothing was stored")


def of_loss(lost: Lost, what: str, where: str) -> LogUnavailable:
    """The error that a lost connection is, where nothing was to be stored or it is known that it was not."""
    return LogUnavailable(f"could not {what} in {where}: {lost}; nothing was stored")
