"""How long other requests wait while thousands of streams are open, against how long without any.

One client asks for a small answer at a steady pace on one connection; 5,000 streams get 4 events a second
each meanwhile, in every second round. The ratio is that of a round to the one before it.
"""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.load import generate
from benchmarks.measure import Row, Table, percentile
from benchmarks.systems import SYSTEMS
from tests.support.ports import free_port
from tests.support.processes import Server

STREAMS, RATE = 5_000, 4.0
ASKED_PER_SECOND = 100
SECONDS = 8.0
ROUNDS = 5
LONGER_S = 4.0  # events come for so much longer than requests
SERVERS = ("penstock-uvicorn", "penstock-gunicorn")

TEXT = (
    f"`GET /ping` {ASKED_PER_SECOND} times a second on one connection, alone and while {STREAMS:,} streams "
    f"of the same process get {RATE:g} events/s each. Medians of {ROUNDS} rounds; *ratio of p99* is the "
    "median of the ratios within a round."
)


def run(folder: Path, *, quick: bool) -> list[Table]:
    streams, seconds, rounds = (100, 0.5, 1) if quick else (STREAMS, SECONDS, ROUNDS)
    rows: list[Row] = []
    for name in SERVERS:
        alone: list[list[float]] = []
        beside: list[list[float]] = []
        for _ in range(rounds):
            with (
                TemporaryDirectory(dir=folder) as own,
                SYSTEMS[name].start(free_port(), Path(own)) as running,
            ):
                server = running.servers["server"]
                _ask(server.port, 0.5)  # it warms up
                alone.append(_ask(server.port, seconds))
                beside.append(_beside_streams(server, streams, partial(_ask, server.port, seconds), seconds))
        rows.append(_row(name, alone, beside))
    return [Table("Other requests beside streams", TEXT, rows)]


def _row(name: str, alone: Sequence[list[float]], beside: Sequence[list[float]]) -> Row:
    def median(runs: Sequence[list[float]], of: int) -> float:
        return statistics.median(percentile(run, of) for run in runs)

    ratios = [percentile(busy, 99) / percentile(quiet, 99) for quiet, busy in zip(alone, beside, strict=True)]
    return {
        "": name,
        "alone, p50 ms": median(alone, 50),
        "alone, p99 ms": median(alone, 99),
        "beside streams, p50 ms": median(beside, 50),
        "beside streams, p99 ms": median(beside, 99),
        "ratio of p99": statistics.median(ratios),
    }


def _ask(port: int, seconds: float) -> list[float]:
    """Milliseconds that each answer took, from when it was due to be asked for."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    start = time.monotonic()
    for number in range(int(seconds * ASKED_PER_SECOND)):
        due = start + number / ASKED_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        connection.request("GET", "/ping")
        connection.getresponse().read()
        took.append((time.monotonic() - due) * 1_000)
    connection.close()
    return took


def _beside_streams(
    server: Server, streams: int, work: Callable[[], list[float]], seconds: float
) -> list[float]:
    account: dict[str, Any] = {}
    events = int(RATE * (seconds + LONGER_S))

    def load() -> None:
        account.update(generate(server.port, streams=streams, events=events, rate=RATE, deadline_s=120))

    thread = threading.Thread(target=load)
    thread.start()
    serving = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    while thread.is_alive() and max(process.num_fds() for process in serving) < streams:
        time.sleep(0.1)
    time.sleep(1.0)
    took = work()
    if not thread.is_alive():
        raise RuntimeError(f"the streams were over before the requests: {account}")
    thread.join()
    if account["lost"]:
        raise RuntimeError(f"{account['lost']} deliveries were lost")
    return took
