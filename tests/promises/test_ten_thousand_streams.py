"""Promise 2, on a real server: a synchronous Flask app with 4 threads holds 10,000 streams."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.flask.ask import get, publish, stats
from tests.support.crowd import Crowd
from tests.support.needs import need_descriptors
from tests.support.processes import Server
from tests.support.wait import wait_for

STREAMS = 10_000
FIRST = 200  # what is there for all streams is there by then
MOST_KB = 3.0
EVENTS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    options = ["--backlog=1024"]
    with Server.push_worker("tests.apps.basic:app", tmp_path, threads=4, options=options) as server:
        yield server


@pytest.mark.slow
@need_descriptors(STREAMS + 500)
def test_a_flask_app_with_4_threads_holds_10_000_streams(server: Server) -> None:
    worker = psutil.Process(int(get(server, "/pid")))
    with Crowd(server, "/events?channel=chat") as crowd:
        crowd.open(FIRST)
        threads, memory = worker.num_threads(), worker.memory_full_info().uss
        crowd.open(STREAMS - FIRST)
        wait_for(lambda: stats(server)["streams"] == STREAMS, what="all are open")
        assert worker.num_threads() <= threads
        kb = (worker.memory_full_info().uss - memory) / (STREAMS - FIRST) / 1024
        print(f"{kb:.2f} KB a stream")
        assert kb <= MOST_KB

        answered: list[str] = []
        asking = threading.Thread(target=lambda: answered.extend(get(server, "/ping") for _ in range(20)))
        asking.start()
        positions = publish(server, "chat", *(f"number {n}" for n in range(EVENTS)))
        crowd.wait_for(f"data: number {EVENTS - 1}\n".encode(), 120)
        asking.join(120)
        assert answered == ["pong"] * 20
        ids = [position.encode() for position in positions]
        for sent in crowd.streams.values():
            assert re.findall(rb"id: (\S+)\ndata: number", sent) == ids
    wait_for(lambda: stats(server)["streams"] == 0, 60, "all are gone")
    wait_for(lambda: worker.num_fds() < FIRST, 60, "their descriptors too")
