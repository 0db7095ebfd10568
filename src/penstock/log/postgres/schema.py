"""What makes a log of a database: its objects, whose version tells what may use them."""

from __future__ import annotations

import contextlib
import logging
import secrets

from penstock.errors import LogUnusable, NotALog, SchemaTooNew
from penstock.log.base import new_epoch
from penstock.log.postgres.errors import DUPLICATES, MISSING, NO_ROW
from penstock.log.postgres.options import Place
from penstock.log.postgres.session import Lost, Refusal, Session
from penstock.log.postgres.sql import SCHEMA_VERSION, creation, quoted, statements
from penstock.log.postgres.values import INT4, read_int4, row_of, text

logger = logging.getLogger("penstock.log")

_ALONE = b"SELECT pg_advisory_xact_lock(1346717267, hashtext($1))"  # "PENS"; of those who make it, one does
_HAS_SCHEMA = b"SELECT 1 FROM pg_namespace WHERE nspname = $1"
_EXISTS = b"SELECT to_regclass($1) IS NOT NULL"
_FIRST_ROW = (
    "INSERT INTO @log (version, id, epoch, trimmed) "
    "SELECT {version}, '{id}', '{epoch}', coalesce(min(seq) - 1, 0) FROM @record"
)
_SETTINGS = b"SELECT current_setting('fsync'), current_setting('full_page_writes')"


def exists(session: Session, place: Place) -> bool:
    """Whether somebody has made it."""
    return session.ask(_EXISTS, text(place.names.of("log"))).get_value(0, 0) == b"\1"


def prepare(session: Session, place: Place, *, make: bool) -> tuple[str, bool]:
    """See that the log is there, and that this Penstock may use it.

    Args:
        session: a connection.
        place: the log.
        make: whether to make it where it is not there.

    Returns:
        What tells it from every other, and whether it was made.

    Raises:
        Refusal: the server does not let it be made.
        Lost: the connection is broken.
        LogUnusable: it is not there, is something else, or is of a newer Penstock.
    """
    try:
        return _look(session, place), False
    except Refusal as refusal:
        if refusal.state not in MISSING:
            raise
    if not make:
        raise LogUnusable(
            f"there is no log {place.shown} yet, and create=init leaves it to be made by 'penstock init "
            "URL', run by a user who may"
        )
    session.run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        made = _make(session, place)
        session.run("COMMIT")
    except Refusal as refusal:
        _roll_back(session)
        if refusal.state in DUPLICATES:
            raise NotALog(
                f"{place.shown}: there is something else under a name that the log needs ({refusal.text}); "
                "it was left as it is: choose another prefix= or schema="
            ) from refusal
        raise
    except LogUnusable:
        _roll_back(session)
        raise
    return _look(session, place), made


def warn_of_settings(session: Session, place: Place) -> None:
    """Tell an operator of what he may not know."""
    answer = session.ask(_SETTINGS)
    for column, name in enumerate(("fsync", "full_page_writes")):
        if answer.get_value(0, column) == b"off":
            logger.warning(
                "%s: the server runs with %s = off: a crash of its machine can destroy all that it has. "
                "Set %s = on",
                place.shown, name, name,
            )  # fmt: skip


def _look(session: Session, place: Place) -> str:
    """The log's id.

    Raises:
        Refusal: it is not there.
        NotALog: there is something else.
        SchemaTooNew: a newer Penstock made it.
    """
    try:
        answer = session.ask(statements(place.names).version)
    except Refusal as refusal:
        if refusal.state in ("42703", "42809"):  # no such column; not a table
            raise _stranger(place) from refusal
        raise
    if not answer.ntuples:
        raise Refusal(NO_ROW, "the log has no row")
    if answer.ftype(0) != INT4:
        raise _stranger(place)
    version, name = row_of(answer)
    (version,) = read_int4(version)
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{place.shown} has schema version {version}, this Penstock knows up to {SCHEMA_VERSION}; "
            "upgrade Penstock: the log was left as it is"
        )
    return str(name.decode())


def _stranger(place: Place) -> NotALog:
    return NotALog(
        f"{place.names.of('log')} in {place.shown} is no log of Penstock's; it was left as it is: choose "
        "another prefix= or schema="
    )


def _make(session: Session, place: Place) -> bool:
    session.ask(_ALONE, text(place.names.bell))
    names = place.names
    made = False
    if not exists(session, place):
        if not session.ask(_HAS_SCHEMA, text(names.schema)).ntuples:
            session.run(f"CREATE SCHEMA {quoted(names.schema)}")
        session.run(creation(names))
        made = True
    if not session.ask(statements(names).version).ntuples:
        row = _FIRST_ROW.format(version=SCHEMA_VERSION, id=secrets.token_hex(8), epoch=new_epoch())
        session.run(names.fill(row))
        made = True
    return made


def _roll_back(session: Session) -> None:
    with contextlib.suppress(Refusal, Lost):
        session.run("ROLLBACK")
