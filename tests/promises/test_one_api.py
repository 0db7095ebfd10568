"""Promise 3: one API on every log and in every door.

One small program runs on each log, and one small visit of a client goes to each log through each server.
Nothing but the URL of the log, or the name of the server, differs; what they see must not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from penstock import Event, Gap, GapError, GapReason, Penstock, Position, Record, errors
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"
URLS = ["memory:", "sqlite:///log.db"]


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    chosen: str = request.param
    return chosen


@pytest.fixture
def bus(url: str) -> Iterator[Penstock]:
    with Penstock(url, max_events=100) as bus:
        yield bus


def texts(records: Iterator[Record], count: int) -> list[tuple[int, str, str]]:
    return [(record.seq, record.channel, record.data) for record in islice(records, count)]


def test_what_is_published_is_what_comes(bus: Penstock) -> None:
    position = bus.publish("chat", "a\nb\r\nc\u2028d")
    bus.publish("room/7", {"name": "Zoë", "n": [1, None]}, event="joined", retry=5000)
    bus.publish("chat", b"bytes", key="once")
    assert bus.publish("chat", "other", key="once").seq == 3
    bus.publish_many([Event("elsewhere", ""), Event("chat", "")])
    assert str(position) == f"{position.epoch}:1"

    with bus.subscribe("chat", "room/*", after="earliest") as records:
        first, joined, *others = islice(records, 4)
    assert first[1:2] + first[3:] == (1, "chat", "a\nb\r\nc\u2028d", None, None, None, False)
    assert (first.position, first.epoch) == (position, position.epoch)
    assert joined[3:7] == ("room/7", '{"name":"Zoë","n":[1,null]}', "joined", 5000)
    assert joined.json() == {"name": "Zoë", "n": [1, None]}
    assert [(r.seq, r.data, r.key) for r in others] == [(3, "bytes", "once"), (5, "", None)]


def test_where_a_subscription_begins(bus: Penstock) -> None:
    positions = bus.publish_many([Event("abc"[n % 3], str(n)) for n in range(9)])
    with bus.subscribe("a", last=2) as records:
        assert texts(records, 2) == [(4, "a", "3"), (7, "a", "6")]
    with bus.subscribe("**", after=positions[6]) as records:
        assert texts(records, 2) == [(8, "b", "7"), (9, "c", "8")]
    with bus.subscribe("a", "b", after=str(positions[6])) as records:
        assert texts(records, 1) == [(8, "b", "7")]
    with bus.subscribe("b") as records:  # from now
        bus.publish("b", "live")
        assert texts(records, 1) == [(10, "b", "live")]


def test_a_batch_is_stored_whole_or_not_at_all(bus: Penstock) -> None:
    with pytest.raises(errors.BadData):
        bus.publish_many([Event("chat", "good"), Event("chat", {"bad": object()})])
    with pytest.raises(errors.EventTooLarge):
        bus.publish_many([Event("chat", "good"), Event("chat", "x" * 300_000)])
    assert bus.publish("chat", "next").seq == 1


def test_the_end_of_a_channel_ends_its_subscriptions(bus: Penstock) -> None:
    with bus.subscribe("job/7") as records:
        bus.publish("job/7", "50 %")
        bus.publish("other", "not of it")
        bus.end("job/7")
        assert [(r.seq, r.data, r.end) for r in records] == [(1, "50 %", False), (3, "", True)]
    with bus.subscribe("job/7", last=1) as records:  # the end is none of the last
        assert [(r.seq, r.data, r.end) for r in records] == [(1, "50 %", False), (3, "", True)]
    bus.publish("job/7", "begins again")
    with bus.subscribe("job/7", last=1) as records:
        assert texts(records, 1) == [(4, "job/7", "begins again")]


def test_coroutines_see_the_same(bus: Penstock) -> None:
    async def run() -> list[tuple[int, str]]:
        await bus.apublish("job/7", "hello")
        await bus.apublish_many([Event("job/7", "a"), Event("job/7", "b")])
        await bus.aend("job/7")
        records = bus.asubscribe("job/7", after="earliest")
        return [(record.seq, record.data) async for record in records]

    assert asyncio.run(run()) == [(1, "hello"), (2, "a"), (3, "b"), (4, "")]


def test_a_gap_is_told_and_never_skipped(bus: Penstock) -> None:
    first = bus.publish("chat", "first")
    last = bus.publish_many([Event("chat", str(n)) for n in range(10_000)])[-1]
    oldest = Position(last.epoch, last.seq - 100)  # once the log is trimmed to its 100

    def gap(after: str) -> Gap | None:
        gaps: list[Gap] = []
        with bus.subscribe("chat", after=after, on_gap=gaps.append) as records:
            if after != str(first):
                bus.publish("chat", "news")  # there may be nothing else after the gap
            next(records)
        return gaps[0] if gaps else None

    def is_trimmed() -> bool:
        found = gap(str(first))
        return found is not None and found.resumes == oldest

    wait_for(is_trimmed, what="the log is trimmed")
    assert gap(str(first)) == Gap(GapReason.EXPIRED, str(first), oldest)
    assert gap("another:5") == Gap(GapReason.EPOCH, "another:5", oldest)
    beyond, head = Position(last.epoch, last.seq + 50), Position(last.epoch, last.seq + 1)
    assert gap(str(beyond)) == Gap(GapReason.AHEAD, str(beyond), head)
    assert gap(str(oldest)) is None
    with pytest.raises(GapError, match="older than the log keeps"):
        next(bus.subscribe("chat", after=first))
    with pytest.raises(errors.MalformedPosition):
        bus.subscribe("chat", after="yesterday")


def test_stats_and_the_end(bus: Penstock) -> None:
    records = bus.subscribe("chat", after="earliest")
    bus.publish_many([Event("chat", str(n)) for n in range(5)])
    assert texts(records, 5)[-1] == (5, "chat", "4")
    wait_for(lambda: (bus.stats().tail_seq, bus.stats().streams) == (5, 1), what="the loop has done it too")
    stats = bus.stats()
    assert (stats.log_state, stats.streams, stats.audiences) == ("following", 1, 1)
    assert (stats.published, stats.delivered, stats.gaps, stats.polls) == (5, 5, 0, 0)
    assert (stats.tail_seq, stats.tail_lag, stats.ring_events) == (5, 0, 5)
    bus.close()
    assert list(records) == []
    with pytest.raises(errors.Closed):
        bus.publish("chat", "too late")


@pytest.mark.parametrize("server", [Server.werkzeug, Server.waitress, Server.gunicorn])
def test_a_visit_is_the_same_through_each_server(
    server: Callable[..., Server], url: str, tmp_path: Path
) -> None:
    with server(APP, tmp_path, env={"PENSTOCK_URL": url}) as running:
        assert visit(running.url) == [
            # It comes for the first time, and asks for the last event before it.
            ("penstock.position", "", "E:1"),
            ("message", "two", "E:2"),
            ("typed", "three\nlines\n\N{SNOWMAN}", "E:3"),
            # It comes back, and gets what it missed.
            ("penstock.position", "", "E:3"),
            ("message", "missed", "E:4"),
            # It comes back with what is no position, so it is told, and begins as it did at first.
            (
                "penstock.gap",
                '{"reason": "malformed", "after": "yesterday", "resumes": "E:3"}',
                "E:3",
            ),
            ("message", "missed", "E:4"),
            ("message", "after the gap", "E:5"),
            ("penstock.end", '{"channel": "chat"}', "E:6"),
            # It comes back, and is told not to.
            (204,),
        ]


def visit(url: str) -> list[tuple[object, ...]]:
    """What a client sees; the epoch, which is random, is E."""

    def post(path: str, **fields: str) -> str:
        with urlopen(url + path, urlencode({"channel": "chat"} | fields).encode()) as answer:
            return str(answer.read().decode())

    post("/publish", data="one")
    epoch = post("/publish", data="two").partition(":")[0]
    with SSEClient(f"{url}/events?channel=chat&last=1") as client:
        client.wait_open()
        post("/publish", data="three\nlines\r\n\N{SNOWMAN}", event="typed")
        client.wait_for_messages(2)
        client.close()
        post("/publish", data="missed")
        client.reconnect()
        client.wait_for_messages(3)
        client.close()
        client.last_event_id = "yesterday"
        client.reconnect()
        client.wait_for_notice("penstock.gap")
        post("/publish", data="after the gap")
        post("/end")
        client.wait_closed()
        client.reconnect()
        client.wait_closed()
        seen: list[tuple[object, ...]] = [
            (message.event, message.data.replace(epoch, "E"), message.id.replace(epoch, "E"))
            for message in client.received
        ]
        return [*seen, *[(status,) for status in client.statuses if status != 200]]
