"""Processes of several doors and faces on one log, whose engine and whose network fail at random.

Four publishers, 200 streams over four servers. In the end each client must have had exactly what the log
holds of its channels, the log each event that was acknowledged, and none that was said not to be stored.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import pytest

from penstock import Event, Penstock
from penstock.core.channel import Subscription
from penstock.errors import AppendUnsure, LogUnavailable
from tests.doors.servers import ALL
from tests.promises.chaos import (
    DONE,
    QUIET_S,
    Log,
    Publisher,
    Seen,
    Wanderer,
    assert_batches_are_whole,
    assert_keyed_are_all_there,
    assert_same,
    following,
    kill,
)
from tests.promises.publisher import CHANNELS
from tests.promises.storages import STORAGES, MakeStorage
from tests.support.wait import wait_for

SERVERS = {  # a door, and what is served through it
    "uvicorn-push": "tests.apps.asgi:app",
    "gunicorn-push": "tests.apps.basic:app",
    "gevent-push": "tests.apps.django_app:wsgi",
    "hypercorn": "tests.apps.quart_app:app",
}
PUBLISHERS = ["single", "batch", "keyed", "coroutines"]
FOLLOWS = [["news"], ["orders"], ["room/*"], ["news", "room/2"]]
STREAMS = 200
SOAK_S = 600.0
SHORT_S = 12.0
BACK_S = 60.0  # after a fault, on two busy cores


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("storage", STORAGES)
def test_faults_cost_no_acknowledged_event(storage: MakeStorage, tmp_path: Path) -> None:
    run_with_faults(storage, tmp_path, SHORT_S)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 900)
@pytest.mark.parametrize("storage", STORAGES)
def test_faults_cost_no_acknowledged_event_for_long(storage: MakeStorage, tmp_path: Path) -> None:
    run_with_faults(storage, tmp_path, SOAK_S)


def run_with_faults(make: MakeStorage, folder: Path, seconds: float) -> None:
    rng = random.Random(random.getrandbits(32))
    recoveries: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(make(folder))
        env = {"PENSTOCK_URL": storage.url, "PENSTOCK_KEEP_ALIVE": "1", "PENSTOCK_PUBLISH_TIMEOUT": "1"}
        servers = []
        for door, app in SERVERS.items():
            (place := folder / door).mkdir()
            servers.append(stack.enter_context(ALL[door].make(place, env, app)))
        bus = stack.enter_context(Penstock(storage.url, publish_timeout=1))
        seen_in_python = stack.enter_context(following(bus))
        clients = [
            Wanderer([server.url for server in servers], FOLLOWS[n % len(FOLLOWS)], rng)
            for n in range(STREAMS)
        ]
        for client in clients:
            stack.callback(client.close)
        for client in clients:
            client.wait_for_notice("penstock.position")
        publishers = [Publisher(kind, storage.url, folder, rng, "brave", "calm") for kind in PUBLISHERS]
        for publisher in publishers:
            stack.callback(publisher.kill)
            publisher.start()

        until = time.monotonic() + seconds
        while time.monotonic() < until or not recoveries:
            time.sleep(rng.uniform(0, 1))  # the random moment
            name = rng.choice([*storage.faults, "a server is killed", "a publisher is killed"])
            if name == "a server is killed":
                kill(rng.choice(servers), rng)
            elif name == "a publisher is killed":
                rng.choice(publishers).kill_and_restart()
            else:
                storage.faults[name](rng)
            recoveries[name].append(time_to_recover(bus, seen_in_python))
        for publisher in publishers:
            publisher.kill()
        head = wait_for(lambda: last_events(bus), BACK_S, what="the last events are stored")
        log = Log.read(storage.url, head)
        try:
            for client in clients:
                client.wait_for_all()
        except AssertionError:
            print(f"the log is at {head}\n{told(recoveries)}")
            for server in servers:
                with contextlib.suppress(ProcessLookupError):  # each thread tells where it is
                    os.killpg(server.pid, signal.SIGABRT)
                server.kill()
            raise
        wait_for(lambda: seen_in_python[-1][0] >= head, QUIET_S, what="the end of the subscriber in Python")

    acknowledged = [line for publisher in publishers for line in publisher.acknowledged]
    refused = {data for publisher in publishers for data in publisher.refused}
    print(f"{head} events, {len(acknowledged)} acknowledged, {len(refused)} refused\n{told(recoveries)}")
    assert log.seqs == list(range(1, head + 1)), "the log has holes"
    assert not [data for data, n in Counter(log.data).items() if n > 1 and data != DONE], "twice"
    assert set(acknowledged) <= set(log.records), "acknowledged, and not in the log"
    assert not refused & set(log.data), "said not to be stored, and in the log"
    assert_batches_are_whole(log)
    assert_keyed_are_all_there(log)
    # What a killed publisher had under way may have been stored after the last events.
    assert_same("the subscriber in Python", upto(head, seen_in_python), log.of(Subscription(["**"])))
    for client in clients:
        assert_same(client, upto(head, client.seen), log.of(client.subscription))
        assert not [notice for notice in client.notices if notice.event == "penstock.gap"]


def upto(head: int, seen: list[Seen]) -> list[Seen]:
    return [one for one in seen if one[0] <= head]


def time_to_recover(bus: Penstock, seen: list[Seen]) -> float:
    """Seconds until an event is stored and delivered again; no stream follows its channel."""
    began = time.monotonic()

    def stored() -> int:
        try:
            return bus.publish("probe", str(began)).seq
        except (LogUnavailable, AppendUnsure):
            return 0

    seq = wait_for(stored, BACK_S, what="the log is back")
    wait_for(lambda: seen and seen[-1][0] >= seq, BACK_S, what="what was published is delivered")
    return time.monotonic() - began


def told(recoveries: Mapping[str, Sequence[float]]) -> str:
    """How often what happened, and how long after its end all was well again."""
    return "\n".join(
        f"{name}: {len(times)} times, back after {median(times):.2f} s, at the most {max(times):.2f} s"
        for name, times in recoveries.items()
    )


def last_events(bus: Penstock) -> int:
    """Publish the last events of all; the seq of the last, or 0 if it is certain that they are not there."""
    try:
        return bus.publish_many([Event(channel, DONE) for channel in CHANNELS])[-1].seq
    except LogUnavailable:
        return 0
