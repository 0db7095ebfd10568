"""The connections whose transactions a publish may join: those of SQLAlchemy and of Django too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import django
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.conf import settings
from django.db import connections, transaction
from django.utils.connection import ConnectionProxy
from psycopg import ClientCursor, RawCursor
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from penstock.errors import ConfigError
from penstock.log.postgres import PostgresLog
from penstock.testing.storage import everything
from tests.log.contents import some
from tests.support.postgres import PostgreSQL, need_postgres

pytestmark = need_postgres

Engine = sqlalchemy.Engine
DATA = '100 % of %s and %(x)s, $1, :name and \0 \u2028 "\\'


def moved(log: PostgresLog) -> list[str]:
    log.append([])
    return [record.data for record in everything(log)]


# psycopg


@pytest.mark.parametrize("factory", [ClientCursor, RawCursor])
def test_a_connection_of_psycopg_with_cursors_of_another_kind(
    log: PostgresLog, server: PostgreSQL, factory: Any
) -> None:
    with psycopg.connect(server.url(), cursor_factory=factory) as connection:
        log.store_in(connection, some(DATA))
    assert moved(log) == [DATA]


def test_a_pipeline_of_psycopg(log: PostgresLog, server: PostgreSQL) -> None:
    with psycopg.connect(server.url()) as connection, connection.pipeline():
        log.store_in(connection, some(DATA))
        log.store_in(connection, some("2"))
    assert moved(log) == [DATA, "2"]


# psycopg2


def test_a_connection_of_psycopg2(log: PostgresLog, server: PostgreSQL) -> None:
    with contextlib.closing(psycopg2.connect(server.url())) as connection:
        with connection:
            log.store_in(connection, some(DATA))
            assert moved(log) == []
        with contextlib.suppress(ZeroDivisionError), connection:
            log.store_in(connection, some("gone"))
            raise ZeroDivisionError
        connection.autocommit = True
        with pytest.raises(ConfigError, match="in autocommit"):
            log.store_in(connection, some("never"))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            log.store_in(connection, some("2"))
            cursor.execute("COMMIT")
    assert moved(log) == [DATA, "2"]


def test_errors_of_psycopg2_are_understood(log: PostgresLog, server: PostgreSQL, prefix: str) -> None:
    log.open()
    with contextlib.closing(psycopg2.connect(server.url())) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {prefix}_log CASCADE")
        with pytest.raises(ConfigError, match="without the log"):
            log.store_in(connection, some("never"))


# SQLAlchemy


def url_for(server: PostgreSQL, driver: str) -> str:
    return server.url().replace("postgresql:", f"postgresql+{driver}:")


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(server: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(url_for(server, request.param))
    yield engine
    engine.dispose()


def test_a_connection_of_sqlalchemy(log: PostgresLog, engine: Engine) -> None:
    with engine.connect() as connection:
        log.store_in(connection, some(DATA))
        connection.commit()
        log.store_in(connection, some("gone"))
        connection.rollback()
        with connection.begin():
            log.store_in(connection, some("2"))
            with connection.begin_nested() as savepoint:
                log.store_in(connection, some("gone"))
                savepoint.rollback()
    assert moved(log) == [DATA, "2"]


@pytest.mark.parametrize("scoped", [False, True])
def test_a_session_of_sqlalchemy(log: PostgresLog, engine: Engine, scoped: bool) -> None:
    maker = sessionmaker(engine)
    session: Session | scoped_session[Session] = scoped_session(maker) if scoped else maker()
    log.store_in(session, some(DATA))
    assert moved(log) == []
    session.commit()
    log.store_in(session, some("gone"))
    session.rollback()
    session.close()
    assert moved(log) == [DATA]


class OrderSession(Session):
    """One of an application's own, as Flask-SQLAlchemy's is."""


def test_a_session_of_an_applications_own_class(log: PostgresLog, engine: Engine) -> None:
    with OrderSession(engine) as session, session.begin():
        log.store_in(session, some(DATA))
    assert moved(log) == [DATA]


def test_sqlalchemy_in_autocommit_or_elsewhere_is_refused(log: PostgresLog, engine: Engine) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigError, match="AUTOCOMMIT"),
    ):
        log.store_in(connection, some("never"))
    lite = sqlalchemy.create_engine("sqlite://")
    with lite.connect() as connection, pytest.raises(ConfigError, match="of sqlite"):
        log.store_in(connection, some("never"))
    lite.dispose()
    with pytest.raises(ConfigError, match="takes"):
        log.store_in(engine, some("never"))
    assert moved(log) == []


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_coroutines_of_sqlalchemy(log: PostgresLog, server: PostgreSQL, driver: str) -> None:
    async def publish(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await log.astore_in(connection, some(DATA))
            await connection.commit()
            await log.astore_in(connection, some("gone"))
        async with AsyncSession(engine) as session, session.begin():
            await log.astore_in(session, some("2"))
            with pytest.raises(ConfigError, match="await apublish"):
                log.store_in(session, some("never"))
        async with engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
            with pytest.raises(ConfigError, match="AUTOCOMMIT"):
                await log.astore_in(connection, some("never"))
        await engine.dispose()

    asyncio.run(publish(create_async_engine(url_for(server, driver))))
    assert moved(log) == [DATA, "2"]


def test_errors_of_sqlalchemy_are_understood(
    log: PostgresLog, engine: Engine, logs: Callable[..., PostgresLog], server: PostgreSQL, prefix: str
) -> None:
    log.open()
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP TABLE {prefix}_log CASCADE"))
        with pytest.raises(ConfigError, match="without the log"):
            log.store_in(connection, some("never"))


# Django


@pytest.fixture
def alias(server: PostgreSQL) -> Iterator[str]:
    """Of a database of Django's, beside those that it may have already in this process."""
    if not settings.configured:
        settings.configure()
        django.setup()
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": server.port,
    }
    lite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    given = connections.configure_settings({"default": {}, "checked": database, "lite": lite})
    names = ["checked", "lite"]
    connections.databases.update({name: given[name] for name in names})
    yield "checked"
    for name in names:
        connections[name].close()
        del connections[name], connections.databases[name]


def test_a_connection_of_django(log: PostgresLog, alias: str) -> None:
    proxy = ConnectionProxy(connections, alias)  # as ``django.db.connection`` is
    with transaction.atomic(using=alias):
        log.store_in(connections[alias], some(DATA))
        with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=alias):
            log.store_in(proxy, some("gone"))
            raise ZeroDivisionError
        log.store_in(proxy, some("2"))
        assert moved(log) == []
    assert moved(log) == [DATA, "2"]


def test_django_without_a_transaction_or_elsewhere_is_refused(log: PostgresLog, alias: str) -> None:
    with pytest.raises(ConfigError, match=r"transaction\.atomic"):
        log.store_in(connections[alias], some("never"))
    with transaction.atomic(using="lite"), pytest.raises(ConfigError, match="of sqlite"):
        log.store_in(connections["lite"], some("never"))
    assert moved(log) == []


def test_errors_of_django_are_understood(log: PostgresLog, alias: str, prefix: str) -> None:
    log.open()
    connections[alias].set_autocommit(False)
    with connections[alias].cursor() as cursor:
        cursor.execute(f"DROP TABLE {prefix}_log CASCADE")
    with pytest.raises(ConfigError, match="without the log"):
        log.store_in(connections[alias], some("never"))
    connections[alias].rollback()
    connections[alias].set_autocommit(True)
