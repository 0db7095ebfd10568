"""Durable publishing against bare SQLite: the same file, schema and settings, without Penstock."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from benchmarks.measure import Cost, Row, Stopwatch, Table, in_turn, median_ratio
from penstock import Event, Penstock
from penstock.log.sqlite import SQLiteLog

Sync = Literal["normal", "full"]

PAYLOAD = "x" * 64
ROUNDS = 5
BATCH = 100
REFERENCE = f"executemany, {BATCH} rows a transaction"
_COLUMNS = ("seq", "time", "channel", "event", "data", "retry", "key", "end")

TEXT = {
    "normal": "Payloads of 64 bytes; what was acknowledged survives the death of every process.",
    "full": "Payloads of 64 bytes; each commit is flushed to the disk.",
}
WORDS = (
    " *Reached* is the rate as a part of that of `executemany` with 100 rows a transaction, *CPU ratio* the "
    "CPU time of an event as a multiple of the CPU time of a row. Two rows are no Penstock but limits: "
    "`executemany` with 8 rows is what 8 callers that wait for their commit could reach at best; in "
    "*8 threads that only meet* nothing is stored: each waits until all eight have come."
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
    return [_table(folder, "normal", quick), _table(folder, "full", quick)]


def _table(folder: Path, sync: Sync, quick: bool) -> Table:
    # A flush takes long: fewer events there, so that each case takes a fraction of a second.
    scale = (1.0 if sync == "normal" else 0.2) / (20 if quick else 1)
    bare = partial(_executemany, folder, sync)
    cases: dict[str, Callable[[], Run]] = {
        REFERENCE: partial(bare, BATCH, int(100_000 * scale)),
        "executemany, 8 rows a transaction": partial(bare, 8, int(40_000 * scale)),
        "8 threads that only meet": partial(_meet, 8, int(40_000 * scale)),
    }
    for threads, count in ((1, 8_000), (8, 20_000), (64, 20_000)):
        work = partial(_publish, int(count * scale) // threads)
        name = f"publish(), {threads} thread{'s' * (threads > 1)}"
        cases[name] = partial(_with_threads, folder, sync, threads, work)
    for threads, count in ((1, 40_000), (8, 40_000)):
        work = partial(_publish_many, max(1, int(count * scale) // threads // BATCH))
        name = f"publish_many() of {BATCH}, {threads} thread{'s' * (threads > 1)}"
        cases[name] = partial(_with_threads, folder, sync, threads, work)
    for tasks in (64, 512):
        cases[f"apublish(), {tasks} tasks"] = partial(
            _apublish, folder, sync, tasks, max(1, int(40_000 * scale) // tasks)
        )
    runs = in_turn(cases, 1 if quick else ROUNDS)
    return Table(f"Durable publishing, sync={sync}", TEXT[sync] + WORDS, _rows(runs))


def _rows(runs: dict[str, list[Run]]) -> list[Row]:
    reference = runs[REFERENCE]
    return [
        {
            "": name,
            "events/s": statistics.median(run.rate for run in own),
            "reached": median_ratio([run.rate for run in own], [run.rate for run in reference]),
            "CPU µs per event": statistics.median(run.cpu_us for run in own),
            "CPU ratio": median_ratio([run.cpu_us for run in own], [run.cpu_us for run in reference]),
            "switches per event": statistics.median(run.cost.switches / run.events for run in own),
        }
        for name, own in runs.items()
    ]


def _executemany(folder: Path, sync: Sync, rows: int, count: int) -> Run:
    with TemporaryDirectory(dir=folder) as name:
        log = SQLiteLog(Path(name) / "log.db", sync)
        log.open()  # makes the file, in WAL mode, with its table and indexes
        log.close()
        with closing(sqlite3.connect(log.path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA synchronous = {sync}")
            names = ", ".join(f'"{column}"' for column in _COLUMNS)
            insert = f"INSERT INTO record ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            batches = max(1, count // rows)
            with Stopwatch() as watch:
                for first in range(1, batches * rows + 1, rows):
                    now = time.time()
                    batch = [
                        (seq, now, "chat", None, PAYLOAD, None, None, False)
                        for seq in range(first, first + rows)
                    ]
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(insert, batch)
                    connection.execute("COMMIT")
            return Run(_stored(connection, batches * rows), watch.cost)


def _with_threads(folder: Path, sync: Sync, threads: int, work: Callable[[Penstock], int]) -> Run:
    with TemporaryDirectory(dir=folder) as name, Penstock(f"sqlite:///{name}/log.db?sync={sync}") as bus:
        bus.publish("chat", "opens the log")
        events, cost = _timed(threads, lambda: work(bus))
        return Run(_check(name, events), cost)


def _publish(count: int, bus: Penstock) -> int:
    for _ in range(count):
        bus.publish("chat", PAYLOAD)
    return count


def _publish_many(batches: int, bus: Penstock) -> int:
    for _ in range(batches):
        bus.publish_many([Event("chat", PAYLOAD) for _ in range(BATCH)])
    return batches * BATCH


def _apublish(folder: Path, sync: Sync, tasks: int, count: int) -> Run:
    async def publish(bus: Penstock) -> None:
        for _ in range(count):
            await bus.apublish("chat", PAYLOAD)

    async def publish_all(bus: Penstock) -> Cost:
        await bus.apublish("chat", "opens the log")
        with Stopwatch() as watch:
            await asyncio.gather(*[publish(bus) for _ in range(tasks)])
        return watch.cost

    with TemporaryDirectory(dir=folder) as name, Penstock(f"sqlite:///{name}/log.db?sync={sync}") as bus:
        cost = asyncio.run(publish_all(bus))
        return Run(_check(name, tasks * count), cost)


def _meet(threads: int, count: int) -> Run:
    """What it costs alone that threads wait for each other."""
    mutex = threading.Lock()
    waiting: list[threading.Lock] = []

    def meet() -> None:
        mine = threading.Lock()
        mine.acquire()
        with mutex:
            waiting.append(mine)
            complete = waiting[:] if len(waiting) == threads else None
            if complete:
                waiting.clear()
        for other in complete or []:
            other.release()
        mine.acquire()

    def work() -> int:
        for _ in range(count // threads):
            meet()
        return count // threads

    return Run(*_timed(threads, work))


def _timed(threads: int, work: Callable[[], int]) -> tuple[int, Cost]:
    """Let threads work at the same time. Returns the sum of what they return, and the cost."""
    done: list[int] = []
    ready = threading.Barrier(threads + 1)

    def one() -> None:
        ready.wait()
        done.append(work())

    workers = [threading.Thread(target=one) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    with Stopwatch() as watch:
        for worker in workers:
            worker.join()
    if len(done) < threads:
        raise RuntimeError("a publisher failed; see above")
    return sum(done), watch.cost


def _check(folder: str, events: int) -> int:
    with closing(sqlite3.connect(Path(folder) / "log.db")) as connection:
        return _stored(connection, events + 1) - 1


def _stored(connection: sqlite3.Connection, expected: int) -> int:
    """A fast log that does not store is no log."""
    (count, last) = connection.execute("SELECT count(*), max(seq) FROM record").fetchone()
    if not count == last == expected:
        raise RuntimeError(f"{expected} events were acknowledged, {count} are stored, up to seq {last}")
    return expected
