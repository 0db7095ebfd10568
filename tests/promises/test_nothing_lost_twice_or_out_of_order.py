"""Promise 1: nothing is lost, nothing comes twice, nothing is out of order.

Publishers and servers share one SQLite file, clients wander from server to server, and a killer sends
SIGKILL to any process at any moment. In the end each client must have had exactly what the log holds
of its channels, and the log each event that was acknowledged.

The random numbers are those of pytest-randomly: its line at the start of a run tells their seed, and
``--randomly-seed=N`` sets it. What the system does between them is its own.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple, Self
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import pytest

from penstock import Event, Penstock
from penstock.core.channel import Subscription
from tests.promises.publisher import CHANNELS, KINDS, acknowledged
from tests.promises.retention import is_trimmed
from tests.support.client import SSEClient
from tests.support.processes import Server, environment
from tests.support.wait import wait_for

APP = "tests.apps.basic:app"
DONE = "done"  # the last event of each channel
QUIET_S = 120.0  # two busy cores may take so long for what is still on its way

Seen = tuple[int, str]  # seq, data


class Publisher:
    """One kind of publisher through all its lives."""

    def __init__(self, kind: str, url: str, folder: Path, rng: random.Random) -> None:
        self.kind = kind
        self.lives = 0
        self._url = url
        self._folder = folder
        self._random = rng
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def acknowledged(self) -> list[tuple[int, str, str]]:
        files = self._folder.glob(f"{self.kind}-*.acks")
        return [line for file in files for line in acknowledged(file)]

    def start(self) -> None:
        self.lives += 1
        command = [sys.executable, "-m", "tests.promises.publisher", self._url, self.kind]
        command += [str(self.lives), str(self._random.getrandbits(32))]
        self._process = subprocess.Popen(command, cwd=self._folder, env=environment(), stdin=subprocess.PIPE)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes its stdin, waits for its end
                pass
            code, self._process = self._process.returncode, None
            assert code == -signal.SIGKILL, f"the publisher {self.kind} ended by itself: {code}"

    def kill_and_restart(self) -> None:
        self.kill()
        self.start()


class WebPublisher:
    """A client that publishes through any of the servers; who answers 200 has acknowledged."""

    def __init__(self, urls: Sequence[str], rng: random.Random) -> None:
        self.acknowledged: list[tuple[int, str, str]] = []
        self.refused: list[int] = []
        self._urls = urls
        self._random = random.Random(rng.getrandbits(32))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(self._random.uniform(0, 0.02)):
            number += 1
            channel, data = self._random.choice(CHANNELS), f"web.{number}"
            form = urlencode({"channel": channel, "data": data}).encode()
            try:
                url = self._random.choice(self._urls)
                with urlopen(f"{url}/publish", form, timeout=30) as answer:
                    seq = int(answer.read().decode().partition(":")[2])
                self.acknowledged.append((seq, channel, data))
            except HTTPError as error:
                with error:
                    self.refused.append(error.code)
            except (OSError, HTTPException):
                pass  # stored or not: it does not know

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


class Wanderer(SSEClient):
    """A client that comes back to any of the servers, as behind a load balancer."""

    def __init__(self, urls: Sequence[str], channels: Sequence[str], rng: random.Random) -> None:
        query = "&".join(f"channel={channel}" for channel in channels)
        self.subscription = Subscription(channels)
        self._urls = [f"{url}/events?{query}" for url in urls]
        self._random = random.Random(rng.getrandbits(32))
        super().__init__(self._urls[0], auto_reconnect=True)

    def _connect(self) -> bool:
        self.url = self._random.choice(self._urls)
        return super()._connect()

    @property
    def seen(self) -> list[Seen]:
        return [(int(message.id.partition(":")[2]), message.data) for message in self.messages]

    def wait_for_all(self) -> None:
        """Wait for the last events of all: those of its channels."""
        last = [DONE] * sum(map(self.subscription.covers, CHANNELS))
        self._wait(
            lambda: [message.data for message in self.messages[-len(last) :]] == last,
            QUIET_S,
            "the last event of each channel",
        )


class Log(NamedTuple):
    """What rests in the log."""

    records: list[tuple[int, str, str]]  # seq, channel, data

    @classmethod
    def read(cls, url: str, head: int) -> Log:
        found = []
        with Penstock(url) as bus, bus.subscribe("**", after="earliest") as records:
            for record in records:
                found.append((record.seq, record.channel, record.data))
                if record.seq >= head:
                    break
        return cls(found)

    @property
    def seqs(self) -> list[int]:
        return [seq for seq, _, _ in self.records]

    @property
    def data(self) -> list[str]:
        return [data for _, _, data in self.records]

    def of(self, subscription: Subscription) -> list[Seen]:
        return [(seq, data) for seq, channel, data in self.records if subscription.covers(channel)]


def kill(server: Server, rng: random.Random) -> None:
    """The whole server, or one worker of gunicorn, which the arbiter replaces."""
    assert server.process is not None
    assert server.process.poll() is None, f"{server} ended by itself:\n{server.log}"
    workers = psutil.Process(server.pid).children()
    if workers and rng.random() < 0.5:
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(workers).kill()
    else:
        server.restart()


def assert_same(who: object, seen: list[Seen], expected: list[Seen]) -> None:
    """As ``==``, with the first difference in words rather than two lists of thousands."""
    if seen == expected:
        return
    twice = [event for event, count in Counter(seen).items() if count > 1]
    lost = sorted(set(expected) - set(seen))
    strange = sorted(set(seen) - set(expected))
    wrong = [pair for pair in itertools.pairwise(seen) if pair[0] >= pair[1]]
    raise AssertionError(
        f"{who} had {len(seen)} events of {len(expected)}: {len(lost)} lost {lost[:5]}, "
        f"{len(twice)} twice {twice[:5]}, {len(strange)} that do not rest in the log {strange[:5]}, "
        f"{len(wrong)} out of order {wrong[:5]}"
    )


def assert_batches_are_whole(log: Log) -> None:
    """Batches were stored whole or not at all, acknowledged or not, and side by side."""
    places: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for seq, _, data in log.records:
        if batch := re.fullmatch(r"(batch-\d+\.\d+)\.(\d+)/(\d+)", data):
            assert len(places.setdefault(batch[1], [])) == int(batch[2])
            places[batch[1]].append(seq)
            sizes[batch[1]] = int(batch[3])
    for name, seqs in places.items():
        assert seqs == list(range(seqs[0], seqs[0] + sizes[name])), name


def assert_keyed_are_all_there(log: Log) -> None:
    """Who publishes with keys and tries again has each event stored once, in spite of its deaths."""
    numbers = [int(data[len("keyed.") :]) for data in log.data if data.startswith("keyed.")]
    assert numbers == list(range(len(numbers)))


@contextlib.contextmanager
def following(bus: Penstock) -> Iterator[list[Seen]]:
    """What a subscriber in Python sees of everything, in this process, which is not killed."""
    seen: list[Seen] = []
    records = bus.subscribe("**", on_gap=lambda gap: seen.append((gap.resumes.seq, repr(gap))))

    def run() -> None:
        seen.extend((record.seq, record.data) for record in records)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        bus.drain()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_acknowledged_event_reaches_every_client_once_and_in_order(tmp_path: Path) -> None:
    run_with_kills(tmp_path, rounds=13)


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
