"""From the call of ``publish`` to where the record is seen: a thread, another process, a client's socket.

Every event carries the time of its publishing, by the monotonic clock, which is one for the whole machine.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.measure import Row, Stopwatch, Table, in_turn, median_ratio, percentile
from penstock import Penstock
from penstock.core.parser import Parser
from tests.support.processes import ROOT, Server

RATE = 200  # events a second: neither idle nor under load
EVENTS = 200  # in a round
ROUNDS = 5
CHANNEL = "chat"
REFERENCE = "a thread of the same process"

TEXT = (
    f"One publisher, {RATE} events a second, payloads of some 20 bytes. *Published* is when `publish` "
    "returned, *seen* when the subscriber had the record; both since `publish` was called. CPU time is that "
    "of the publisher's process, whoever follows in it included."
)


class Run(NamedTuple):
    published_ms: list[float]
    seen_ms: list[float]
    cpu_us: float


Wait = Callable[[], list[float]]  # returns the milliseconds after which each event was seen
Follow = Callable[[Penstock, str, Path, int], AbstractContextManager[Wait]]


def run(folder: Path, *, quick: bool) -> list[Table]:
    events = 20 if quick else EVENTS
    cases = {
        REFERENCE: partial(_measure, _same_process, folder, "normal", events),
        f"{REFERENCE}, sync=full": partial(_measure, _same_process, folder, "full", events),
        "another process": partial(_measure, other_process, folder, "normal", events),
        "a client of Flask on waitress, in another process": partial(
            _measure, _socket, folder, "normal", events
        ),
    }
    runs = in_turn(cases, 1 if quick else ROUNDS)
    return [Table("Latency, from publish() on", TEXT, _rows(runs))]


def _rows(runs: dict[str, list[Run]]) -> list[Row]:
    reference = [statistics.median(run.seen_ms) for run in runs[REFERENCE]]
    rows: list[Row] = []
    for name, own in runs.items():
        published = [value for run in own for value in run.published_ms]
        seen = [value for run in own for value in run.seen_ms]
        rows.append(
            {
                "seen by": name,
                "published, p50 ms": percentile(published, 50),
                "published, p99 ms": percentile(published, 99),
                "seen, p50 ms": percentile(seen, 50),
                "seen, p99 ms": percentile(seen, 99),
                "ratio of p50": median_ratio([statistics.median(run.seen_ms) for run in own], reference),
                "CPU µs per event": statistics.median(run.cpu_us for run in own),
            }
        )
    return rows


def since(data: str) -> float:
    """Milliseconds since this event was published."""
    return (time.monotonic_ns() - int(data)) / 1e6


def _measure(follow: Follow, folder: Path, sync: str, events: int) -> Run:
    with TemporaryDirectory(dir=folder) as name:
        return measure(follow, f"sqlite:///{name}/log.db?sync={sync}", Path(name), events)


def measure(follow: Follow, url: str, folder: Path, events: int) -> Run:
    """Publish to a log at a steady pace, and see when each event is published, and when it is seen."""
    with Penstock(url) as bus:
        bus.publish(CHANNEL, str(time.monotonic_ns()))  # opens the log
        with follow(bus, url, folder, events) as wait:
            with Stopwatch() as watch:
                published = _publish(bus, events)
                seen = wait()
            return Run(published, seen, watch.cost.cpu_s / events * 1e6)


def _publish(bus: Penstock, events: int) -> list[float]:
    """Publish at a steady pace; returns the milliseconds that each call took."""
    took = []
    start = time.monotonic()
    for number in range(events):
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
        data = str(time.monotonic_ns())
        bus.publish(CHANNEL, data)
        took.append(since(data))
    return took


@contextmanager
def _same_process(bus: Penstock, url: str, folder: Path, events: int) -> Iterator[Wait]:
    seen: list[float] = []
    with bus.subscribe(CHANNEL) as subscriber:

        def follow() -> None:
            for record in subscriber:
                seen.append(since(record.data))
                if len(seen) == events:
                    return

        with _thread(follow) as thread:
            yield lambda: _finished(thread, seen)


@contextmanager
def other_process(bus: Penstock, url: str, folder: Path, events: int) -> Iterator[Wait]:
    """Follow in a process that is started for it."""
    command = [sys.executable, "-m", "benchmarks.latency", url, str(events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the following process failed; see above")
            yield lambda: json.loads(process.communicate(timeout=60)[0])
        finally:
            process.kill()


@contextmanager
def _socket(bus: Penstock, url: str, folder: Path, events: int) -> Iterator[Wait]:
    env = {"PENSTOCK_URL": url}
    with (
        Server.waitress("tests.apps.basic:app", folder, env=env) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        connection.sendall(f"GET /events?channel={CHANNEL} HTTP/1.0\r\n\r\n".encode())
        parser = Parser()
        received = b""
        while b"penstock.position\ndata: \n\n" not in received:
            received += connection.recv(65_536)
        seen: list[float] = []

        def follow() -> None:
            while len(seen) < events and (chunk := connection.recv(65_536)):
                seen.extend(since(message.data) for message in parser.feed(chunk))

        with _thread(follow) as thread:
            yield lambda: _finished(thread, seen)


@contextmanager
def _thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread


def _finished(thread: threading.Thread, seen: list[float]) -> list[float]:
    thread.join(60)
    if thread.is_alive():
        raise RuntimeError(f"only {len(seen)} events came")
    return seen


def _follow(url: str, events: int) -> None:
    """What another process does: it tells when it follows, and then what it saw."""
    with Penstock(url) as bus, bus.subscribe(CHANNEL) as subscriber:
        print("ready", flush=True)
        seen = [since(record.data) for _, record in zip(range(events), subscriber, strict=False)]
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    _follow(sys.argv[1], int(sys.argv[2]))
