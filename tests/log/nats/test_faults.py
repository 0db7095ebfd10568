"""Real faults of a server alone: it dies, loses data, stands still; the network is cut or deaf."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from penstock.core.position import Bounds
from penstock.errors import AppendUnsure, Closed, LogUnavailable
from penstock.log.base import WAIT_S, Appended, Log, Retention
from tests.log.contents import data_of, some
from tests.log.load import Load
from tests.log.nats.conftest import Logs
from tests.support.nats import NatsServer, jetstream, need_nats
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import wait_for

pytestmark = need_nats

T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One for each test, which may end it."""
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
def impatient(url: str, server: NatsServer, network: TcpProxy) -> str:
    """Through the network, with a short time-out."""
    return url.replace(str(server.port), str(network.port)) + "?timeout=2&connect_timeout=1"


def back(log: Log) -> Appended:
    """The first append that is stored again."""

    return when_back(lambda: log.append(some("back")))


def when_back(call: Callable[[], T]) -> T:
    """What a call gives when the log is back."""
    given: list[T] = []

    def ask() -> bool:
        with contextlib.suppress(LogUnavailable):
            given.append(call())
        return bool(given)

    wait_for(ask, what="the log is back")
    return given[0]


# The server


def test_killed_under_load_and_started_again_with_its_data(server: NatsServer, logs: Logs) -> None:
    with Load(logs) as load:
        for _ in range(3):
            load.until(20)
            server.kill()
            server.start()
        load.until(20)
        load.until_followed()
    load.check(logs())


def test_started_again_without_its_data_it_is_another_log(server: NatsServer, logs: Logs) -> None:
    log, follower = logs(), logs()
    before = log.append(some("1", "2"))
    assert len(follower.read(0, 10)) == 2
    server.kill()
    server.wipe()
    server.start()
    assert when_back(follower.bounds)[1:] == (1, 0)
    after = back(log)
    assert after.epoch != before.epoch
    assert after.epoch == follower.bounds().epoch
    assert data_of(follower) == ["back"]


@pytest.mark.parametrize("written", [0, 1, 5])
def test_a_backup_that_is_put_in_place_begins_a_new_epoch(
    server: NatsServer, logs: Logs, written: int
) -> None:
    """Also when others have written to it, up to where the old one was or beyond."""
    log, follower = logs(), logs()
    log.append(some("1"))
    server.stop()
    server.save()
    server.start()
    before = log.append(some("lost 1"))
    assert log.append(some("lost 2")).epoch == before.epoch
    assert len(follower.read(0, 10)) == 3
    server.stop()
    server.restore()
    server.start()
    if written:
        other = logs()  # knows of nothing
        for number in range(written):
            assert other.append(some(f"other {number}")).epoch == before.epoch
    after = log.append(some("after"))
    assert after.epoch != before.epoch
    assert follower.bounds().epoch == after.epoch
    assert data_of(follower) == ["1", *(f"other {number}" for number in range(written)), "after"]


def test_a_stream_that_is_removed_is_begun_anew(
    url: str, server: NatsServer, stream: str, logs: Logs
) -> None:
    log, follower = logs(), logs()
    before = log.append(some("1", "2"))
    follower.read(0, 10)
    assert jetstream(server.url, f"STREAM.DELETE.{stream}")["success"]
    after = log.append(some("3"))
    assert after.epoch != before.epoch
    assert (after.first, follower.bounds()) == (1, Bounds(after.epoch, 1, 1))
    assert data_of(follower) == ["3"]


def test_standing_still_it_is_noticed_in_time_and_all_goes_on(
    server: NatsServer, logs: Logs, url: str
) -> None:
    with Load(lambda: logs(f"{url}?timeout=2&connect_timeout=1")) as load:
        load.until(10)
        server.freeze()
        try:
            wait_for(lambda: load.refused | load.unsure, what="somebody notices")
        finally:
            server.thaw()
        load.until(10)
        load.until_followed()
    load.check(logs())


def test_what_a_still_server_has_got_is_unsure_until_it_goes_on(
    server: NatsServer, logs: Logs, url: str
) -> None:
    log, patient = logs(f"{url}?timeout=1&connect_timeout=0.5"), logs()
    log.append(some("first"))
    server.freeze()
    began = time.monotonic()
    with pytest.raises(AppendUnsure, match="publish them again with a key"):
        log.append(some("unsure"))
    assert time.monotonic() - began < 10
    with pytest.raises(LogUnavailable, match="nothing was stored"):
        log.append(some("refused"))
    server.thaw()
    assert patient.append(some("after")).first in (2, 3)
    assert data_of(log) in (["first", "unsure", "after"], ["first", "after"])


def test_an_append_is_settled_when_the_server_goes_on_in_time(
    server: NatsServer, logs: Logs, url: str
) -> None:
    log = logs(f"{url}?timeout=20&connect_timeout=20")
    log.append(some("first"))
    for number in range(3):
        server.freeze()
        thaw = threading.Timer(0.5, server.thaw)
        thaw.start()
        log.append(some(f"{number} a", f"{number} b"))
        thaw.join()
    expected = ["first", *(f"{number} {part}" for number in range(3) for part in "ab")]
    assert data_of(log) == expected


# The network


def test_an_answer_that_is_lost_is_looked_for(
    server: NatsServer, network: TcpProxy, logs: Logs, impatient: str
) -> None:
    log, plain = logs(impatient.replace("timeout=2", "timeout=10")), logs()
    told: list[Appended] = []
    for number in range(1, 4):
        publisher = threading.Thread(target=lambda: told.append(log.append(some("lost"))))
        log.append(some("before"))
        network.deafen(to_server=False)
        publisher.start()
        wait_for(lambda: data_of(plain)[-1] == "lost", what="it is stored")
        network.drop()
        network.mend()
        publisher.join()
        assert told[-1].first == plain.bounds().head == 2 * number
    assert data_of(plain) == ["before", "lost"] * 3


def test_a_deaf_network_is_noticed_and_what_it_kept_comes_to_nothing(
    network: TcpProxy, logs: Logs, impatient: str
) -> None:
    log, plain = logs(impatient), logs()
    log.append(some("before"))
    network.deafen()
    with pytest.raises((LogUnavailable, AppendUnsure)):
        log.append(some("given up"))
    began = time.monotonic()
    with pytest.raises(LogUnavailable):
        log.read(0, 10)
    assert time.monotonic() - began < 10
    plain.append(some("meanwhile"))
    network.mend()  # what waited arrives
    back(log)
    assert data_of(plain) == ["before", "meanwhile", "back"]


def test_cut_amid_everything_all_goes_on(network: TcpProxy, logs: Logs, impatient: str) -> None:
    with Load(lambda: logs(impatient)) as load:
        for _ in range(3):
            load.until(10)
            network.drop()
            load.until(10)
            network.cut()
            load.until_refused()
            network.mend()
        load.until(10)
        load.until_followed()
    load.check(logs())


def test_while_it_is_away_each_call_says_so_at_once(network: TcpProxy, logs: Logs, impatient: str) -> None:
    log = logs(impatient)
    log.append(some("1"))
    network.cut()
    calls = {
        "read": lambda: log.read(0, 10),  # what is sent before the cut is noticed may be unsure
        "append": lambda: log.append(some("2")),
        "bounds": log.bounds,
        "wait": lambda: log.wait(1),
        "trim": lambda: log.trim(Retention()),
        "open": log.open,
        "exists": log.exists,
    }
    for name, call in calls.items():
        with pytest.raises(LogUnavailable, match="nothing was stored") as caught:
            call()
        assert f"127.0.0.1:{network.port}" in str(caught.value), name
        assert caught.value.__cause__ is not None or "Connect" in str(caught.value), name
    network.mend()
    assert data_of(log) == ["1"]


def test_wait_ends_when_the_connection_breaks(network: TcpProxy, logs: Logs, impatient: str) -> None:
    log = logs(impatient)
    log.append(some("1"))
    log.wait(1)
    ended = threading.Event()

    def wait() -> None:
        for _ in range(20):
            with contextlib.suppress(LogUnavailable):
                log.wait(1)
        ended.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    network.cut()
    assert ended.wait(20 * WAIT_S)
    waiter.join()


def test_close_ends_a_wait_and_an_append_while_the_server_is_deaf(
    network: TcpProxy, logs: Logs, impatient: str
) -> None:
    log = logs(impatient.replace("timeout=2", "timeout=60"))
    log.append(some("1"))
    network.deafen()
    closed = []

    def append() -> None:
        with pytest.raises(Closed):
            log.append(some("2"))
        closed.append(True)

    publisher = threading.Thread(target=append)
    publisher.start()
    time.sleep(0)
    began = time.monotonic()
    log.close()
    publisher.join()
    assert time.monotonic() - began < 5
    assert closed == [True]


def test_a_host_that_has_moved_is_found_at_its_next_server(
    tmp_path: Path, server: NatsServer, logs: Logs, stream: str
) -> None:
    """Of several servers in the URL, those that do not answer are passed over."""
    log = logs(f"nats://127.0.0.1:1,127.0.0.1:2,127.0.0.1:{server.port}/{stream}")
    log.append(some("1"))
    assert data_of(log) == ["1"]
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
