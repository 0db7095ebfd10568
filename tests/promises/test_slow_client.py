"""Promise 4: a slow client harms only itself.

It costs no memory, delays no one and loses nothing: its stream is a position, and when it reads again
it is given what follows that, from the ring or the log. The clients here are real sockets, which fill
up, and the server is a process of its own, whose memory is looked at from outside.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from penstock import Event, Penstock, Position
from penstock.core.parser import Message, Parser
from tests.promises.retention import is_trimmed
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

APP = "tests.apps.basic:app"
CHANNEL = "chat"
MINUTE_S = 60.0
EVENTS = 100_000
BATCH = 100
FILL_EVENTS = 12_000  # over the 10,000 of the ring, whose memory is nobody's in particular
PADDING = "x" * 500
GROWTH_BYTES = 16 * 1024**2  # for a heap that is not tidy; 100,000 events in a queue take 56 MB and more
RECEIVE_BYTES = 16 * 1024  # what a client's socket holds for it


class Client:
    """A client that reads when it is told to, from a socket that holds little.

    It notes when each event came.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.settimeout(60)
        self._socket.connect((parts.hostname, parts.port))
        request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: test\r\n\r\n"
        self._socket.sendall(request.encode())
        self._response = HTTPResponse(self._socket, method="GET")
        self._response.begin()
        self._parser = Parser()
        self.messages: list[tuple[float, Message]] = []  # keep-alives aside
        while not self._parser.last_event_id and self._read():
            pass

    def read_until(self, count: int) -> None:
        """Read until there are so many messages, or the stream ends."""
        while len(self.messages) < count and self._read():
            pass

    def _read(self) -> bool:
        try:
            chunk = self._response.read1()
        except IncompleteRead:
            return False
        now = time.monotonic()
        for message in self._parser.feed(chunk):
            if message.event != "penstock.position":
                self.messages.append((now, message))
        return bool(chunk)

    @property
    def seqs(self) -> list[int]:
        return [seq_of(message.id) for _, message in self.messages]

    def hang_up(self) -> None:
        """Whoever reads sees the end."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()
        self._socket.close()


@contextlib.contextmanager
def reading(client: Client, count: int) -> Iterator[None]:
    """Read that many messages in a thread, while the block runs."""
    thread = threading.Thread(target=client.read_until, args=(count,))
    thread.start()
    try:
        yield
    except BaseException:
        client.hang_up()
        raise
    finally:
        thread.join(60)


def seq_of(position: str) -> int:
    return int(position.partition(":")[2])


def stats(server: Server) -> dict[str, Any]:
    with urlopen(f"{server.url}/stats", timeout=DEADLINE_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def memory(server: Server) -> int:
    """The server's resident memory, in bytes."""
    with urlopen(f"{server.url}/pid", timeout=DEADLINE_S) as answer:
        rss: int = psutil.Process(int(answer.read())).memory_info().rss
        return rss


def publish(bus: Penstock, events: int, seconds: float) -> Iterator[None]:
    """Publish evenly over a time, each event with the time at which it was; a step a second."""
    began = time.monotonic()
    for number in range(events // BATCH):
        now = time.monotonic()
        bus.publish_many([Event(CHANNEL, f"{now} {PADDING}") for _ in range(BATCH)])
        due = began + (number + 1) * BATCH * seconds / events
        time.sleep(max(0, due - time.monotonic()))
        if int(due - began) > int(now - began):
            yield


def p99_latency(messages: list[tuple[float, Message]]) -> float:
    """From the call of publish to the client, in seconds: of each 10,000 the p99, of these the median.

    So a machine that is busy with other things for a while is not taken for a delay of ours.
    """
    latencies = [at - float(message.data.split()[0]) for at, message in messages]
    parts = [latencies[start : start + 10_000] for start in range(0, len(latencies) - 9_999, 10_000)]
    return statistics.median(statistics.quantiles(part, n=100)[98] for part in parts)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_client_that_does_not_read_for_a_minute(tmp_path: Path) -> None:
    """It costs no memory, it delays no other, and it gets all 100,000 events once it reads."""
    url = f"sqlite:///{tmp_path}/log.db"
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(Penstock(url))
        server = stack.enter_context(Server.gunicorn(APP, tmp_path, env={"PENSTOCK_URL": url}))
        prompt = stack.enter_context(contextlib.closing(Client(f"{server.url}/events?channel=chat")))
        stack.enter_context(reading(prompt, FILL_EVENTS + EVENTS))
        for _ in publish(bus, FILL_EVENTS, MINUTE_S * FILL_EVENTS / EVENTS):
            pass
        wait_for(lambda: len(prompt.messages) == FILL_EVENTS, what="the ring is filled")
        stats(server)  # what answers /stats needs memory too
        before = memory(server)

        slow = stack.enter_context(contextlib.closing(Client(f"{server.url}/events?channel=chat")))
        seen: list[dict[str, Any]] = []
        growth: list[int] = []
        for _ in publish(bus, EVENTS, MINUTE_S):
            seen.append(stats(server))
            growth.append(memory(server) - before)
        wait_for(lambda: len(prompt.messages) == FILL_EVENTS + EVENTS, 60, what="the prompt one has all")
        wait_for(lambda: stats(server)["lagging"] == 1, what="and waits for more")
        after = stats(server)
        slow.read_until(EVENTS)
        growth.append(memory(server) - before)

    usual = p99_latency(prompt.messages[:FILL_EVENTS])
    meanwhile = p99_latency(prompt.messages[FILL_EVENTS:])
    print(
        f"growth at most {max(growth) / 1e6:.1f} MB, in the end {growth[-1] / 1e6:.1f} MB; "
        f"p99 of the other client {usual * 1e3:.1f} ms before, {meanwhile * 1e3:.1f} ms meanwhile"
    )
    assert after["lagging"] == 1
    assert after["streams"] == 2
    assert after["tail_seq"] == FILL_EVENTS + EVENTS
    assert after["delivered"] < FILL_EVENTS + EVENTS + EVENTS // 2  # the rest is in no buffer
    assert max(s["ring_bytes"] for s in seen) <= 16 * 1024**2
    assert max(s["ring_events"] for s in seen) <= 10_000
    assert max(growth) < GROWTH_BYTES
    assert meanwhile < 5 * max(usual, 0.05)
    assert prompt.seqs == list(range(1, FILL_EVENTS + EVENTS + 1))
    assert slow.seqs == list(range(FILL_EVENTS + 1, FILL_EVENTS + EVENTS + 1))


def test_past_the_retention_it_is_told_what_it_missed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    kept = 1_000
    env = {"PENSTOCK_URL": url, "PENSTOCK_RING_EVENTS": "100"}
    with (
        Penstock(url, max_events=kept) as bus,
        Server.gunicorn(APP, tmp_path, env=env) as server,
        contextlib.closing(Client(f"{server.url}/events?channel=chat")) as slow,
    ):
        for _ in range(2):  # 10,000 events at a time, and then the publisher trims
            for _ in range(10_000 // BATCH):
                last = bus.publish_many([Event(CHANNEL, PADDING * 4) for _ in range(BATCH)])[-1]
            oldest = Position(last.epoch, last.seq - kept)
            not_kept = str(Position(last.epoch, oldest.seq - 1))
            wait_for(partial(is_trimmed, url, not_kept), what="the log is trimmed")
        wait_for(lambda: stats(server)["tail_lag"] == 0, what="the server has seen all")
        while not slow.messages or slow.messages[-1][1].id != str(last):
            had = len(slow.messages)
            slow.read_until(had + 1)
            assert len(slow.messages) > had, "the stream ended"
        gaps = stats(server)["gaps"]

    messages = [message for _, message in slow.messages]
    notices = [at for at, message in enumerate(messages) if message.event == "penstock.gap"]
    # One; two if its socket was not full yet when the log was trimmed for the first time.
    assert len(notices) == gaps
    assert len(notices) in (1, 2)
    for at in notices:
        notice = json.loads(messages[at].data)
        assert notice["reason"] == "expired"
        assert notice["after"] == messages[at - 1].id
        assert notice["resumes"] == messages[at].id
    assert slow.seqs[0] == 1
    for at, (before, now) in enumerate(itertools.pairwise(slow.seqs), 1):
        assert now > before if at in notices else now == before + 1
    assert slow.seqs[notices[-1]] == oldest.seq  # everything that was still there
    assert slow.seqs[-1] == last.seq
