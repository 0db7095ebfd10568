"""Each log beside its own engine: publishing, latency across processes, and what following costs.

The engine's own writes go through its own driver, in batches as large as Penstock's: what one publisher
stores at a time, and what as many as there are publishers store in one round trip.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import latency
from benchmarks.engines import ENGINES, Engine, Running
from benchmarks.measure import Cost, Row, Stopwatch, Table, in_turn, median_ratio, percentile
from penstock import Event, Penstock
from tests.support.processes import ROOT
from tests.support.wait import wait_for

PAYLOAD = "x" * 64
MANY = 64  # publishers at a time
ROUNDS = 5
FOLLOWED, PACED = 50_000, 1_000  # events

PUBLISHING = (
    "Payloads of 64 bytes. *Reached* is the rate as a part of that of the engine's own driver with as many "
    "in one round trip, within a round; CPU time is that of the publishing process."
)
LATENCY = (
    f"{latency.RATE} events a second. *Own round trip* is one write of the engine's own driver; *published* "
    "is when `publish` returned, *seen* when another process had the record."
)
FOLLOWING = (
    "CPU time of a process that follows the log and has no stream for what is published by another: "
    f"batches of 100 as fast as they are stored, and one event every {1000 / latency.RATE:g} ms; what it "
    "takes in silence is not counted."
)


class Run(NamedTuple):
    events: int
    cost: Cost

    @property
    def rate(self) -> float:
        return self.events / self.cost.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cost.cpu_s / self.events * 1e6


def run(folder: Path, *, quick: bool) -> list[Table]:
    publishing: list[Row] = []
    delays: list[Row] = []
    following: list[Row] = []
    for engine in ENGINES:
        with engine.start(folder) as running:
            publishing += _publishing(engine, running, quick)
            delays += _delays(engine, running, folder, quick)
            following += _following(engine, running, quick)
    return [
        Table("Publishing, beside each engine's own driver", PUBLISHING, publishing),
        Table("From publish() to another process", LATENCY, delays),
        Table("Following without a stream", FOLLOWING, following),
    ]


# Publishing


def _publishing(engine: Engine, running: Running, quick: bool) -> list[Row]:
    rounds, scale = (1, 20) if quick else (ROUNDS, 1)
    own = {1: 2_000 // scale, MANY: 20_000 // scale}
    cases: dict[str, Callable[[], Run]] = {
        f"own driver, {size} in a round trip": partial(_own, running, size, count)
        for size, count in own.items()
    }
    cases["publish(), 1 thread"] = partial(_threads, running, 1, own[1])
    cases[f"publish(), {MANY} threads"] = partial(_threads, running, MANY, own[MANY])
    cases[f"apublish(), {MANY} tasks"] = partial(_tasks, running, MANY, own[MANY])
    cases[f"publish_many() of {MANY}"] = partial(_batches, running, MANY, own[MANY])
    runs = in_turn(cases, rounds)
    rows: list[Row] = []
    for name, found in runs.items():
        size = 1 if "1 " in name.replace(str(MANY), "") else MANY
        reference = runs[f"own driver, {size} in a round trip"]
        rows.append(
            {
                "": f"{engine.name}: {name}",
                "events/s": statistics.median(one.rate for one in found),
                "reached": median_ratio([one.rate for one in found], [one.rate for one in reference]),
                "CPU µs per event": statistics.median(one.cpu_us for one in found),
            }
        )
    return rows


def _own(running: Running, size: int, count: int) -> Run:
    with running.writer() as write:
        write([PAYLOAD])
        with Stopwatch() as watch:
            for _ in range(count // size):
                write([PAYLOAD] * size)
    return Run(count // size * size, watch.cost)


def _threads(running: Running, threads: int, count: int) -> Run:
    with Penstock(running.url()) as bus:
        bus.publish("chat", "opens the log")

        def work() -> None:
            for _ in range(count // threads):
                bus.publish("chat", PAYLOAD)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        with Stopwatch() as watch:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return _checked(bus, count // threads * threads, watch.cost)


def _tasks(running: Running, tasks: int, count: int) -> Run:
    async def publish(bus: Penstock) -> None:
        for _ in range(count // tasks):
            await bus.apublish("chat", PAYLOAD)

    async def publish_all(bus: Penstock) -> Cost:
        await bus.apublish("chat", "opens the log")
        with Stopwatch() as watch:
            await asyncio.gather(*[publish(bus) for _ in range(tasks)])
        return watch.cost

    with Penstock(running.url()) as bus:
        cost = asyncio.run(publish_all(bus))
        return _checked(bus, count // tasks * tasks, cost)


def _batches(running: Running, size: int, count: int) -> Run:
    with Penstock(running.url()) as bus:
        bus.publish("chat", "opens the log")
        with Stopwatch() as watch:
            for _ in range(count // size):
                bus.publish_many([Event("chat", PAYLOAD) for _ in range(size)])
        return _checked(bus, count // size * size, watch.cost)


def _checked(bus: Penstock, events: int, cost: Cost) -> Run:
    """A fast log that does not store is no log."""
    head = bus.engine.log.bounds().head
    if head != events + 1:
        raise RuntimeError(f"{events} events were acknowledged, and the log is at {head - 1}")
    return Run(events, cost)


# Latency


def _delays(engine: Engine, running: Running, folder: Path, quick: bool) -> list[Row]:
    events, rounds = (20, 1) if quick else (latency.EVENTS, ROUNDS)
    trips: list[float] = []
    published: list[float] = []
    seen: list[float] = []
    for _ in range(rounds):
        with running.writer() as write:
            write([PAYLOAD])
            start = time.monotonic()
            for number in range(events):
                time.sleep(max(0.0, start + number / latency.RATE - time.monotonic()))
                began = time.monotonic()
                write([PAYLOAD])
                trips.append((time.monotonic() - began) * 1e3)
        found = latency.measure(latency.other_process, running.url(), folder, events)
        published += found.published_ms
        seen += found.seen_ms
    return [
        {
            "log": engine.name,
            "own round trip, p50 ms": percentile(trips, 50),
            "published, p50 ms": percentile(published, 50),
            "published, p99 ms": percentile(published, 99),
            "seen, p50 ms": percentile(seen, 50),
            "seen, p99 ms": percentile(seen, 99),
            "seen less own round trip, ms": percentile(seen, 50) - percentile(trips, 50),
        }
    ]


# Following


def _following(engine: Engine, running: Running, quick: bool) -> list[Row]:
    rounds, scale = (1, 20) if quick else (ROUNDS, 1)
    bulk = [_followed(running, FOLLOWED // scale, 100) for _ in range(rounds)]
    paced = [_followed(running, PACED // scale, 1) for _ in range(rounds)]
    return [
        {
            "log": engine.name,
            "in batches, µs per event": statistics.median(bulk),
            "one by one, µs per event": statistics.median(paced),
        }
    ]


def _followed(running: Running, events: int, batch: int) -> float:
    url = running.url()
    command = [sys.executable, "-m", "benchmarks.logs", url]
    with Penstock(url, ring_events=1) as bus:
        bus.publish("quiet", "opens the log")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdin is not None
                follower = psutil.Process(process.pid)

                def where() -> int:
                    assert process.stdin is not None
                    assert process.stdout is not None
                    print(file=process.stdin, flush=True)
                    return int(process.stdout.readline())

                where()
                time.sleep(0.5)
                with Stopwatch(follower) as silence:
                    time.sleep(1)
                with Stopwatch(follower) as watch:
                    start = time.monotonic()
                    for number in range(0, events, batch):
                        if batch == 1:
                            time.sleep(max(0.0, start + number / latency.RATE - time.monotonic()))
                        bus.publish_many([Event(f"chat/{n % 50}", PAYLOAD) for n in range(batch)])
                    wait_for(lambda: where() >= events + 1, what="it has followed")
            finally:
                process.kill()
    idle = silence.cost.cpu_s / silence.cost.wall_s * watch.cost.wall_s
    return (watch.cost.cpu_s - idle) / events * 1e6


def _follow(url: str) -> None:
    """What the other process does: it tells where it is, whenever it is asked."""
    with Penstock(url) as bus:
        bus.engine.start("a benchmark")
        for _ in sys.stdin:
            print(bus.engine.ring.head, flush=True)


if __name__ == "__main__":
    _follow(sys.argv[1])
