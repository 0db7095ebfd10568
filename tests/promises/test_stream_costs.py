"""Promise 2: a stream costs a socket and a position: no queue, no task, no thread of the engine's.

Most streams here are the engine's own, without a door. What leaves through WSGI holds one of the server's
threads besides, which is the server's nature; the engine adds two threads for all streams together.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock import Event, Penstock
from penstock.core.channel import Subscription
from penstock.core.wire import Block, Entry
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Wish
from penstock.engine.pull import Pull
from tests.flask.ask import events_url, wait_for_streams
from tests.support.crowd import Crowd
from tests.support.processes import Server
from tests.support.wait import wait_for

STREAMS = 500
MOST_BYTES = 3 * 1024


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Penstock]:
    with Penstock(f"sqlite:///{tmp_path}/log.db", ring_events=500) as bus:
        yield bus


@pytest.fixture
def allocated() -> Iterator[Callable[[], int]]:
    """The bytes that Python objects take, beyond what was there before."""

    def measure() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    yield measure
    tracemalloc.stop()


def open_streams(engine: Engine) -> list[Pull]:
    """Open streams that follow one channel for all, and one of their own each: an audience each."""
    origin = engine.find_origin(Subscription(["all"]), Wish())
    pulls = []
    for n in range(STREAMS):
        subscription = Subscription(["all", f"user/{n}"])
        pulls.append(engine.open(subscription, origin, lambda: None, client=False))
    wait_for(lambda: engine.stats().streams == STREAMS, what="all streams are open")
    return pulls


def take(pull: Pull) -> list[str]:
    """Drive a stream until it has all that there is."""
    data: list[str] = []
    while (step := pull.poll()) is not Next.WAIT:
        block = pull.read() if step is Next.READ else step
        if isinstance(block, Block):
            data += [item.record.data for item in block.items if isinstance(item, Entry)]
            pull.count_bytes(len(block.wire))  # on a wire it would have to be encoded
    return data


def pass_by(bus: Penstock, events: list[Event]) -> None:
    """Publish, and wait until this process has seen them."""
    bus.engine.start("a test")
    for start in range(0, len(events), 200):
        bus.publish_many(events[start : start + 200])
        wait_for(lambda: bus.stats().tail_lag == 0, what="events have been fanned out")


@pytest.mark.slow
def test_a_stream_costs_3_kilobytes_at_most(bus: Penstock, allocated: Callable[[], int]) -> None:
    """When it is new, and when it has had an event of its own: a stream that waits holds no block."""
    pass_by(bus, [Event("warm/up", "") for _ in range(1_000)])
    before = allocated()
    pulls = open_streams(bus.engine)
    assert [take(pull) for pull in pulls] == [[]] * STREAMS
    opened = (allocated() - before) / STREAMS

    pass_by(bus, [Event(f"user/{n}", f"{n:02000d}") for n in range(STREAMS)])
    assert [list(map(int, take(pull))) for pull in pulls] == [[n] for n in range(STREAMS)]
    pass_by(bus, [Event("other", "") for _ in range(500)])  # the ring forgets them

    def kept() -> float:
        return (allocated() - before) / STREAMS

    wait_for(lambda: kept() <= MOST_BYTES, what=lambda: f"{kept():.0f} bytes a stream")
    print(f"{opened:.0f} bytes a stream when new, {kept():.0f} once it has had an event")
    assert opened <= MOST_BYTES


@pytest.mark.slow
def test_streams_that_are_behind_have_no_queue(bus: Penstock, allocated: Callable[[], int]) -> None:
    events = [Event("all", str(n)) for n in range(5_000)]
    pass_by(bus, [Event("warm/up", "")])
    pulls = open_streams(bus.engine)
    pass_by(bus, events[:1_000])  # the ring is full from here on
    before = allocated()
    pass_by(bus, events[1_000:])

    def per_event() -> float:
        return (allocated() - before) / STREAMS / 4_000

    # In a queue an event would take 8 bytes of each stream for the reference alone.
    wait_for(lambda: per_event() < 1, what=lambda: f"{per_event():.1f} bytes an event and stream")
    print(f"{per_event():.2f} bytes for each event and stream that is behind")
    assert bus.stats().lagging == STREAMS
    for pull in pulls[::100]:
        assert list(map(int, take(pull))) == list(range(5_000))


def test_streams_have_no_thread_and_no_task(bus: Penstock) -> None:
    before = set(threading.enumerate())
    bus.publish("all", "")
    bus.publish_many([Event("all", str(n)) for n in range(100)])
    assert set(threading.enumerate()) <= before  # a process that only publishes starts none

    bus.engine.start("a test")
    open_streams(bus.engine)
    started = set(threading.enumerate()) - before
    assert sorted(thread.name for thread in started) == ["penstock-engine", "penstock-tail"]
    assert bus.engine.loop is not None
    assert asyncio.all_tasks(bus.engine.loop) == set()
    bus.close()
    wait_for(lambda: set(threading.enumerate()) <= before, what="all threads end")


def memory_of(server: Server) -> int:
    """Bytes of all its processes that are no file's; what several share is divided among them."""
    arbiter = psutil.Process(server.pid)
    parts = []
    for process in [arbiter, *arbiter.children(recursive=True)]:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        parts += [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:")]
    assert parts, "the kernel tells it"
    return sum(parts) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is told apart by Linux only")
@pytest.mark.parametrize(
    ("make", "app"),
    [
        pytest.param(Server.push_worker, "tests.apps.basic:app", id="gunicorn"),
        pytest.param(Server.uvicorn, "tests.apps.asgi:app", id="uvicorn"),
    ],
)
def test_a_thousand_streams_of_a_server_cost_3_kilobytes_each_at_most(
    make: Callable[..., Server], app: str, tmp_path: Path
) -> None:
    """With what is taken but once on the way: for 900 streams some megabytes would be too much."""
    first, more = 100, 900
    env = {"PENSTOCK_URL": "sqlite:///log.db", "PENSTOCK_KEEP_ALIVE": "600"}
    with make(app, tmp_path, env=env) as server, Crowd(server, events_url("chat")) as crowd:
        crowd.open(first)
        wait_for_streams(server, first)
        before = memory_of(server)
        crowd.open(more)
        wait_for_streams(server, first + more)
        each = (memory_of(server) - before) / more
    print(f"{each:.0f} bytes a stream")
    assert each <= MOST_BYTES
