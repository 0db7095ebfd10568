"""Kicks: in every process, in the order of the log, and never lost in silence."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Event, Penstock, StreamInfo
from penstock.core.channel import Subscription
from penstock.core.rights import FREE, Rights
from penstock.core.stream import Closing
from penstock.engine import kicks as kicks_module
from penstock.engine.kicks import CHANNEL, Predicates
from penstock.engine.origin import Wish
from penstock.engine.pull import Pull
from penstock.errors import BadChannel, BadData, ConfigError
from tests.support.wait import wait_for

CHAT = Subscription(["chat"])


def is_in(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


def is_called(stream: StreamInfo, name: str) -> bool:
    return stream.user == name


def fails(stream: StreamInfo) -> bool:
    raise ZeroDivisionError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def bus(url: str) -> Iterator[Penstock]:
    with Penstock(url) as bus:
        bus.predicate(is_in)
        bus.predicate(fails)
        yield bus
        for stream in bus.engine._streams.open:
            assert isinstance(stream, Pull)
            bus.engine.leave(stream)


@pytest.fixture
def beside(url: str) -> Iterator[Penstock]:
    """Another process, as far as the log can tell."""
    with Penstock(url) as bus:
        bus.predicate(is_in)
        bus.predicate(is_called)
        bus.predicate(fails)
        yield bus


def follow(bus: Penstock, *channels: str, user: str | None = None) -> Pull:
    subscription = Subscription(channels or ["chat"])
    bus.engine.start("a test")
    origin = bus.engine.find_origin(subscription, Wish())
    rights = FREE if user is None else Rights(user)
    before = bus.stats().streams
    pull = bus.engine.open(subscription, origin, lambda: None, rights=rights)
    wait_for(lambda: bus.stats().streams == before + 1, what="it is open")
    return pull


def closing_of(pull: Pull) -> Closing | None:
    pull.poll()
    return pull.stream.closing


def test_a_kick_reaches_the_streams_of_another_process(bus: Penstock, beside: Penstock) -> None:
    hers, his, nobodys = follow(bus, user="alice"), follow(bus, user="bob"), follow(bus)
    beside.kick("alice")
    wait_for(lambda: closing_of(hers) is Closing.KICKED, what="hers is closed")
    assert closing_of(his) is None
    assert closing_of(nobodys) is None


def test_a_predicate_is_asked_for_each_stream_with_the_arguments_of_the_kick(
    bus: Penstock, beside: Penstock
) -> None:
    inside, outside = follow(bus, "room/7", "chat"), follow(bus, "room/8", "chat")
    beside.kick(is_in, "room/7")
    wait_for(lambda: closing_of(inside) is Closing.KICKED, what="it is closed")
    assert closing_of(outside) is None


def test_a_predicate_that_fails_closes_and_is_told(
    bus: Penstock, beside: Penstock, caplog: pytest.LogCaptureFixture
) -> None:
    pull = follow(bus)
    beside.kick(fails)
    wait_for(lambda: closing_of(pull) is Closing.KICKED, what="it is closed")
    assert "ZeroDivisionError" in caplog.text


def test_a_predicate_that_this_process_does_not_know_is_told(
    bus: Penstock, beside: Penstock, caplog: pytest.LogCaptureFixture
) -> None:
    pull = follow(bus, user="alice")
    beside.kick(is_called, "alice")
    wait_for(lambda: "'is_called'" in caplog.text, what="it is told")
    assert closing_of(pull) is None
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_a_stream_that_was_allowed_before_a_kick_and_opened_after_it_is_closed(
    bus: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kicks_module, "REMEMBERED_S", 3600.0)
    first = follow(bus, user="alice")
    bus.kick("alice")
    wait_for(lambda: closing_of(first) is Closing.KICKED, what="the first is closed")
    late, others = follow(bus, user="alice"), follow(bus, user="bob")
    wait_for(lambda: closing_of(late) is Closing.KICKED, what="the late one is closed")
    assert closing_of(others) is None


def test_a_kick_is_soon_forgotten(bus: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kicks_module, "REMEMBERED_S", -1.0)
    first = follow(bus, user="alice")
    bus.kick("alice")
    wait_for(lambda: closing_of(first) is Closing.KICKED, what="the first is closed")
    bus.engine.leave(first)
    wait_for(lambda: bus.stats().streams == 0, what="the first has left")
    assert closing_of(follow(bus, user="alice")) is None


def test_when_kicks_may_have_been_lost_all_streams_of_users_are_closed(
    bus: Penstock, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    hers, nobodys = follow(bus, user="alice"), follow(bus)
    with Penstock(url) as other:
        log = other.engine.log
        log.open(renew=log.bounds().epoch)  # as after a restore
    wait_for(lambda: closing_of(hers) is Closing.KICKED, what="hers is closed")
    assert "kicks may be among the events that are gone" in caplog.text
    assert closing_of(nobodys) is None


def test_a_kick_that_cannot_be_read_closes_nothing_and_is_told(
    bus: Penstock, caplog: pytest.LogCaptureFixture
) -> None:
    pull = follow(bus, user="alice")
    for data in ("not JSON", "[]", '{"predicate": "is_in"}', "7"):
        bus.engine.kick(Event(CHANNEL, data))
    bus.kick("nobody in particular")
    (position,) = bus.publish_many([Event("chat", "after them all")])
    wait_for(lambda: pull.poll() and pull.stream.seq == position.seq, what="all has come")
    assert caplog.text.count("cannot be read") == 4
    assert closing_of(pull) is None


def test_subscribers_of_the_program_itself_are_not_kicked(bus: Penstock) -> None:
    with bus.subscribe("chat") as records:
        bus.kick(is_in, "chat")
        bus.publish("chat", "still here")
        assert next(records).data == "still here"


def test_a_coroutine_kicks_too(bus: Penstock) -> None:
    import asyncio

    pull = follow(bus, user="alice")
    asyncio.run(bus.akick("alice"))
    wait_for(lambda: closing_of(pull) is Closing.KICKED, what="it is closed")


@pytest.mark.parametrize("name", [CHANNEL, "penstock.", "penstock.x/y"])
def test_users_neither_write_nor_read_what_is_penstocks_own(bus: Penstock, name: str) -> None:
    with pytest.raises(BadChannel, match="Penstock's own"):
        bus.publish(name, {"user": "alice"})
    with pytest.raises(BadChannel, match="Penstock's own"):
        bus.subscribe(name)
    with pytest.raises(BadChannel, match="Penstock's own"):
        bus.asubscribe("chat", name)


def test_no_pattern_covers_what_is_penstocks_own() -> None:
    assert not any(Subscription([pattern]).covers(CHANNEL) for pattern in ("*", "**", "**/*"))


class Test_what_can_kick:
    def test_a_user(self) -> None:
        assert json.loads(Predicates().kick(7, ()).data) == {"user": "7"}

    def test_a_function_that_is_known(self) -> None:
        known = Predicates()
        known.add(is_in)
        event = known.kick(is_in, ("room/7",))
        assert json.loads(event.data) == {"predicate": "is_in", "arguments": ["room/7"]}

    @pytest.mark.parametrize("who", [is_in, lambda stream: True], ids=["unknown", "lambda"])
    def test_no_other_function(self, who: object) -> None:
        with pytest.raises(ConfigError, match="nobody was kicked"):
            Predicates().kick(who, ())  # type: ignore[arg-type]

    @pytest.mark.parametrize("who", ["", None, 1.5, True])
    def test_nothing_else(self, who: object) -> None:
        with pytest.raises(ConfigError, match="a user"):
            Predicates().kick(who, ())  # type: ignore[arg-type]

    def test_arguments_are_json(self) -> None:
        known = Predicates()
        known.add(is_in)
        with pytest.raises(BadData):
            known.kick(is_in, (object(),))

    def test_a_user_is_kicked_as_a_whole(self) -> None:
        with pytest.raises(ConfigError, match="arguments are for a predicate"):
            Predicates().kick("alice", ("room/7",))

    def test_a_function_without_a_name_of_its_own_is_refused(self) -> None:
        def inner(stream: StreamInfo) -> bool:
            return True

        for function in (inner, lambda stream: True):
            with pytest.raises(ConfigError, match="at the top of a module"):
                Predicates().add(function)

    def test_two_of_one_name_are_refused(self) -> None:
        known = Predicates()
        known.add(is_in)
        known.add(is_in)

        def other(stream: StreamInfo) -> bool:
            return False

        other.__qualname__ = "is_in"
        with pytest.raises(ConfigError, match="there is a predicate 'is_in' already"):
            known.add(other)
