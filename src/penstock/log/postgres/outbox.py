"""Publishing in a transaction of the application's own.

The events go into the outbox through the caller's connection, whatever made it: psycopg, SQLAlchemy, Django,
psycopg2. It is known by its looks, since of these only psycopg is imported here. All that it has to carry is
a statement with two texts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import psycopg
from psycopg.pq import TransactionStatus

from penstock.core.event import Event
from penstock.errors import ConfigError, LogUnavailable, PenstockError
from penstock.log.postgres.errors import MISSING, OTHER_LOG, READ_ONLY, of_refusal
from penstock.log.postgres.options import Place
from penstock.log.postgres.session import Refusal

_KINDS = (
    "a psycopg Connection or AsyncConnection, a psycopg2 connection, a Connection or Session of SQLAlchemy "
    "or its async twin, or Django's django.db.connection"
)
_WITHOUT = (
    "publish(connection=…) joins a transaction, and this connection, in autocommit, is in none: begin one, "
    "or publish without connection="
)
_IN_TROUBLE = "25P02"  # in_failed_sql_transaction

Execute = Callable[[str, Sequence[str]], Any]


def store(connection: Any, place: Place, log_id: str, events: Sequence[Event]) -> None:
    """Lay events into the outbox, in the transaction of a connection.

    Raises:
        ConfigError: the connection cannot do that, or leads elsewhere.
        LogError: the server refused it.
    """
    execute = _execute_of(connection)
    try:
        execute(_statement(place), [log_id, _as_json(events)])
    except Exception as error:
        _refuse(error, place)


async def astore(connection: Any, place: Place, log_id: str, events: Sequence[Event]) -> None:
    """As ``store``, for connections of coroutines."""
    parameters = [log_id, _as_json(events)]
    if isinstance(connection, psycopg.AsyncConnection):
        _check_psycopg(connection)
        cursor = psycopg.AsyncCursor(connection)
        work = cursor.execute(_statement(place).encode(), parameters)
    elif _is_of_coroutines(connection) and _is_of_sqlalchemy(connection):
        connected = connection if hasattr(connection, "exec_driver_sql") else await connection.connection()
        _check_sqlalchemy(connected.sync_connection)
        statement, given = _for_dialect(connected.dialect, _statement(place), parameters)
        work = connected.exec_driver_sql(statement, given)
    else:
        _execute_of(connection)  # says what it is not
        raise ConfigError(
            "this connection blocks, and a coroutine may not: publish(…, connection=…) in the thread that "
            "has it, or give apublish() a connection of coroutines"
        )
    try:
        await work
    except Exception as error:
        _refuse(error, place)


def _execute_of(connection: Any) -> Execute:
    """How the connection executes a statement in its transaction.

    Raises:
        ConfigError: it has none, or is of no kind that is known.
    """
    if isinstance(connection, psycopg.Connection):
        _check_psycopg(connection)
        return lambda statement, parameters: psycopg.Cursor(connection).execute(
            statement.encode(), parameters
        )
    if isinstance(connection, psycopg.AsyncConnection) or _is_of_coroutines(connection):
        raise ConfigError("this connection is one of coroutines: await apublish(…, connection=…)")
    if _is_of(connection, "django.db") or _is_of(connection, "django.utils.connection"):
        return _of_django(connection)
    if _is_of_sqlalchemy(connection):
        return _of_sqlalchemy(connection)
    if _is_of(connection, "psycopg2"):
        if connection.autocommit and connection.get_transaction_status() == TransactionStatus.IDLE:
            raise ConfigError(_WITHOUT)
        return lambda statement, parameters: _with_cursor(connection, statement, parameters)
    kind = type(connection)
    raise ConfigError(f"publish(connection=…) takes {_KINDS}; not {kind.__module__}.{kind.__qualname__}")


def _check_psycopg(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.closed:
        raise ConfigError("publish(connection=…): this connection is closed")
    if connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE:
        raise ConfigError(f"{_WITHOUT}: with connection.transaction(): …")


def _of_django(connection: Any) -> Execute:
    if connection.vendor != "postgresql":
        raise _other_kind(f"Django's database {connection.alias!r}", connection.vendor)
    if not connection.in_atomic_block and connection.get_autocommit():
        raise ConfigError(f"{_WITHOUT}: with transaction.atomic(): …")
    return lambda statement, parameters: _with_cursor(connection, statement, parameters)


def _with_cursor(connection: Any, statement: str, parameters: Sequence[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def _is_of_sqlalchemy(connection: Any) -> bool:
    """Whether it is a connection or a session."""
    kind = type(connection)
    return _is_of(connection, "sqlalchemy") and any(
        hasattr(kind, name) for name in ("exec_driver_sql", "connection")
    )


def _of_sqlalchemy(connection: Any) -> Execute:
    """Through SQLAlchemy itself, which else would know of no transaction, and not commit it."""
    connected = connection if hasattr(connection, "exec_driver_sql") else connection.connection()
    _check_sqlalchemy(connected)

    def execute(statement: str, parameters: Sequence[str]) -> None:
        text, given = _for_dialect(connected.dialect, statement, parameters)
        connected.exec_driver_sql(text, given)

    return execute


def _check_sqlalchemy(connection: Any) -> None:
    if connection.dialect.name != "postgresql":
        raise _other_kind("this connection of SQLAlchemy", connection.dialect.name)
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise ConfigError(f"{_WITHOUT}: leave out isolation_level='AUTOCOMMIT'")


def _for_dialect(dialect: Any, statement: str, parameters: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A statement with the placeholders of the driver."""
    if "dollar" in dialect.paramstyle:
        for number in range(1, len(parameters) + 1):
            statement = statement.replace("%s", f"${number}", 1)
    return statement, tuple(parameters)


def _other_kind(what: str, kind: str) -> ConfigError:
    return ConfigError(
        f"publish(connection=…): {what} is of {kind}, and the log rests in PostgreSQL; only a transaction of "
        "the same database can carry its events"
    )


def _is_of(connection: Any, package: str) -> bool:
    """Whether an object's class, or one that it comes from, is of a package."""
    return any(
        kind.__module__ == package or kind.__module__.startswith(f"{package}.")
        for kind in type(connection).__mro__
    )


def _is_of_coroutines(connection: Any) -> bool:
    return any(kind.__name__.lower().startswith("async") for kind in type(connection).__mro__)


def _statement(place: Place) -> str:
    return place.names.fill("SELECT @offer(%s, %s)")


def _as_json(events: Sequence[Event]) -> str:
    return json.dumps(
        [
            {
                "channel": event.channel,
                "data": base64.b64encode(event.data.encode()).decode(),
                "event": event.event,
                "retry": event.retry,
                "key": event.key,
                "end": event.end,
            }
            for event in events
        ]
    )


def _refuse(error: Exception, place: Place) -> NoReturn:
    """Raise what an error of the caller's connection is to a publisher."""
    if isinstance(error, PenstockError):
        raise error
    state, said = _state_of(error), str(error).strip().partition("\n")[0]
    if state is None:
        raise LogUnavailable(f"could not publish in the transaction: {said}; nothing was stored") from error
    if state in MISSING or state == OTHER_LOG:
        raise ConfigError(
            f"the connection leads to a database without the log {place.shown} ({said}): a transaction can "
            "carry events only into a log of its own database. This one has failed; nothing was stored"
        ) from error
    if state == READ_ONLY:
        raise ConfigError(
            "publish(connection=…): this transaction is read-only; nothing was stored"
        ) from error
    if state == _IN_TROUBLE:
        raise LogUnavailable("the transaction had failed before; nothing was stored: roll it back") from error
    raise of_refusal(Refusal(state, said), "publish in the transaction", place.shown) from error


def _state_of(error: BaseException | None) -> str | None:
    """The SQLSTATE of an error, or of the driver's error that it was made of."""
    for _ in range(5):
        for one in (error, getattr(error, "orig", None)):
            state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
            if isinstance(state, str):
                return state
        error = getattr(error, "__cause__", None)
    return None
