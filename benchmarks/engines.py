"""The engines of the logs, each started for the measurement, and what their own drivers do by themselves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psycopg
import redis

from tests.support.nats import NatsServer
from tests.support.postgres import PostgreSQL
from tests.support.redis import DURABLE, RedisServer

Write = Callable[[Sequence[str]], None]  # stores texts in one round trip, and returns once they rest


class Running(NamedTuple):
    """An engine at work.

    Attributes:
        url: gives the URL of a new log in it.
        writer: the engine's own way to store many texts in one go, durably, without Penstock.
    """

    url: Callable[[], str]
    writer: Callable[[], AbstractContextManager[Write]]


class Engine(NamedTuple):
    """An engine, and its settings.

    Attributes:
        name: for tables.
        settings: those that matter, in words.
        start: starts it, with its files in a folder.
    """

    name: str
    settings: str
    start: Callable[[Path], AbstractContextManager[Running]]


_numbers = itertools.count(1)


def _redis(*options: str) -> Callable[[Path], AbstractContextManager[Running]]:
    @contextmanager
    def start(folder: Path) -> Iterator[Running]:
        with RedisServer(*options) as server:

            @contextmanager
            def writer() -> Iterator[Write]:
                stream = f"bare{next(_numbers)}"
                with closing(redis.Redis(port=server.port)) as client:

                    def write(texts: Sequence[str]) -> None:
                        pipeline = client.pipeline(transaction=False)
                        for text in texts:
                            pipeline.xadd(stream, {"data": text})
                        pipeline.execute()

                    yield write

            yield Running(server.url, writer)

    return start


def _postgres(**settings: object) -> Callable[[Path], AbstractContextManager[Running]]:
    @contextmanager
    def start(folder: Path) -> Iterator[Running]:
        with PostgreSQL({"fsync": "on", **settings}) as server:

            @contextmanager
            def writer() -> Iterator[Write]:
                table = f"bare{next(_numbers)}"
                with psycopg.connect(server.url()) as connection:
                    connection.execute(
                        f"CREATE TABLE {table} (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                        "time float8 NOT NULL DEFAULT 0, channel text NOT NULL, data bytea NOT NULL)"
                    )
                    connection.execute(f"CREATE INDEX ON {table} (channel, seq)")
                    connection.commit()

                    def write(texts: Sequence[str]) -> None:
                        rows = [("chat", text.encode()) for text in texts]
                        with connection.cursor() as cursor:
                            cursor.executemany(f"INSERT INTO {table} (channel, data) VALUES (%s, %s)", rows)
                        connection.commit()

                    yield write

            yield Running(lambda: server.url(f"prefix=bench{next(_numbers)}"), writer)

    return start


def _nats() -> Callable[[Path], AbstractContextManager[Running]]:
    @contextmanager
    def start(folder: Path) -> Iterator[Running]:
        import nats

        with TemporaryDirectory(dir=folder) as name, NatsServer(Path(name)) as server:

            @contextmanager
            def writer() -> Iterator[Write]:
                stream_name = f"bare{next(_numbers)}"
                with asyncio.Runner() as runner:

                    async def connect() -> Any:
                        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
                        await client.jetstream().add_stream(name=stream_name, subjects=[stream_name])
                        return client

                    client = runner.run(connect())
                    stream = client.jetstream()

                    async def store(texts: Sequence[str]) -> None:
                        await asyncio.gather(*[stream.publish(stream_name, text.encode()) for text in texts])

                    yield lambda texts: runner.run(store(texts))
                    runner.run(client.close())

            yield Running(lambda: f"{server.url}/bench{next(_numbers)}", writer)

    return start


ENGINES = [
    Engine("Redis, appendfsync everysec", "", _redis("--appendonly", "yes")),
    Engine("Redis, appendfsync always", "", _redis(*DURABLE)),
    Engine("PostgreSQL", "fsync=on, synchronous_commit=on", _postgres()),
    Engine("NATS JetStream", "one server, file storage", _nats()),
]
