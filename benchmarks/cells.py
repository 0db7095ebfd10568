"""One cell of the fan-out's matrix: a system, so many streams, a payload, a pace; measured once."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Account, LoadFailed, generate
from benchmarks.systems import System
from tests.support.ports import free_port

SECONDS = 4  # that publishing shall take, roughly
EVENTS = (10, 2_000)  # at least, at most
MOST_BYTES = 2_000_000_000  # of all deliveries together: what a system may queue in memory at the worst
DEADLINE_S = 30
HANDSHAKE_S = 60
QUIET_S = 10  # after which what has not come is lost; a busy machine may stop a process for seconds


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked of a system.

    Args:
        streams: subscribers.
        payload: bytes of an event.
        rate: events a second; 0: each as soon as the one before is answered.
    """

    streams: int
    payload: int
    rate: float

    def __str__(self) -> str:
        pace = f"{self.rate:g}/s" if self.rate else "as fast as it goes"
        return f"{self.streams:,} streams, {self.payload:,} bytes, {pace}"

    def events(self, system: System) -> int:
        """How many events make a few seconds of work: the same for all at a pace, else by what it can."""
        least, most = EVENTS
        wanted = self.rate * SECONDS if self.rate else system.rate * SECONDS / self.streams
        bounded = min(wanted, MOST_BYTES / (self.streams * self.payload))
        return round(min(max(bounded, least), most))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Args:
        system: its name.
        cell: what was asked of it.
        account: what the load generator found; None if it found nothing.
        remarks: what went otherwise than asked, in words.
    """

    system: str
    cell: Cell
    account: Account | None
    remarks: list[str]

    @property
    def _deliveries(self) -> int:
        return int(self.account["deliveries"]) if self.account else 0

    @property
    def per_second(self) -> float | None:
        if not self.account or not self._deliveries:
            return None
        return self._deliveries / float(self.account["wall_s"])

    @property
    def cpu_us(self) -> float | None:
        """CPU time of the server for a delivery; of its other parts it is told in the remarks."""
        if not self.account or not self._deliveries:
            return None
        cpu_s: float = self.account["groups"]["server"]["cpu_s"]
        return cpu_s / self._deliveries * 1e6

    @property
    def kb_per_stream(self) -> float | None:
        """Growth of the server's memory from the first tenth of the streams to all of them."""
        if (
            not self.account
            or not self.account["first"] < self.account["opened"] == self.account["subscribed"]
        ):
            return None
        server = self.account["groups"]["server"]
        more_kb = float(server["pss_with_kb"] - server["pss_before_kb"]) * 1.024
        return more_kb / int(self.account["opened"] - self.account["first"])

    def latency_ms(self, percentile: str) -> float | None:
        if not self.account or not self._deliveries:
            return None
        value: float = self.account["latency_ms"][percentile]
        return value


def measure(system: System, cell: Cell, folder: Path, events: int | None = None) -> Outcome:
    """Start the system, load it, end it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        try:
            with system.start(free_port(), Path(name)) as running:
                try:
                    account = generate(
                        running.port,
                        streams=cell.streams,
                        events=events or cell.events(system),
                        payload=cell.payload,
                        rate=cell.rate,
                        late=system.late,
                        handshake_s=HANDSHAKE_S,
                        quiet_s=QUIET_S,
                        deadline_s=DEADLINE_S,
                        groups={part: [server.pid] for part, server in running.servers.items()},
                    )
                except LoadFailed as error:
                    return Outcome(system.name, cell, None, [*running.ended(), str(error)])
                return Outcome(system.name, cell, account, [*running.ended(), *_remarks(account)])
        except AssertionError as error:  # it was not to be started
            return Outcome(system.name, cell, None, [str(error).strip().splitlines()[-1]])


def _remarks(account: Account) -> list[str]:
    remarks = []
    streams, opened, subscribed = account["streams"], account["opened"], account["subscribed"]
    if opened < streams:
        status = f", status {account['refused_status']}" if account["refused_status"] else ""
        remarks.append(f"{opened:,} of {streams:,} streams could be opened{status}")
    if subscribed < opened:
        remarks.append(f"{subscribed:,} of {opened:,} streams got events")
    if (gone := opened - account["still_open"]) > 0:
        remarks.append(f"{gone:,} streams were closed by the server")
    if account["answered"] < account["events"]:
        remarks.append(f"{account['answered']:,} of {account['events']:,} POSTs were answered")
    if account["ended"] == "deadline":
        part = account["deliveries"] / max(1, account["answered"] * subscribed)
        remarks.append(f"after {DEADLINE_S} s {part:.0%} had been delivered")
    remarks += [
        f"{account[name]:,} {words}"
        for name, words in (
            ("doubled", "doubled"),
            ("out_of_order", "out of order"),
            ("damaged", "damaged"),
            ("strange", "that nobody had sent"),
        )
        if account[name]
    ]
    for part, group in account["groups"].items():
        if part != "server" and account["deliveries"]:
            remarks.append(f"{part}: {group['cpu_s'] / account['deliveries'] * 1e6:.2g} µs more")
    if (elsewhere := busy_elsewhere(account)) > 0.15:
        remarks.append(f"the machine did other things with {elsewhere:.0%} of its time")
    return remarks


def busy_elsewhere(account: Account) -> float:
    """The part of the machine's time that went to neither the system nor the load generator."""
    own = sum(group["cpu_s"] for group in account["groups"].values())
    own += account["load"]["reader_cpu_s"] + account["load"]["publisher_cpu_s"]
    machine = account["machine"]
    other = float(machine["busy_s"] + machine["stolen_s"] - own)
    return max(0.0, other) / (float(account["measured_s"]) * (os.cpu_count() or 1))
