"""Promise 1: nothing is lost, nothing comes twice, nothing is out of order.

Publishers and servers share one SQLite file, clients wander from server to server, and a killer sends
SIGKILL to any process at any moment. In the end each client must have had exactly what the log holds
of its channels, and the log each event that was acknowledged.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.core.channel import Subscription
from tests.promises.chaos import (
    DONE,
    QUIET_S,
    Log,
    Publisher,
    Wanderer,
    WebPublisher,
    assert_batches_are_whole,
    assert_keyed_are_all_there,
    assert_same,
    following,
    kill,
)
from tests.promises.publisher import CHANNELS, KINDS
from tests.promises.retention import is_trimmed
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_acknowledged_event_reaches_every_client_once_and_in_order(tmp_path: Path) -> None:
    run_with_kills(tmp_path, rounds=8)


def test_a_client_that_had_no_event_gets_what_it_missed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Penstock(url) as bus, Server.gunicorn(APP, tmp_path, env={"PENSTOCK_URL": url}) as server:
        bus.publish("chat", "before it came")
        with SSEClient(f"{server.url}/events?channel=chat") as client:
            client.wait_open()
            server.kill()
            client.wait_closed()
            assert client.messages == []
            missed = [str(bus.publish("chat", f"missed {n}")) for n in range(3)]
            server.start()
            client.reconnect()
            seen = client.wait_for_messages(3)
            bus.publish("chat", "live")
            assert client.wait_for_messages(4)[3].data == "live"
    assert [(message.id, message.data) for message in seen] == [(missed[n], f"missed {n}") for n in range(3)]


def test_a_client_of_a_quiet_channel_has_a_position_that_is_kept(tmp_path: Path) -> None:
    """A busy log is trimmed past where the client began, and it still needs no gap notice."""
    url = f"sqlite:///{tmp_path}/log.db"
    env = {"PENSTOCK_URL": url, "PENSTOCK_KEEP_ALIVE": "0.1"}
    with (
        Penstock(url, max_events=100) as bus,
        Server.gunicorn(APP, tmp_path, env=env) as server,
        SSEClient(f"{server.url}/events?channel=quiet") as client,
    ):
        began = client.wait_open().last_event_id
        busy = [Event("busy", str(n)) for n in range(10_000)]  # after so many it is trimmed
        for events in busy[:9_950], busy[9_950:]:
            now = str(bus.publish_many(events)[-1])
            wait_for(partial(has_position, client, now), what="a position without an event")
        wait_for(lambda: is_trimmed(url, began), what="what the client began at is trimmed")
        server.kill()
        client.wait_closed()
        missed = bus.publish("quiet", "missed")
        server.start()
        client.reconnect()
        assert client.wait_for_messages(1)[0].id == str(missed)
        assert {notice.event for notice in client.notices} == {"penstock.position"}


def has_position(client: SSEClient, position: str) -> bool:
    return client.last_event_id == position


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_it_does_so_for_long(tmp_path: Path) -> None:
    run_with_kills(tmp_path, rounds=50)


def run_with_kills(folder: Path, rounds: int) -> None:
    rng = random.Random(random.getrandbits(32))
    url = f"sqlite:///{folder}/log.db"
    env = {"PENSTOCK_URL": url, "PENSTOCK_KEEP_ALIVE": "0.3"}
    servers = [
        # What its clients missed is rarely in so small a ring: they read the log.
        Server.waitress(APP, folder, env=env | {"PENSTOCK_RING_EVENTS": "20"}),
        Server.gunicorn(APP, folder, env=env | {"PENSTOCK_STREAM_LIFETIME": "2"}, workers=2),
        # Most of its clients find no place, and come again and again.
        Server.gunicorn(APP, folder, env=env | {"PENSTOCK_MAX_STREAMS": "1"}),
    ]
    publishers = [Publisher(kind, url, folder, rng) for kind in KINDS]
    follows = [["**"], ["**"], CHANNELS, ["news"], ["room/*"], ["orders", "room/2"]]
    killed = 0
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(Penstock(url))
        seen_in_python = stack.enter_context(following(bus))
        for server in servers:
            stack.enter_context(server)
        clients = [Wanderer([s.url for s in servers], channels, rng) for channels in follows]
        for client in clients:
            stack.callback(client.close)
            client.wait_for_notice("penstock.position")
        for publisher in publishers:
            stack.callback(publisher.kill)
            publisher.start()

        with WebPublisher([server.url for server in servers], rng) as web:
            victims: list[Publisher | Server] = [*publishers, *servers]
            for victim in [v for _ in range(rounds) for v in rng.sample(victims, len(victims))]:
                time.sleep(rng.uniform(0, 1))  # the random moment
                if isinstance(victim, Publisher):
                    victim.kill_and_restart()
                else:
                    kill(victim, rng)
                killed += 1
                if rng.random() < 0.2:
                    rng.choice(clients).reconnect()
        for publisher in publishers:
            publisher.kill()
        head = bus.publish_many([Event(channel, DONE) for channel in CHANNELS])[-1].seq
        log = Log.read(url, head)
        for client in clients:
            client.wait_for_all()
        wait_for(lambda: seen_in_python[-1][0] >= head, QUIET_S, what="the end of the subscriber in Python")

    acknowledged = [*web.acknowledged]
    for publisher in publishers:
        acknowledged += publisher.acknowledged
    cuts = sum(len(client.errors) for client in clients)
    print(f"{head} events, {len(acknowledged)} acknowledged; {cuts} cuts; {killed} kills")
    assert killed >= 50
    assert cuts >= killed // 2  # they did hit streams
    assert web.refused == []

    assert log.seqs == list(range(1, head + 1)), "the log has holes"
    assert not [data for data, n in Counter(log.data).items() if n > 1 and data != DONE], "twice"
    assert set(acknowledged) <= set(log.records), "acknowledged, and not in the log"
    assert_batches_are_whole(log)
    assert_keyed_are_all_there(log)
    assert_same("the subscriber in Python", seen_in_python, log.of(Subscription(["**"])))
    for client in clients:
        assert_same(client, client.seen, log.of(client.subscription))
        assert not [notice for notice in client.notices if notice.event == "penstock.gap"]
