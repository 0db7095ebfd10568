"""Publishers, clients and servers that live through kills and cuts, and the account that is made in the end.

Random numbers are those of pytest-randomly: its line at the start of a run tells their seed, and
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
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple, Self
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil

from penstock import Penstock
from penstock.core.channel import Subscription
from tests.promises.publisher import CHANNELS, acknowledged
from tests.support.client import SSEClient
from tests.support.processes import Server, environment

DONE = "done"  # the last event of each channel
QUIET_S = 120.0  # two busy cores may take so long for what is still on its way

_NEWEST = 100  # what the killed had under way may be stored after the last events

Seen = tuple[int, str]  # seq, data


class Publisher:
    """One kind of publisher through all its lives."""

    def __init__(self, kind: str, url: str, folder: Path, rng: random.Random, *options: str) -> None:
        self.kind = kind
        self.lives = 0
        self._options = options
        self._url = url
        self._folder = folder
        self._random = rng
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def acknowledged(self) -> list[tuple[int, str, str]]:
        files = self._folder.glob(f"{self.kind}-*.acks")
        return [line for file in files for line in acknowledged(file)]

    @property
    def refused(self) -> list[str]:
        """The data of what was said not to be stored."""
        files = self._folder.glob(f"{self.kind}-*.refused")
        return [line for file in files for line in file.read_text().splitlines()]

    def start(self) -> None:
        self.lives += 1
        command = [sys.executable, "-m", "tests.promises.publisher", self._url, self.kind]
        command += [str(self.lives), str(self._random.getrandbits(32)), *self._options]
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
        channels = sum(map(self.subscription.covers, CHANNELS))
        self._wait(
            lambda: sum(message.data == DONE for message in self.messages[-_NEWEST:]) == channels,
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
    workers = psutil.Process(server.pid).children() if "gunicorn" in server.command else []
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
