"""Places for streams: how many, for whom, and what an operator is told when there are no more."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from penstock import Penstock
from penstock.doors.places import (
    KEPT_DESCRIPTORS,
    STREAMS_PER_PUBLIC_ADDRESS,
    UNLIMITED_DESCRIPTORS,
    Full,
    Places,
    is_public,
    usable_descriptors,
    without_threads,
)
from penstock.engine import notices
from penstock.log.memory import MemoryLog
from tests.support.wait import DEADLINE_S

PRIVATE, OTHER_PRIVATE = "10.0.0.1", "10.0.0.2"
PUBLIC, OTHER_PUBLIC = "8.8.8.8", "8.8.4.4"
TOLD = "all %d places are taken"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the log lines go by; nothing was told before."""
    now = [1_000.0]
    monkeypatch.setattr(notices, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(notices, "_last", {})
    return now


def places(limit: int | None = None, per_client: int | None = None) -> Places:
    return Places(limit, per_client, refuses=False, told=TOLD, about="memory:")


def take(places: Places, count: int, client: str | None = None) -> list[Callable[[], None]]:
    return [places.take(client) for _ in range(count)]


def is_full(places: Places, client: str | None = None, fd: int | None = None) -> Full | None:
    """Whether there is no place; one that there is is given back."""
    try:
        places.take(client, fd)()
    except Full as full:
        return full
    return None


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_there_are_as_many_places_as_the_limit_says(limit: int) -> None:
    some = places(limit)
    held = take(some, limit)
    for client in (None, PRIVATE, PUBLIC):
        full = is_full(some, client)
        assert full is not None
        assert not full.one_client
    for give_back in held:
        give_back()
    assert len(take(some, limit)) == limit


def test_a_place_is_given_back_once_however_often_it_is_said() -> None:
    some = places(2, 2)
    first, _ = take(some, 2, PRIVATE)
    for _ in range(3):
        first()
    take(some, 1, PRIVATE)
    assert is_full(some, PRIVATE)
    assert is_full(some, OTHER_PRIVATE)


def test_a_client_with_its_share_finds_no_place_and_others_do() -> None:
    some = places(10, 3)
    held = take(some, 3, PUBLIC)
    full = is_full(some, PUBLIC)
    assert full is not None
    assert full.one_client
    assert not is_full(some, OTHER_PUBLIC)
    assert not is_full(some, None)
    held.pop()()
    take(some, 1, PUBLIC)
    assert is_full(some, PUBLIC)


def test_whoever_finds_no_place_takes_nothing_and_leaves_nothing() -> None:
    some = places(3, 2)
    held = take(some, 2, PUBLIC)
    for _ in range(5):
        assert is_full(some, PUBLIC)
    held += take(some, 1, PRIVATE)
    for number in range(5):
        assert is_full(some, f"10.0.1.{number}")
    for give_back in held:
        give_back()
    assert not some._clients
    take(some, 2, PUBLIC)
    take(some, 1, PRIVATE)
    assert is_full(some)


def test_unless_it_is_set_a_public_address_has_a_thousand_places_and_a_private_one_any_number() -> None:
    some = places(3 * STREAMS_PER_PUBLIC_ADDRESS)
    take(some, STREAMS_PER_PUBLIC_ADDRESS, PUBLIC)
    full = is_full(some, PUBLIC)
    assert full is not None
    assert full.one_client
    take(some, STREAMS_PER_PUBLIC_ADDRESS + 1, PRIVATE)
    take(some, 1, OTHER_PUBLIC)


def test_a_share_that_is_set_is_for_private_addresses_too() -> None:
    some = places(10, 1)
    take(some, 1, PRIVATE)
    assert is_full(some, PRIVATE)
    take(some, 5, None)  # nobody knows whose these are


@pytest.mark.parametrize(
    ("one", "other"),
    [("2606:4700:a:b::1", "2606:4700:a:b:1234:5678:9abc:def0"), (PUBLIC, f"::ffff:{PUBLIC}")],
    ids=["a public network of IPv6", "IPv4 within IPv6"],
)
def test_addresses_that_one_client_may_take_as_it_likes_are_counted_as_one(one: str, other: str) -> None:
    some = places(10, 2)
    give_back = some.take(one)
    some.take(other)
    for address in (one, other):
        assert is_full(some, address)
    give_back()
    assert not is_full(some, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2606:4700:a:b::1", "2606:4700:a:c::1"),
        ("fd00::1", "fd00::2"),
        ("::ffff:8.8.8.8", "::ffff:8.8.4.4"),
        ("a socket's path", "another"),
    ],
    ids=["two networks of IPv6", "a private network of IPv6", "IPv4 within IPv6", "no addresses"],
)
def test_addresses_of_different_clients_are_counted_apart(one: str, other: str) -> None:
    some = places(10, 1)
    some.take(one)
    assert is_full(some, one)
    assert not is_full(some, other)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "fe80::1%eth0",
     "::ffff:10.1.2.3", "", "localhost", "a.sock"],
)  # fmt: skip
def test_a_proxy_may_have_this_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_this_address_is_one_of_the_open_internet(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_come_at_once_take_no_place_twice(restless: None) -> None:
    rounds = [places(4, 2) for _ in range(500)]
    taken: list[Places] = []
    barrier = threading.Barrier(8)

    def come(client: str) -> None:
        for some in rounds:
            barrier.wait(DEADLINE_S)
            for _ in range(3):
                with contextlib.suppress(Full):
                    some.take(client)
                    taken.append(some)

    threads = [threading.Thread(target=come, args=(f"10.0.0.{number % 4}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {taken.count(some) for some in rounds} == {4}


# Descriptors


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Sets how many descriptors this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("allowed", "usable"), [(64, 0), (200, 136), (1_024, 960), (4_000, 3_800)])
def test_some_descriptors_are_kept_for_the_log_and_for_other_requests(
    allowed: int, usable: int, file_limit: Callable[[int], None]
) -> None:
    file_limit(allowed)
    assert usable_descriptors() == usable == allowed - max(KEPT_DESCRIPTORS, allowed // 20)
    assert places().limit == usable
    assert places(7).limit == 7


def test_a_process_without_a_limit_of_descriptors_has_one_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = resource.RLIM_INFINITY, resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: endless)
    assert usable_descriptors() == UNLIMITED_DESCRIPTORS * 19 // 20


def test_a_connection_with_one_of_the_last_descriptors_finds_no_place(
    file_limit: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Others than streams need them too, so it is not counted but seen how many there are."""
    file_limit(200)
    some = places(10_000, 1)
    assert not is_full(some, PRIVATE, fd=135)
    full = is_full(some, PRIVATE, fd=136)
    assert full is not None
    assert not full.one_client
    (line,) = caplog.messages
    assert line.startswith("136 descriptors are in use, and the last few are kept for other requests")
    assert "ulimit -n" in line
    assert "LimitNOFILE" in line


# What is told


def test_a_flood_is_told_in_one_line_a_minute_that_names_the_option(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    some = places(2, 1)
    take(some, 1, PUBLIC)
    for second in range(150):
        clock[0] = 1_000.0 + second
        assert is_full(some, PUBLIC)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert set(lines) == {
        f"{PUBLIC} has 1 streams open, and gets no more (max_streams_per_client). If that is a proxy, let it "
        "pass on the addresses of its clients"
    }
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("penstock.streams", logging.WARNING)
    }


def test_each_limit_is_told_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    some = places(2, 1)
    take(some, 1, PRIVATE)
    for _ in range(10):
        assert is_full(some, PRIVATE)
        assert is_full(some, None, fd=some.descriptors)
    take(some, 1)
    for _ in range(10):
        assert is_full(some)
    told = [message.partition(":")[0].partition(",")[0] for message in caplog.messages]
    assert told == [
        f"{PRIVATE} has 1 streams open",
        f"{some.descriptors} descriptors are in use",
        "all 2 places are taken",
    ]


def test_nothing_is_told_while_there_are_places(caplog: pytest.LogCaptureFixture) -> None:
    some = places(5, 5)
    for give_back in take(some, 5, PUBLIC):
        give_back()
    assert not caplog.records


def test_whoever_logs_may_take_a_place_himself() -> None:
    """A log handler may send its lines anywhere, and so through this."""
    some = places(1)
    found: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            give_back()
            found.append(is_full(some) is None)

    handler = Handler()
    logging.getLogger("penstock.streams").addHandler(handler)
    try:
        (give_back,) = take(some, 1)
        assert is_full(some)
    finally:
        logging.getLogger("penstock.streams").removeHandler(handler)
    assert found == [True]


# Where a stream holds no thread


@pytest.mark.parametrize(("overflow", "refuses"), [("poll", False), ("refuse", True)])
def test_where_a_stream_holds_no_thread_the_options_say_how_many(
    overflow: str, refuses: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"max_streams": 2, "max_streams_per_client": 1, "overflow": overflow}
    with Penstock(MemoryLog, **settings) as bus, caplog.at_level(logging.INFO):
        some = without_threads(bus.engine, "a server")
        assert (some.limit, some.refuses) == (2, refuses)
        assert "a server, at most 2 at once" in caplog.text
        take(some, 1, PRIVATE)
        assert is_full(some, PRIVATE)
        take(some, 1, OTHER_PRIVATE)
        assert is_full(some)
        assert f"all 2 places for streams are taken; more are answered with '{overflow}'" in caplog.text
        assert "max_streams (PENSTOCK_MAX_STREAMS)" in caplog.text
