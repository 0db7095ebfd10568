"""What is published in a transaction is seen when it is committed, and never if it is not."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import logging
import threading
import unittest
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction
from django.test import TestCase, override_settings
from django.utils.translation import gettext_lazy

from penstock import Event, Position, StreamInfo, errors
from penstock import django as penstock
from penstock.django import get_bus
from tests.support.sqlite import moved_away


def stored() -> list[str]:
    """The data of all events that rest in the log."""
    return [record.data for record in get_bus().engine.log.read(0, 1_000)]


@contextmanager
def rolled_back() -> Iterator[None]:
    """A transaction, or a savepoint within one, that is not committed."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def count() -> int:
    return get_bus().engine.log.bounds().head


def test_outside_of_a_transaction_it_is_stored_at_once() -> None:
    position = penstock.publish("chat", "hi", event="message")
    assert isinstance(position, Position)
    assert stored() == ["hi"]
    assert connection.connection is None, "no connection is made for that"


def test_a_log_that_cannot_join_a_transaction_says_so() -> None:
    with transaction.atomic():
        with pytest.raises(errors.ConfigError, match="connection"):
            penstock.publish("chat", "hi", connection=connection)
        with pytest.raises(errors.ConfigError, match="connection"):
            penstock.publish_many([Event("chat", "hi")], connection=connection)
    assert stored() == []


def test_in_a_transaction_it_waits_for_the_commit() -> None:
    with transaction.atomic():
        assert penstock.publish("chat", "one") is None
        assert penstock.publish_many([Event("chat", "two"), Event("chat", "three")]) is None
        assert penstock.end("chat") is None
        assert stored() == []
    assert stored() == ["one", "two", "three", ""]


def test_with_a_rollback_it_is_gone() -> None:
    with rolled_back():
        penstock.publish("chat", "never")
    assert stored() == []
    penstock.publish("chat", "after")
    assert stored() == ["after"]


def test_with_the_rollback_of_its_savepoint_it_is_gone_and_the_rest_is_not() -> None:
    with transaction.atomic():
        penstock.publish("chat", "before")
        with rolled_back():
            penstock.publish("chat", "never")
        with transaction.atomic():
            penstock.publish("chat", "after")
        assert stored() == []
    assert stored() == ["before", "after"]


def test_who_does_not_want_to_wait_need_not() -> None:
    with rolled_back():
        assert penstock.publish("chat", "at once", on_commit=False) is not None
    assert stored() == ["at once"]


def test_another_database_s_transaction_is_named() -> None:
    with transaction.atomic(using="other"):
        assert penstock.publish("chat", "at once") is not None
        assert penstock.publish("chat", "later", using="other") is None
        assert stored() == ["at once"]
    assert stored() == ["at once", "later"]


def test_in_a_callback_of_a_commit_it_is_stored_at_once() -> None:
    with transaction.atomic():
        transaction.on_commit(lambda: penstock.publish("chat", "hi"))
    assert stored() == ["hi"]


def test_in_manual_transactions_django_s_error_says_so() -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError, match="manual transaction management"):
            penstock.publish("chat", "hi")
        assert penstock.publish("chat", "hi", on_commit=False) is not None
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


CANNOT_BE: list[tuple[Callable[[], Any], type[errors.PenstockError]]] = [
    (lambda: penstock.publish("chat", object()), errors.BadData),
    (lambda: penstock.publish("chat", float("nan")), errors.BadData),
    (lambda: penstock.publish("bad channel", "hi"), errors.BadChannel),
    (lambda: penstock.publish("penstock.kicks", "hi"), errors.BadChannel),
    (lambda: penstock.publish("chat", "hi", event="two\nlines"), errors.InvalidEvent),
    (lambda: penstock.publish("chat", "x" * 300_000), errors.EventTooLarge),
    (lambda: penstock.publish_many(["no event"]), errors.InvalidEvent),  # type: ignore[list-item]
    (lambda: penstock.end("bad channel"), errors.BadChannel),
    (lambda: penstock.kick(lambda info: True), errors.ConfigError),
]


@pytest.mark.parametrize(("call", "error"), CANNOT_BE)
def test_what_cannot_be_stored_raises_in_its_line_and_not_at_the_commit(
    call: Callable[[], Any], error: type[errors.PenstockError]
) -> None:
    with transaction.atomic():
        with pytest.raises(error):
            call()
        penstock.publish("chat", "the rest goes on")
    assert stored() == ["the rest goes on"]


def test_data_is_encoded_as_django_does() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    number = uuid.UUID(int=7)
    penstock.publish(
        "chat", {"at": moment, "price": decimal.Decimal("1.50"), "id": number, "ä": gettext_lazy("Yes")}
    )
    penstock.publish("chat", gettext_lazy("Yes"))
    penstock.publish("chat", b"bytes")
    assert stored() == [
        f'{{"at":"2026-01-02T03:04:05Z","price":"1.50","id":"{number}","ä":"Yes"}}',
        "Yes",
        "bytes",
    ]


def test_the_error_of_bad_data_says_where_it_is() -> None:
    with pytest.raises(errors.BadData, match=r"data\['rows'\]\[1\], set"):
        penstock.publish("chat", {"rows": [1, {2}]})


def test_a_log_that_is_away_at_the_commit_is_an_error_in_the_log_file_and_other_callbacks_go_on(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    called = []
    with override_settings(PENSTOCK={"URL": url, "PUBLISH_TIMEOUT": 0}):
        with moved_away(tmp_path / "penstock.db"), caplog.at_level(logging.ERROR):
            with transaction.atomic():
                penstock.publish("chat", "lost")
                transaction.on_commit(lambda: called.append("later"))
            assert called == ["later"]
        assert stored() == []
    (told,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert "publish_at_commit" in told.getMessage()
    assert "The transaction was committed, and 1 event(s) for chat waited for that." in caplog.text


def test_a_log_that_is_away_outside_of_a_transaction_raises(tmp_path: Path, url: str) -> None:
    with (
        override_settings(PENSTOCK={"URL": url, "PUBLISH_TIMEOUT": 0}),
        moved_away(tmp_path / "penstock.db"),
        pytest.raises(errors.LogError),
    ):
        penstock.publish("chat", "hi")


def test_a_kick_waits_for_the_commit_too() -> None:
    before = count()
    with rolled_back():
        penstock.kick("alice")
    assert count() == before
    with transaction.atomic():
        assert penstock.kick("alice") is None
        assert count() == before
    assert count() == before + 1
    assert isinstance(penstock.kick(7), Position)
    assert isinstance(penstock.kick(uuid.UUID(int=7)), Position)


def test_threads_have_transactions_of_their_own() -> None:
    def in_thread() -> None:
        penstock.publish("chat", "from a thread")
        connections.close_all()

    with transaction.atomic():
        penstock.publish("chat", "later")
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        assert stored() == ["from a thread"]
    assert stored() == ["from a thread", "later"]


# Coroutines


def test_a_coroutine_publishes_at_once() -> None:
    async def run() -> None:
        assert await penstock.apublish("chat", {"at": datetime.date(2026, 1, 2)}) is not None
        assert await penstock.apublish_many([Event("chat", "two")]) is not None
        assert await penstock.akick("alice") is not None
        assert await penstock.aend("chat") is not None

    asyncio.run(run())
    assert [data for data in stored() if "user" not in data] == ['{"at":"2026-01-02"}', "two", ""]


def test_a_coroutine_that_a_transaction_waits_for_waits_for_its_commit() -> None:
    async def tell() -> None:
        assert await penstock.apublish("chat", "one") is None
        assert await penstock.akick("alice") is None
        assert await penstock.apublish("chat", "at once", on_commit=False) is not None
        assert await penstock.aend("chat") is None

    with transaction.atomic():
        async_to_sync(tell)()
        assert stored() == ["at once"]
    assert [data for data in stored() if "user" not in data] == ["at once", "one", ""]
    with rolled_back():
        async_to_sync(tell)()
    assert stored()[-1] == "at once"


def test_a_transaction_that_a_coroutine_lets_a_thread_have_is_that_thread_s() -> None:
    def order() -> None:
        with transaction.atomic():
            penstock.publish("chat", "later")
            assert stored() == []

    async def run() -> None:
        await sync_to_async(order)()

    async_to_sync(run)()
    assert stored() == ["later"]


@pytest.mark.parametrize(
    ("call", "twin"),
    [
        (lambda: penstock.publish("chat", "hi"), "await apublish"),
        (lambda: penstock.publish_many([Event("chat", "hi")]), "await apublish_many"),
        (lambda: penstock.end("chat"), "await apublish_many"),
        (lambda: penstock.kick("alice"), "await akick"),
    ],
)
def test_what_would_block_a_loop_says_what_to_write_there(call: Callable[[], Any], twin: str) -> None:
    async def run() -> None:
        call()

    with pytest.raises(SynchronousOnlyOperation, match=twin):
        asyncio.run(run())
    assert stored() == []


# Django's own test cases


def run_case(case: type[TestCase]) -> None:
    """Run the tests of a test case of Django's, each in a transaction that is never committed."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun > 0
    assert not result.errors + result.failures, result.errors + result.failures


def test_in_a_test_case_the_commit_is_captured() -> None:
    class Case(TestCase):
        def test_nothing_is_committed(self) -> None:
            before = count()
            penstock.publish("chat", "hi")
            assert count() == before

        def test_captured_callbacks_are_executed(self) -> None:
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                self.client.post("/say/", {"text": "hi"})
            assert len(callbacks) == 1
            assert stored()[-1] == "hi"

        def test_a_page_gets_what_was_committed(self) -> None:
            with self.captureOnCommitCallbacks(execute=True):
                penstock.publish("chat", "seen")
            assert b"data: seen" in self.client.get("/events/").getvalue()
            assert User.objects.count() == 0, "the transaction around the test still is one"

    run_case(Case)


@penstock.predicate
def follows_chat(info: StreamInfo) -> bool:
    return "chat" in info.channels


def test_predicates_outlive_a_change_of_settings(tmp_path: Path) -> None:
    assert penstock.kick(follows_chat) is not None
    with override_settings(PENSTOCK={"URL": f"sqlite:///{tmp_path}/other.db"}):
        assert penstock.kick(follows_chat) is not None
        assert count() == 1
