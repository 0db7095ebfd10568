"""Many clients of every speed against a model: each gets exactly its events, once, in order, byte for byte.

Two engines share a log, as two processes do: clients leave one and come back to the other. The ring is
small, so that the log is read, and so are the sockets, so that most writes are partial.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Event, Penstock
from penstock.engine import engine as engine_module
from penstock.log.memory import MemoryLog, MemoryStore
from tests.engine.pushed import (
    SMALL,
    Client,
    block_of,
    find_origin,
    gap_in,
    hand_over,
    is_position,
    seq_of,
)
from tests.support.wait import wait_for

CLIENTS = 24
STEPS = 400
CHANNELS = ["a", "a", "a", "b", "room/1", "room/2", "job/1", "quiet"]
SUBSCRIPTIONS = [("a",), ("a",), ("a", "b"), ("room/*",), ("**",), ("job/1",), ("a", "job/1"), ("quiet",)]
LINES = ["", "x", "words and words", "two\nlines", "\r\n", "é€\U0001f600", "data: id: 7\n\n"]
SMALL_RING = {"ring_events": 20, "ring_bytes": 64 * 1024}


def events_in(blocks: list[bytes]) -> list[bytes]:
    return [block for block in blocks if not is_position(block)]


class Follower:
    """A client over all its connections."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        self.channels = channels
        self.start = 0
        self.position: str | None = None
        self.connection: Client | None = None
        self.had: list[bytes] = []  # whole blocks, of earlier connections
        self.stopped = False  # was told that there is no more

    @property
    def blocks(self) -> list[bytes]:
        return self.had + (self.connection.blocks if self.connection is not None else [])

    @property
    def events(self) -> list[bytes]:
        return events_in(self.blocks)

    def read_all(self) -> None:
        """Read what is there."""
        while self.connection is not None and self.connection.read():
            pass
        if self.connection is not None and self.connection.gone:
            self.leave()

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.had += self.connection.blocks
            self.position = self.connection.last_event_id or self.position
            self.connection = None


class World:
    def __init__(self, seed: int, buses: list[Penstock]) -> None:
        self.random = random.Random(seed)
        self.buses = buses
        self.published: dict[int, tuple[Event, bytes]] = {}
        self.followers: list[Follower] = []
        for _ in range(CLIENTS):
            self.come(None)

    def come(self, follower: Follower | None) -> None:
        """A new client, or one that comes back, perhaps to the other process."""
        bus, rnd = self.random.choice(self.buses), self.random
        channels = follower.channels if follower is not None else rnd.choice(SUBSCRIPTIONS)
        position = follower.position if follower is not None else None
        subscription, origin = find_origin(bus.engine, channels, last_event_id=position)
        assert origin.gap is None
        if follower is None:
            follower = Follower(channels)
            self.followers.append(follower)
        if position is None:  # it has had nothing, not even where it is
            follower.start = origin.position.seq
        follower.stopped = not subscription.patterns and origin.ended >= subscription.channels
        if not follower.stopped:
            size = rnd.choice([SMALL, SMALL, None])
            follower.connection = hand_over(
                bus.engine,
                subscription,
                origin,
                chunked=rnd.random() < 0.5,
                tcp=rnd.random() < 0.2,
                size=size,
            )

    def publish(self) -> None:
        rnd = self.random
        kind = rnd.random()
        if kind < 0.03:
            events = [Event("job/1", "", end=True)]
        elif kind < 0.06:  # more than a turn may have
            events = [Event(rnd.choice(CHANNELS), "0123456789" * 7_000) for _ in range(5)]
        else:
            lines = [rnd.choice(LINES) * rnd.choice([1, 1, 1, 300]) for _ in range(rnd.randint(1, 8))]
            events = [Event(rnd.choice(CHANNELS), line, rnd.choice([None, None, "typed"])) for line in lines]
        for event, position in zip(events, rnd.choice(self.buses).publish_many(events), strict=True):
            self.published[position.seq] = event, block_of(event, position)

    def step(self) -> None:
        kind, follower = self.random.random(), self.random.choice(self.followers)
        if kind < 0.3:
            self.publish()
        elif follower.connection is None:
            if kind < 0.6:
                self.come(follower)
        elif kind < 0.38:
            follower.leave()
        elif kind < 0.41:
            with contextlib.suppress(ConnectionError):  # its stream has just ended
                follower.connection.socket.send(b"more bytes than were asked for")
        elif kind < 0.7:
            follower.connection.read(self.random.choice([1, 50, 5_000]))
        else:
            follower.read_all()
        if follower.connection is not None and follower.connection.gone:
            follower.leave()

    def expected(self, follower: Follower) -> list[bytes]:
        wanted = find_origin(self.buses[0].engine, follower.channels)[0]
        return [
            block
            for seq, (event, block) in sorted(self.published.items())
            if seq > follower.start and wanted.covers(event.channel)
        ]

    def finish(self) -> None:
        """All come back and read to the end."""
        for follower in self.followers:
            if follower.connection is None:
                self.come(follower)  # one that has had nothing begins here: first that, then what is expected
        expected = [self.expected(follower) for follower in self.followers]

        def who_misses_some() -> list[str]:
            for follower in self.followers:
                if follower.connection is None and not follower.stopped:
                    self.come(follower)
                follower.read_all()
            together = zip(self.followers, expected, strict=True)
            return [compare(f.blocks, e) for f, e in together if not f.stopped and len(f.events) < len(e)]

        wait_for(lambda: not who_misses_some(), what=lambda: f"all have all: {who_misses_some()}")
        for follower, blocks in zip(self.followers, expected, strict=True):
            check(follower.blocks, blocks, follower.start)
            follower.leave()


def compare(blocks: list[bytes], expected: list[bytes]) -> str:
    found = [seq_of(block) for block in events_in(blocks)]
    return (
        f"{len(found)} of {len(expected)} events, the newest {found[-3:]} of {[*map(seq_of, expected)][-3:]}"
    )


def check(blocks: list[bytes], expected: list[bytes], position: int) -> None:
    """Each event is the next one, and each position tells what was had so far."""
    left = iter(expected)
    following = next(left, None)
    for block in blocks:
        assert gap_in(block) is None
        if is_position(block):
            assert seq_of(block) >= position, "a position went back"
            assert following is None or seq_of(block) < seq_of(following), f"passed over {following!r:.80}"
        else:
            assert block == following
            following = next(left, None)
        position = seq_of(block)
    assert following is None


@pytest.fixture(params=["memory", "sqlite"])
def buses(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Penstock]]:
    monkeypatch.setattr(engine_module, "SWEEP_S", 0.02)
    store = MemoryStore()
    log = f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else lambda: MemoryLog(store)
    with (
        Penstock(log, keep_alive=0.1, **SMALL_RING) as one,
        Penstock(log, keep_alive=0.1, **SMALL_RING) as other,
    ):
        yield [one, other]


@pytest.mark.parametrize("seed", range(3))
def test_every_client_gets_its_events_once_and_in_order(buses: list[Penstock], seed: int) -> None:
    world = World(seed, buses)
    for _ in range(STEPS):
        world.step()
    world.finish()
    for bus in buses:
        wait_for(lambda bus=bus: bus.stats().streams == 0, what="nobody is left")  # type: ignore[misc]
