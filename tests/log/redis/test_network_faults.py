"""The way to a server that is cut, or lets nothing pass, in one direction or in both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from penstock.core.event import Event
from penstock.errors import AppendUnsure, LogUnavailable
from penstock.log import open_log
from penstock.log.base import Log, Retention
from penstock.testing.storage import everything, numbers, some
from tests.log.redis.parties import Follower, Publisher, data_of, until_it_works
from tests.support.redis import RedisServer, need_redis, opened, url_of
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import wait_for

pytestmark = need_redis


@pytest.fixture
def network(server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as proxy:
        yield proxy


def through(network: TcpProxy, prefix: str | None = None, **options: object) -> str:
    return url_of(f"redis://127.0.0.1:{network.port}", prefix=prefix, **{"timeout": 1, **options})


def keyed(*keys: str) -> list[Event]:
    return [Event("check", f"keyed {key}", key=key) for key in keys]


def until_head(log: Log, seq: int) -> None:
    wait_for(lambda: log.bounds().head >= seq, what="it is stored")


class Aside(threading.Thread):
    """Does something that takes its time, and keeps what came of it."""

    def __init__(self, log: Log, events: list[Event]) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.seqs: list[int] = []
        self._log = log
        self._events = events
        self.start()

    def run(self) -> None:
        try:
            self.seqs = list(self._log.append(self._events).seqs)
        except BaseException as error:
            self.error = error


def test_what_was_told_is_true_however_often_the_network_is_cut(
    server: RedisServer, network: TcpProxy
) -> None:
    url = through(network, prefix="cuts")
    with opened(url, url, server.url(prefix="cuts")) as [one, watcher, direct], Follower(watcher) as follower:
        with Publisher(one, "one") as publisher, Publisher(direct, "direct") as other:
            for turn in range(10):
                publisher.until_more(20)
                if turn % 2:
                    network.drop()
                else:
                    network.cut()
                    other.until_more(20)
                    network.mend()
            publisher.until_more(20)
        records = everything(direct)
        assert numbers(records) == list(range(1, len(records) + 1))
        publisher.check(records)
        other.check(records)
        assert not other.refused + other.unsure
        follower.until(1, numbers(records))
        assert list(follower.got.values()) == [records]


def test_a_connection_that_is_cut_is_made_anew_by_the_next_use(network: TcpProxy) -> None:
    with opened(through(network)) as [log]:
        for _ in range(3):
            network.drop()
            log.append(some(1))
            network.drop()
            log.read(0, 1)
            network.drop()
            log.wait(0)
            network.drop()
            log.trim(Retention())
        network.cut()
        for use in (lambda: log.append(some(1)), lambda: log.wait(3), lambda: log.read(0, 1)):
            with pytest.raises(LogUnavailable):
                use()
        network.mend()
        assert log.append(some(1)).first == 4


def test_an_append_whose_answer_is_lost_is_stored_once_and_told_as_it_is(
    server: RedisServer, network: TcpProxy
) -> None:
    with opened(through(network, prefix="lost"), server.url(prefix="lost")) as [log, direct]:
        log.append(keyed("a", "b"))
        for turn in range(3):
            head = direct.bounds().head
            network.deafen(to_server=False)
            aside = Aside(log, [*some(2), *keyed("a", f"new {turn}", "b"), *some(1)])
            until_head(direct, head + 1)
            others = direct.append([Event("check", f"after {turn}")] * 3)
            network.drop()  # now it is noticed
            network.mend()
            aside.join()
            assert aside.error is None
            assert aside.seqs == [head + 1, head + 2, 1, head + 3, 2, head + 4]
            assert others.first == head + 5
        assert numbers(everything(direct)) == list(range(1, 2 + 3 * 7 + 1))


def test_the_time_of_an_append_whose_answer_is_lost_is_that_of_its_records(
    server: RedisServer, network: TcpProxy
) -> None:
    with opened(through(network, prefix="time"), server.url(prefix="time")) as [log, direct]:
        log.append(some(1))  # from now on the server has the script
        found = []

        def append() -> None:
            found.append(log.append([Event("check", "x" * 50_000)] * 4))  # in several blocks

        network.deafen(to_server=False)
        thread = threading.Thread(target=append)
        thread.start()
        until_head(direct, 2)
        network.drop()
        network.mend()
        thread.join()
        assert found[0][1:3] == (2, [2, 3, 4, 5])
        assert {record.time for record in direct.read(1, 10)} == {found[0].time}


class SlowWay(TcpProxy):
    """A network in which something may be on its way for long, while others pass."""

    def hold(self) -> None:
        """What is sent over the connections that are open now arrives after ``release`` only."""
        self._run(self._hold())

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._held.set)

    async def _hold(self) -> None:
        self._held = self._to_server
        self._held.clear()
        self._to_server = asyncio.Event()
        self._to_server.set()


def scripts_run(server: RedisServer) -> int:
    calls = server.info("cmdstat_evalsha").partition(",")[0]
    return int(calls.removeprefix("calls="))


def test_an_append_that_did_not_arrive_is_refused_and_never_comes_later(server: RedisServer) -> None:
    with (
        SlowWay(server.port) as network,
        opened(through(network, prefix="late"), server.url(prefix="late")) as [log, direct],
    ):
        log.append(some(1))
        network.hold()
        with pytest.raises(LogUnavailable, match="was asked"):
            log.append(keyed("late"))
        assert list(log.append(keyed("late")).seqs) == [2]
        log.trim(Retention(None, 0, None))  # now its key would not keep it away
        before = scripts_run(server)
        network.release()
        wait_for(lambda: scripts_run(server) > before, what="it has arrived")
        assert direct.bounds()[1:] == (3, 2)


def test_an_append_that_was_trimmed_before_it_could_be_asked_for_is_unsure(server: RedisServer) -> None:
    with (
        TcpProxy(server.port) as network,
        opened(through(network, prefix="gone"), server.url(prefix="gone")) as [log, direct],
    ):
        log.append(some(1))
        network.deafen(to_server=False)
        aside = Aside(log, some(2))
        until_head(direct, 3)
        direct.trim(Retention(None, 0, None))
        network.drop()
        network.mend()
        aside.join()
        assert isinstance(aside.error, AppendUnsure)
        assert "trimmed" in str(aside.error)


def test_a_server_that_cannot_be_asked_leaves_an_append_unsure(
    server: RedisServer, network: TcpProxy
) -> None:
    with opened(through(network, prefix="unsure"), server.url(prefix="unsure")) as [log, direct]:
        log.append(some(1))
        network.deafen()
        began = time.monotonic()
        with pytest.raises(AppendUnsure, match="could not be asked"):
            log.append(keyed("a"))
        assert time.monotonic() - began < 20
        with pytest.raises(LogUnavailable):
            log.append(some(1))  # of this one nothing was sent
        network.mend()
        until_it_works(log.bounds)
        assert list(log.append(keyed("a")).seqs) == [2]
        assert data_of(direct) == ["check 1", "keyed a"]


@pytest.mark.parametrize("ways", [{}, {"to_server": False}, {"to_client": False}])
def test_a_deaf_network_is_noticed_by_a_follower(
    server: RedisServer, network: TcpProxy, ways: dict[str, bool]
) -> None:
    url = through(network, prefix=f"deaf{len(ways)}{''.join(ways)}")
    prefix = url.partition("prefix=")[2]
    with opened(url, server.url(prefix=prefix)) as [watcher, direct], Follower(watcher) as follower:
        direct.append(some(2))
        follower.until(1, [1, 2])
        network.deafen(**ways)
        direct.append(some(2))
        wait_for(lambda: follower.away, what="the follower notices")
        network.mend()
        follower.until(1, [1, 2, 3, 4])


def test_close_does_not_wait_for_a_deaf_network(network: TcpProxy) -> None:
    log = open_log(through(network, timeout=10))
    log.append(some(1))
    log.wait(0)
    network.deafen()
    waiting = threading.Thread(target=log.wait, args=(1,))
    waiting.start()
    began = time.monotonic()
    wait_for(lambda: log._follower._waiting, what="it waits")  # type: ignore[attr-defined]
    log.close()
    waiting.join()
    assert time.monotonic() - began < 5


def test_a_slow_network_is_only_slow(server: RedisServer, network: TcpProxy) -> None:
    network.delay_s = 0.05
    with opened(through(network, timeout=3)) as [log]:
        for number in range(1, 4):
            assert log.append(some(1)).first == number
            began = time.monotonic()
            assert len(log.read(0, 10)) == number
            assert time.monotonic() - began < 2
