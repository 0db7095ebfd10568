"""The memory of a stream: what the engine holds for it, and what a thread of a WSGI server adds.

Measured as the growth of the process's resident memory (RSS), after a first tenth of the streams has brought
in what is there for all of them.
"""

from __future__ import annotations

import gc
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from benchmarks.measure import Row, Stopwatch, Table, in_turn, median_ratio
from penstock import Penstock
from penstock.core.channel import Subscription
from penstock.engine.origin import Wish
from penstock.engine.pull import Pull
from tests.support.processes import ROOT, Server
from tests.support.wait import wait_for

ENGINE_STREAMS = 10_000
WSGI_STREAMS = 200
ROUNDS = 3
REFERENCE = "engine, all follow one channel"

TEXT = (
    "*Engine*: streams that hold no thread and no socket, as of a door that hands them over; each has a "
    "subscription object of its own. *Servers*: everything that the server's process takes for a stream, its "
    "thread included. The kernel's memory of sockets and stacks that were never touched does not count."
)


class Run(NamedTuple):
    streams: int
    bytes: int
    cpu_s: float


def run(folder: Path, *, quick: bool) -> list[Table]:
    engine = ENGINE_STREAMS // (20 if quick else 1)
    wsgi = WSGI_STREAMS // (20 if quick else 1)
    cases: dict[str, Callable[[], Run]] = {
        REFERENCE: partial(_engine, folder, 1, engine),
        "engine, each follows a channel of its own": partial(_engine, folder, engine, engine),
        "gunicorn, gthread": partial(_server, folder, "gunicorn", wsgi),
        "Flask's development server": partial(_server, folder, "werkzeug", wsgi),
    }
    runs = in_turn(cases, 1 if quick else ROUNDS)
    reference = [run.bytes / run.streams for run in runs[REFERENCE]]
    rows: list[Row] = [
        {
            "": name,
            "streams": own[0].streams,
            "KB per stream": statistics.median(run.bytes / run.streams / 1000 for run in own),
            "ratio": median_ratio([run.bytes / run.streams for run in own], reference),
            "CPU ms to open one": statistics.median(run.cpu_s / run.streams * 1000 for run in own),
        }
        for name, own in runs.items()
    ]
    return [Table("Memory of a stream", TEXT, rows)]


def _engine(folder: Path, channels: int, streams: int) -> Run:
    """In a process of its own, where nothing else has left free memory behind."""
    with TemporaryDirectory(dir=folder) as name:
        url = f"sqlite:///{name}/log.db"
        command = [sys.executable, "-m", "benchmarks.memory", url, str(channels), str(streams)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return Run(*json.loads(done.stdout))


def _open_in_engine(url: str, channels: int, streams: int) -> Run:
    process = psutil.Process()
    with Penstock(url) as bus:
        bus.publish("chat", "x")
        engine = bus.engine
        engine.start("a benchmark")
        origin = engine.find_origin(Subscription(["chat"]), Wish())
        pulls: list[Pull] = []

        def open_until(count: int) -> int:
            while len(pulls) < count:
                subscription = Subscription([f"room/{len(pulls) % channels}"])
                pulls.append(engine.open(subscription, origin, _nothing))
            wait_for(lambda: engine.stats().streams == count, 60, what=f"{count} streams are open")
            for pull in pulls:
                pull.poll()
            gc.collect()
            return process.memory_info().rss

        first = streams // 10
        before = open_until(first)
        with Stopwatch() as watch:
            after = open_until(streams)
        for pull in pulls:
            engine.leave(pull)
        return Run(streams - first, after - before, watch.cost.cpu_s)


def _nothing() -> None:
    pass


def _server(folder: Path, kind: str, streams: int) -> Run:
    env = {"PENSTOCK_MAX_STREAMS": str(streams)}
    with TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        app = "tests.apps.basic:app"
        if kind == "gunicorn":
            server = Server.gunicorn(app, Path(name), env=env, threads=streams + 8)
        else:
            server = Server.werkzeug(app, Path(name), env=env)
        stack.enter_context(server)

        def open_some(count: int) -> int:
            clients = [stack.enter_context(_request(server.port)) for _ in range(count)]
            for client in clients:
                received = b""
                while b"penstock.position" not in received:
                    received += client.recv(65_536)
            time.sleep(0.2)  # what it does after the first bytes; nothing tells when it is done
            return process.memory_info().rss

        process = psutil.Process(server.pid)
        if kind == "gunicorn":
            (process,) = wait_for(process.children, what="gunicorn has its worker")
        first = max(1, streams // 10)
        before = open_some(first)
        with Stopwatch(process) as watch:
            after = open_some(streams - first)
        return Run(streams - first, after - before, watch.cost.cpu_s)


def _request(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET /events?channel=chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


if __name__ == "__main__":
    print(json.dumps(_open_in_engine(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
