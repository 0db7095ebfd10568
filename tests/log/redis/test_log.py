"""What the log in Redis does beyond the contract: how it reads, waits and trims, and what it says."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.core.event import Event
from penstock.log import open_log
from penstock.log.base import READ_BYTES, WAIT_S, Log, Retention
from penstock.testing.storage import everything, numbers, same, some
from tests.support.redis import RedisServer, need_redis, opened
from tests.support.wait import wait_for

pytestmark = need_redis


def calls(server: RedisServer, command: str) -> int:
    return int(server.info(f"cmdstat_{command}").partition(",")[0].removeprefix("calls=") or 0)


def commands(server: RedisServer, use: Callable[[], object]) -> int:
    """How many the server was sent by something; those of scripts count too."""

    def count() -> int:
        return int(server.info("total_commands_processed"))

    before = count()
    of_count = count() - before
    use()
    return count() - before - 2 * of_count


@pytest.fixture
def logs(server: RedisServer) -> Iterator[list[Log]]:
    """Two on one storage; they have been used."""
    url = server.url()
    with opened(url, url) as found:
        for log in found:
            log.append([])
            log.read(0, 1)
            log.wait(0)
        yield list(found)


# Reading and waiting


def test_an_append_is_one_round_trip_however_many_events_it_has(server: RedisServer, logs: list[Log]) -> None:
    for count in (1, 1000):
        before = calls(server, "evalsha")
        logs[0].append(some(count))
        assert calls(server, "evalsha") == before + 1


def test_a_read_of_many_small_events_is_one_round_trip(server: RedisServer, logs: list[Log]) -> None:
    for _ in range(1000):
        logs[0].append(some(1))
    for _ in range(20):
        logs[0].append(some(50))
    for after in (0, 1000):
        logs[1].read(after, 10)
        before = calls(server, "xrange")
        assert len(logs[1].read(after, 1000)) == 1000
        assert calls(server, "xrange") <= before + 3


def test_what_ended_a_wait_is_not_asked_for_again(server: RedisServer, logs: list[Log]) -> None:
    log, other = logs
    other.append(some(3))
    other.append(some(2))
    log.wait(0)
    assert commands(server, lambda: same(numbers(log.read(0, 4)), [1, 2, 3, 4], "seqs")) == 0
    assert numbers(log.read(0, 10)) == [1, 2, 3, 4, 5], "it is given once"
    log.wait(2)
    assert numbers(log.read(1, 10)) == [2, 3, 4, 5], "and to who asks for it"
    log.wait(4)
    other.trim(Retention(None, 0, None))
    log.trim(Retention())
    assert log.read(4, 10) == [], "and not after something else"


def test_what_was_fetched_ahead_is_as_a_read_gives_it(logs: list[Log]) -> None:
    log, other = logs
    for batch in range(1, 40):
        other.append([Event("check", "x" * 5_000, key=f"{batch} {n}") for n in range(batch % 7)])
    other.trim(Retention(None, 100, None))
    head, after = other.bounds().head, 0
    while after < head:
        log.wait(after)
        ahead = log.read(after, 9)
        assert ahead == other.read(after, len(ahead))
        assert 1 <= len(ahead) <= 9
        after = ahead[-1].seq


def test_what_this_log_appended_itself_does_not_end_its_wait(logs: list[Log]) -> None:
    log, other = logs
    head = log.append(some(3)).seqs[-1]
    began = time.monotonic()
    log.wait(head - 3)
    assert time.monotonic() - began > WAIT_S / 2
    assert numbers(log.read(0, 10)) == [1, 2, 3], "it is there all the same"
    other.append(some(1))
    log.append(some(1))
    began = time.monotonic()
    log.wait(3)
    assert time.monotonic() - began < WAIT_S
    assert numbers(log.read(3, 10)) == [4, 5]


def test_an_idle_follower_asks_seldom(server: RedisServer, logs: list[Log]) -> None:
    log = logs[0]
    head = log.bounds().head
    began = time.monotonic()
    asked = commands(server, lambda: [log.wait(head) for _ in range(3)])
    assert asked <= 2 * (time.monotonic() - began) / WAIT_S + 2


def test_large_events_are_read_a_few_at_a_time(server: RedisServer, logs: list[Log]) -> None:
    """Also after many small ones, which do not let it be expected."""
    log, other = logs
    for _ in range(1000):
        log.append(some(1))
    for number in range(60):
        log.append([Event("check", f"{number} " + "x" * 200_000)])
    other.read(0, 1)  # now it knows how large the largest are
    before = int(server.info("total_net_output_bytes"))
    found = other.read(1000, 1000)
    assert sum(len(record.data) for record in found) <= READ_BYTES
    assert int(server.info("total_net_output_bytes")) - before < 9 * READ_BYTES
    assert len(everything(other)) == 1060


def test_a_large_append_is_in_blocks_that_are_read_in_part(server: RedisServer, logs: list[Log]) -> None:
    log, other = logs
    events = [
        Event("check", f"{n} " + "x" * (n % 700), key=str(n) if n % 3 == 0 else None) for n in range(2000)
    ]
    appended = log.append(events)
    assert list(appended.seqs) == list(range(1, 2001))
    found = everything(other)
    assert [record.data for record in found] == [event.data for event in events]
    for after in (0, 1, 255, 256, 257, 1000, 1999):
        assert other.read(after, 300) == found[after : after + 300]


def test_bytes_and_blocks_are_counted_through_all_that_is_done(server: RedisServer) -> None:
    """What is counted must come to nothing when all is removed, whatever was in it."""
    with opened(server.url(prefix="count")) as [log]:
        for turn in range(30):
            log.append(
                [Event("check", "é" * turn, key=f"{turn} {n}" if n % 2 else None) for n in range(turn)]
            )
            if turn % 4 == 0:
                log.trim(Retention(None, 20 + turn % 3, None))
        log.trim(Retention(None, 1, None))
        assert int(server.ask("HGET", "{count}:log", "blocks")) == 1
        log.trim(Retention(None, 0, None))
        assert server.ask("HMGET", "{count}:log", "blocks", "bytes") == [b"0", b"0"]
        assert server.ask("HLEN", "{count}:log") == 8, "all keys are gone"
        assert server.ask("XLEN", "{count}:events") == 0


def test_nothing_else_is_left_in_the_server(server: RedisServer) -> None:
    with opened(server.url(prefix="left")) as [log]:
        log.append([*some(3), Event("check", "x", key="k")])
        log.trim(Retention(None, 2, None))
    assert {*server.ask("KEYS", "*left*")} == {b"{left}:log", b"{left}:events"}


def test_several_trim_at_once_and_each_event_is_removed_once(server: RedisServer) -> None:
    url = server.url()
    with opened(url, url, url) as found:
        for _ in range(500):
            found[0].append(some(3))
        removed: list[int] = []

        def trim(log: Log) -> None:
            removed.append(log.trim(Retention(None, 10, None)))

        threads = [threading.Thread(target=trim, args=(log,)) for log in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(removed) == 1490
        assert numbers(everything(found[0])) == list(range(1491, 1501))


# What is said, and held


def test_a_log_that_was_not_closed_holds_no_connection_once_it_is_forgotten(server: RedisServer) -> None:
    before = int(server.info("connected_clients"))
    log = open_log(server.url())
    log.append(some(1))
    assert int(server.info("connected_clients")) == before + 1
    log.close()
    del log
    gc.collect()
    wait_for(lambda: int(server.info("connected_clients")) == before, what="its connection is closed")


def test_few_connections_are_kept(server: RedisServer) -> None:
    before = int(server.info("connected_clients"))
    with opened(server.url()) as [log]:

        def use() -> None:
            for _ in range(20):
                log.append(some(1))
                log.read(0, 10)

        threads = [threading.Thread(target=use) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert int(server.info("connected_clients")) <= before + 4
        assert b"name=penstock" in server.ask("CLIENT", "LIST")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lfu"), ["allkeys-lfu", "appendonly"]),
        (("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru", "--save", "3600", "1"), []),
        (("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes"), []),
        ((), ["appendonly yes"]),
        (("--save", "3600", "1"), []),
    ],
)
def test_dangerous_settings_are_told_once(
    options: tuple[str, ...], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.log")
    with RedisServer(*options) as server, opened(server.url()) as [log]:
        for _ in range(2):
            log.open()
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            log.append(some(1))
        assert len(caplog.records) == len(said), caplog.text
        for record, words in zip(caplog.records, said, strict=True):
            assert words in record.getMessage()
            assert record.name == "penstock.log"


def test_where_settings_may_not_be_asked_for_nothing_is_said(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    rights = ["on", ">pw", "allkeys", "allcommands", "-config", "-info", "-client"]
    server.ask("ACL", "SETUSER", "hosted", *rights)
    url = server.url().replace("redis://", "redis://hosted:pw@")
    with opened(url) as [log]:
        log.append(some(1))
    assert not caplog.records
