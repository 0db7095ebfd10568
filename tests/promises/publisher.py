"""A publisher that may be killed at any moment, and that notes what was acknowledged.

    python -m tests.promises.publisher URL KIND LIFE SEED [brave] [calm]

Once an event is acknowledged, and not before, it goes into the file ``KIND-LIFE.acks`` as
``seq channel data``, by one system call, which outlives the process. Each kind publishes in its own
way. ``keyed`` goes on where its last life's acknowledgements end, with keys: what that life had
stored without coming to note it is published again. It ends with its stdin, so it outlives nobody.

A brave one goes on when the log is away: data of which it was told that it is not stored goes into the file
``KIND-LIFE.refused``, a line each, and of what nobody can tell it notes nothing.

A calm one pauses for longer: where one process reads many streams, it has to keep up.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock import Event, Penstock, Position
from penstock.errors import AppendUnsure, LogUnavailable

CHANNELS = ["news", "orders", "room/1", "room/2"]
CALM = 8  # times as long


class Publisher:
    def __init__(self, bus: Penstock, kind: str, life: int, seed: int, *, brave: bool, calm: bool) -> None:
        self.bus = bus
        self.brave = brave
        self.pauses = CALM if calm else 1
        self.kind = kind
        self.name = f"{kind}-{life}"
        self.random = random.Random(seed)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self.acks = os.open(f"{self.name}.acks", flags)
        self.refusals = os.open(f"{self.name}.refused", flags)

    def single(self) -> None:
        """One event, and then the next."""
        for n in self.turns(pause_s=0.01):
            event = self.event(f"{self.name}.{n}")
            with self.noting([event]) as positions:
                positions.append(self.bus.publish(event.channel, event.data))

    def batch(self) -> None:
        """Many events at once, all or none; each tells how many they are."""
        for n in self.turns(pause_s=0.08):
            size = self.random.randint(2, 20)
            events = [self.event(f"{self.name}.{n}.{i}/{size}") for i in range(size)]
            with self.noting(events) as positions:
                positions += self.bus.publish_many(events)

    def threads(self) -> None:
        """Threads, whose events share commits."""

        def run(number: int) -> None:
            for n in self.turns(pause_s=0.03):
                event = self.event(f"{self.name}.{number}.{n}")
                with self.noting([event]) as positions:
                    positions.append(self.bus.publish(event.channel, event.data))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def coroutines(self) -> None:
        """Coroutines, whose events share commits and one thread."""

        async def publish(text: str) -> None:
            event = self.event(text)
            with self.noting([event]) as positions:
                positions.append(await self.bus.apublish(event.channel, event.data))

        async def run() -> None:
            for n in self.turns(pause_s=0.05):
                await asyncio.gather(*(publish(f"{self.name}.{n}.{i}") for i in range(5)))

        asyncio.run(run())

    def keyed(self) -> None:
        """One event after the other; many of a life's last ones are published by the next again."""
        noted = sum(len(acknowledged(file)) for file in Path().glob("keyed-*.acks"))
        events: list[Event] = []
        positions: list[Position] = []
        for n in self.turns(pause_s=0.01, first=noted):
            events.append(Event(CHANNELS[n % len(CHANNELS)], f"keyed.{n}", key=str(n)))
            while len(positions) < len(events):
                with self.told():
                    positions += self.bus.publish_many(events[-1:])
            if len(events) == 20:
                self.note(events, positions)
                events, positions = [], []

    def turns(self, pause_s: float, first: int = 0) -> Iterator[int]:
        """Count, with pauses of random length, until stdin ends."""
        while not select.select([0], [], [], self.pauses * self.random.uniform(0, pause_s))[0]:
            yield first
            first += 1

    def event(self, text: str) -> Event:
        return Event(self.random.choice(CHANNELS), text)

    @contextmanager
    def noting(self, events: Sequence[Event]) -> Iterator[list[Position]]:
        """Note what became of the events; their positions are to be put into the list."""
        positions: list[Position] = []
        with self.told():
            try:
                yield positions
            except LogUnavailable:
                os.write(self.refusals, "".join(f"{event.data}\n" for event in events).encode())
                raise
            self.note(events, positions)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Go on, if it is brave, where it was told that the log is away."""
        try:
            yield
        except (LogUnavailable, AppendUnsure):
            if not self.brave:
                raise

    def note(self, events: Sequence[Event], positions: Sequence[Position]) -> None:
        lines = [
            f"{position.seq} {event.channel} {event.data}\n"
            for event, position in zip(events, positions, strict=True)
        ]
        os.write(self.acks, "".join(lines).encode())


KINDS: dict[str, Callable[[Publisher], None]] = {
    "single": Publisher.single,
    "batch": Publisher.batch,
    "threads": Publisher.threads,
    "coroutines": Publisher.coroutines,
    "keyed": Publisher.keyed,
}


def acknowledged(file: Path) -> list[tuple[int, str, str]]:
    """The whole lines of a file: seq, channel, data. A line without an end was not written yet."""
    lines = file.read_text().split("\n")[:-1]
    return [(int(seq), channel, data) for seq, channel, data in map(str.split, lines)]


if __name__ == "__main__":
    url, kind, life, seed, *options = sys.argv[1:]
    brave, calm = "brave" in options, "calm" in options
    with Penstock(url, publish_timeout=1 if brave else 5) as bus:
        KINDS[kind](Publisher(bus, kind, int(life), int(seed), brave=brave, calm=calm))
