"""``connection=`` of each framework's own ``publish``: the event joins the transaction."""

from __future__ import annotations

import asyncio

import flask
import psycopg
import pydantic
import quart

import penstock.fastapi
import penstock.flask
import penstock.quart
from penstock import Event
from penstock.log.postgres import PostgresLog
from penstock.testing.storage import everything
from tests.support.postgres import PostgreSQL, need_postgres

pytestmark = need_postgres


class Message(pydantic.BaseModel):
    text: str


def moved(log: PostgresLog) -> list[str]:
    """The data of all records, once what lies in the outbox is among them."""
    log.append([])
    return [record.data for record in everything(log)]


def test_flask_joins_a_transaction(log: PostgresLog, server: PostgreSQL, url: str) -> None:
    log.open()
    app = flask.Flask(__name__)
    app.config["PENSTOCK_URL"] = url
    sse = penstock.flask.Penstock(app)
    with app.app_context(), psycopg.connect(server.url()) as connection:
        sse.publish("check", {"n": 1}, connection=connection)
        sse.publish_many([Event("check", "2")], connection=connection)
        assert everything(log) == []
        sse.bus.close()
    assert moved(log) == ['{"n": 1}', "2"]


def test_a_typed_channel_joins_a_transaction(log: PostgresLog, server: PostgreSQL, url: str) -> None:
    log.open()
    with penstock.fastapi.Penstock(url) as bus:
        messages = bus.channel("check", Message)

        async def run() -> None:
            async with await psycopg.AsyncConnection.connect(server.url()) as connection:
                await messages.apublish({"text": "1"}, connection=connection)
                await bus.apublish("check", Message(text="2"), connection=connection)

        with psycopg.connect(server.url()) as connection:
            messages.publish(Message(text="0"), connection=connection)
        asyncio.run(run())
    assert moved(log) == [f'{{"text":"{n}"}}' for n in range(3)]


def test_quart_joins_a_transaction_of_coroutines(log: PostgresLog, server: PostgreSQL, url: str) -> None:
    log.open()
    app = quart.Quart(__name__)
    app.config["PENSTOCK_URL"] = url
    sse = penstock.quart.Penstock(app)

    async def run() -> None:
        async with app.app_context():
            async with await psycopg.AsyncConnection.connect(server.url()) as connection:
                await sse.apublish("check", "1", connection=connection)
                await sse.apublish_many([Event("check", "2")], connection=connection)
            sse.bus.close()

    asyncio.run(run())
    assert moved(log) == ["1", "2"]
