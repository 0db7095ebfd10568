"""Many streams come back at once, and each has missed the same number of events.

A server that stayed up has them in its ring; one that was started anew has an empty ring and reads the log.
"""

from __future__ import annotations

import socket
import sqlite3
import statistics
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from benchmarks.measure import Cost, Row, Stopwatch, Table, in_turn, median_ratio
from penstock import Event, Penstock, Position, Record
from penstock.core.channel import Subscription
from penstock.core.position import Bounds
from penstock.core.wire import Block
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Wish
from penstock.engine.pull import Pull
from penstock.log.sqlite import SQLiteLog
from tests.support.processes import Server
from tests.support.wait import wait_for

STREAMS = 2_000
MISSED = 100
THREADS = 4
HTTP_STREAMS = 200
ROUNDS = 5
EARLIER = 1_000  # events that nobody missed
PAYLOAD = "x" * 64
REFERENCE = "bare SQLite: each selects its rows"

TEXT = (
    f"Each stream has missed {MISSED} events of 64 bytes. Through the engine, {THREADS} threads open the "
    "streams and take from each what it missed, as the bytes to be sent. Over HTTP the CPU time is that of "
    "the server, without the client's; streams that find no thread are answered by a poll. *Reads* are calls "
    "of the log for each stream."
)


class Run(NamedTuple):
    streams: int
    events: int
    cost: Cost
    reads: int | None


def run(folder: Path, *, quick: bool) -> list[Table]:
    streams = STREAMS // (20 if quick else 1)
    http = HTTP_STREAMS // (20 if quick else 1)
    cases: dict[str, Callable[[], Run]] = {
        REFERENCE: partial(_select, folder, streams),
        "engine, from the ring": partial(_through_engine, folder, streams, False),
        "engine, from the log (it was started anew)": partial(_through_engine, folder, streams, True),
        f"gunicorn, {http} threads for {http} streams": partial(_over_http, folder, http, http),
        f"gunicorn, {http} threads for {streams} streams": partial(_over_http, folder, http, streams),
    }
    runs = in_turn(cases, 1 if quick else ROUNDS)
    return [Table(f"A reconnect storm of {streams} streams", TEXT, _rows(runs))]


def _rows(runs: dict[str, list[Run]]) -> list[Row]:
    reference = [run.cost.cpu_s / run.events for run in runs[REFERENCE]]
    return [
        {
            "": name,
            "streams": own[0].streams,
            "s": statistics.median(run.cost.wall_s for run in own),
            "CPU s": statistics.median(run.cost.cpu_s for run in own),
            "events/s": statistics.median(run.events / run.cost.wall_s for run in own),
            "CPU µs per event": statistics.median(run.cost.cpu_s / run.events * 1e6 for run in own),
            "CPU ratio": median_ratio([run.cost.cpu_s / run.events for run in own], reference),
            "reads": None if own[0].reads is None else own[0].reads / own[0].streams,
        }
        for name, own in runs.items()
    ]


class _CountingLog(SQLiteLog):
    """Counts what is asked of it."""

    asked = 0

    def read(self, after: int, limit: int) -> list[Record]:
        self.asked += 1
        return super().read(after, limit)

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        self.asked += 1
        return super().latest(subscription, limit, ends=ends)

    def bounds(self) -> Bounds:
        self.asked += 1
        return super().bounds()


def _publish(bus: Penstock) -> Position:
    """Publish what all have had, and then what all will have missed; returns where they were."""
    had = bus.publish_many([Event("chat", PAYLOAD)] * EARLIER)[-1]
    bus.publish_many([Event("chat", PAYLOAD)] * MISSED)
    return had


def _through_engine(folder: Path, streams: int, anew: bool) -> Run:
    with TemporaryDirectory(dir=folder) as name:
        log = _CountingLog(Path(name) / "log.db")
        with Penstock(lambda: log) as bus:
            engine = bus.engine
            if anew:
                with Penstock(log.url) as earlier:
                    had = _publish(earlier)
                engine.start("a benchmark")
            else:
                engine.start("a benchmark")
                wait_for(lambda: engine.ring.bounds is not None, what="the engine follows the log")
                had = _publish(bus)
                wait_for(lambda: engine.ring.head == had.seq + MISSED, what="the ring has all")
            pulls: list[Pull] = []
            asked = log.asked
            with Stopwatch() as watch:
                events = _in_threads(streams, lambda: _come_back(engine, had, pulls))
            asked = log.asked - asked
            for pull in pulls:
                engine.leave(pull)
            return Run(streams, _checked(events, streams), watch.cost, asked)


def _come_back(engine: Engine, had: Position, pulls: list[Pull]) -> int:
    """One stream: open it, and take what it missed. Returns how many events it was given."""
    subscription = Subscription(["chat"])
    origin = engine.find_origin(subscription, Wish(), str(had))
    pull = engine.open(subscription, origin, _nothing)
    pulls.append(pull)
    events = 0
    while (step := pull.poll()) is not Next.WAIT:
        block = pull.read() if step is Next.READ else step
        if isinstance(block, Block):
            pull.count_bytes(len(block.wire))
            events += block.events
    return events


def _nothing() -> None:
    pass


def _select(folder: Path, streams: int) -> Run:
    with TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "log.db"
        with Penstock(f"sqlite:///{path}") as bus:
            had = _publish(bus)
        local = threading.local()

        def select() -> int:
            if not hasattr(local, "connection"):
                local.connection = sqlite3.connect(path)
            query = "SELECT * FROM record WHERE seq > ? ORDER BY seq"
            return len(local.connection.execute(query, (had.seq,)).fetchall())

        with Stopwatch() as watch:
            events = _in_threads(streams, select)
        return Run(streams, _checked(events, streams), watch.cost, 1 * streams)


def _in_threads(times: int, work: Callable[[], int]) -> int:
    todo = iter(range(times))
    done: list[int] = []

    def some() -> None:
        for _ in todo:
            done.append(work())

    threads = [threading.Thread(target=some) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)


def _over_http(folder: Path, threads: int, streams: int) -> Run:
    with TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        url = f"sqlite:///{name}/log.db"
        with Penstock(url) as bus:
            had = _publish(bus)
        # Places for all but a few of the threads; who comes when none is left is answered by a poll.
        env = {"PENSTOCK_URL": url, "PENSTOCK_MAX_STREAMS": str(min(threads, streams))}
        options = ["--worker-connections", str(2 * streams)]
        server = Server.gunicorn(
            "tests.apps.basic:app", Path(name), env=env, threads=threads + 8, options=options
        )
        stack.enter_context(server)
        (worker,) = wait_for(psutil.Process(server.pid).children, what="gunicorn has its worker")
        with Stopwatch(worker) as watch:
            clients = [stack.enter_context(_request(server.port, had)) for _ in range(streams)]
            events = _receive_all(clients)
        return Run(streams, _checked(events, streams), watch.cost, None)


def _request(port: int, had: Position) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    request = f"GET /events?channel=chat HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {had}\r\n\r\n"
    client.sendall(request.encode())
    return client


def _receive_all(clients: Sequence[socket.socket]) -> int:
    events = 0
    for client in clients:
        received = b""
        while (count := received.count(f"data: {PAYLOAD}\n".encode())) < MISSED:
            chunk = client.recv(262_144)
            if not chunk:
                break
            received += chunk
        events += count
    return events


def _checked(events: int, streams: int) -> int:
    if events != streams * MISSED:
        raise RuntimeError(f"{streams} streams missed {MISSED} events each, and were given {events} in all")
    return events
