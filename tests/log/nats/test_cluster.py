"""Three servers that replicate the stream: one is lost and comes back, two are lost and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.core.event import Event
from penstock.errors import AppendUnsure, LogUnavailable
from penstock.log.nats import NatsLog
from penstock.testing import LOG_CHECKS
from penstock.testing.storage import everything
from tests.log.load import Load
from tests.log.nats.conftest import Logs
from tests.support.nats import NatsCluster, need_nats, new_stream, open_nats
from tests.support.wait import wait_for

pytestmark = need_nats


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(three: NatsCluster) -> NatsCluster:
    """All of it is up again, whatever the test before did."""
    three.wait_whole()
    return three


@pytest.fixture
def stream() -> str:
    return new_stream()


@pytest.fixture
def url(cluster: NatsCluster, stream: str) -> str:
    return f"nats://{cluster.hosts}/{stream}?replicas=3"


@pytest.mark.parametrize(
    "name",
    [
        "seq_counts_from_one_without_holes",
        "a_key_is_stored_once",
        "a_key_may_come_again_once_its_record_was_trimmed",
        "concurrent_appends_are_dense_and_in_order",
        "concurrent_appends_of_one_key_store_it_once",
        "latest_is_what_reading_backwards_finds",
        "of_many_that_renew_one_does",
        "seq_goes_on_when_all_was_trimmed",
        "wait_ends_soon_when_another_appended",
    ],
)
def test_the_contract_holds_with_replicas(cluster: NatsCluster, name: str) -> None:
    def fresh():  # type: ignore[no-untyped-def]
        url = f"nats://{cluster.hosts}/{new_stream()}?replicas=3"
        return lambda: open_nats(url)

    LOG_CHECKS[name](fresh)


def test_servers_die_under_load_and_come_back(cluster: NatsCluster, stream: str, logs: Logs) -> None:
    with Load(logs) as load:
        load.until(20)
        leader = cluster.leader(stream)
        for lost in (cluster.others(leader)[0], leader):
            lost.kill()
            load.until(20)
            load.until_followed()
            lost.start()
            load.until(20)
            load.until_followed()
    cluster.wait_whole()
    load.check(logs())


def test_without_a_majority_nothing_is_stored_and_then_all_goes_on(
    cluster: NatsCluster, stream: str, url: str, logs: Logs
) -> None:
    with Load(lambda: logs(f"{url}&timeout=3")) as load:
        load.until(20)
        lost = cluster.others(cluster.leader(stream))
        for server in lost:
            server.kill()
        load.until_refused()  # at first the leader does not know that it is alone, and all is unsure
        acked = len(load.acked)
        wait_for(lambda: load.refused, what="it is known that nothing can be stored")
        assert len(load.acked) == acked
        for server in lost:
            server.start()
        load.until(20)
        load.until_followed()
    cluster.wait_whole()
    load.check(logs())


def test_a_server_that_stands_still_is_passed_over(cluster: NatsCluster, stream: str, logs: Logs) -> None:
    with Load(logs) as load:
        load.until(20)
        leader = cluster.leader(stream)
        leader.freeze()
        load.until(20)
        leader.thaw()
        load.until(20)
        load.until_followed()
    cluster.wait_whole()
    load.check(logs())


def test_the_other_servers_of_a_cluster_are_found_by_one(
    cluster: NatsCluster, stream: str, logs: Logs
) -> None:
    logs().append([Event("check", "before")])
    first = cluster.others(cluster.leader(stream))[0]
    log = logs(f"{first.url}/{stream}?replicas=3")
    assert log.bounds().head == 1
    first.kill()
    try:
        wait_for(lambda: appended(log), what="it is stored with another")
    finally:
        first.start()
    assert [record.data for record in everything(log)] == ["before", "after"]


def appended(log: NatsLog) -> bool:
    try:
        return log.append([Event("check", "after", key="after")]).seqs == [2]
    except (LogUnavailable, AppendUnsure):
        return False
