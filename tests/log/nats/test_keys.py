"""Keys among several processes, and what is left by an append that ended halfway."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain

import pytest

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.log.base import Retention, latest
from penstock.testing.storage import everything
from tests.log.nats.children import Child
from tests.log.nats.conftest import Logs
from tests.support.nats import NatsServer, need_nats, publish

pytestmark = need_nats

PROCESSES, KEYS = 4, 60


def test_of_many_processes_that_store_the_same_keys_one_does(url: str, logs: Logs) -> None:
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child("append_keys", url, f"child {n}", KEYS)) for n in range(PROCESSES)
        ]
        for child in children:
            assert child.line() == "open"
        for child in children:
            child.tell()
        told = [dict(chain.from_iterable(child.finish())) for child in children]
    assert all(one == told[0] for one in told), "each was told the same seq of a key"
    assert sorted(told[0]) == list(range(KEYS))
    records = everything(logs())
    assert [record.seq for record in records] == list(range(1, KEYS + 1))
    assert {record.key: record.seq for record in records} == {
        f"key {key}": seq for key, seq in told[0].items()
    }


def test_processes_append_at_once_and_each_acked_event_is_there(url: str, logs: Logs) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(Child("append", url, f"child {n}", 40)) for n in range(PROCESSES)]
        for child in children:
            assert child.line() == "open"
        for child in children:
            child.tell()
        told = [line for child in children for line in child.finish()]
    records = everything(logs())
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    for data, *seqs in told:
        assert [records[seq - 1].data for seq in seqs] == [data] * len(seqs)
    assert sorted(seq for _, *seqs in told for seq in seqs) == list(range(1, len(records) + 1))


@pytest.mark.parametrize("stored", [1, 2, 3])
@pytest.mark.parametrize("follows", [False, True])
def test_signposts_of_a_writer_that_died_are_void(
    server: NatsServer, logs: Logs, stored: int, follows: bool
) -> None:
    """It meant to store two events with keys on two channels; of its four messages the first ones came."""
    log, other = logs(), logs()
    log.append([Event("a", "before")])
    if follows:
        other.wait(0)
    tip, subjects = log._chain.tip, log._stream.subjects
    assert tip is not None
    signs = [subjects.key("a", "1"), subjects.key("b", "2"), subjects.channel("b")]
    for index, subject in enumerate(signs[:stored]):
        tip = tip.next(time.time(), own="dead", signposts=index, left=3 - index)
        publish(server.url, subject, tip.payload())
    assert other.bounds()[1:] == (1, 1)
    assert [record.data for record in everything(other)] == ["before"]
    assert latest(other, Subscription(["b"]), 1, ends=True) == []
    events = [Event("a", "again", key="1"), Event("b", "again", key="2")]
    assert list(other.append([*events, Event("c", "more", key="1")]).seqs) == [2, 3, 4]
    assert list(log.append(events).seqs) == [2, 3]
    for one in (log, other):
        assert [record.data for record in everything(one)] == ["before", "again", "again", "more"]
        assert [record.seq for record in latest(one, Subscription(["b"]), 5, ends=True)] == [3]
    assert log.trim(Retention(None, 1, None)) == 3
    assert [record.data for record in everything(other)] == ["more"]
    assert list(log.append(events).seqs) == [5, 6]


def test_signposts_stay_while_a_part_of_their_append_does(logs: Logs) -> None:
    log, other = logs(), logs()
    events = [Event(f"check/{number}", "first", key=f"key {number}") for number in range(10)]
    log.append(events)
    log.append([Event("check", "last")])
    assert log.trim(Retention(None, 6, None)) == 5
    assert list(other.append(events).seqs) == [12, 13, 14, 15, 16, 6, 7, 8, 9, 10]
    found = latest(other, Subscription(["check/*"]), 20, ends=True)
    assert [record.seq for record in found] == list(range(6, 11)) + list(range(12, 17))


def test_many_keys_may_come_at_once(logs: Logs) -> None:
    log, other = logs(), logs()
    events = [Event(f"check/{number % 50}", str(number), key=str(number)) for number in range(1_000)]
    assert list(log.append(events).seqs) == list(range(1, 1_001))
    again = [*events[500:], *(Event("new", str(number), key=str(number)) for number in range(500))]
    assert list(other.append(again).seqs) == [*range(501, 1_001), *range(1_001, 1_501)]
    assert log.bounds()[1:] == (1, 1_500)


def test_newest_of_a_channel_are_found_however_long_ago_they_were(logs: Logs) -> None:
    log = logs()
    for number in range(40):
        log.append([Event("rare", str(number)), Event("rare", "", end=True)])
        log.append([Event("busy", str(number)), Event("busy/too", str(number))])
    for _ in range(300):
        log.append([Event("busy", "more")])
    for limit in (1, 7, 30, 100):
        found = latest(log, Subscription(["rare"]), limit, ends=False)
        assert [record.data for record in found] == [str(number) for number in range(40)][-limit:]
    assert [r.data for r in latest(log, Subscription(["busy/too"]), 3, ends=False)] == ["37", "38", "39"]
    assert [r.data for r in latest(log, Subscription(["busy/**"]), 2, ends=False)] == ["more", "more"]
    assert latest(log, Subscription(["none", "none/*"]), 10, ends=True) == []
