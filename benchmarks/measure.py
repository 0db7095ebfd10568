"""What the measurements share: what work costs, rounds in turn, tables, and what they depend on."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import psutil

T = TypeVar("T")

Row = dict[str, str | float | None]


class Cost(NamedTuple):
    """What a piece of work took: time, CPU time of all threads, switches between threads."""

    wall_s: float
    cpu_s: float
    switches: int = 0  # of this process alone


class Stopwatch:
    """Measures a ``with`` block; of this process, or of another, whose CPU time counts in steps of 10 ms."""

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process
        self._started = self.cost = Cost(0.0, 0.0)

    def __enter__(self) -> Self:
        self._started = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        now, then = self._now(), self._started
        self.cost = Cost(now.wall_s - then.wall_s, now.cpu_s - then.cpu_s, now.switches - then.switches)

    def _now(self) -> Cost:
        if self._process is not None:
            times = self._process.cpu_times()
            return Cost(time.perf_counter(), times.user + times.system)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Cost(time.perf_counter(), time.process_time(), usage.ru_nvcsw + usage.ru_nivcsw)


@dataclass(frozen=True, slots=True)
class Table:
    """Figures; the keys of the first row are the columns.

    Args:
        title: what was measured.
        text: what its words mean.
        rows: the figures.
    """

    title: str
    text: str
    rows: Sequence[Row]

    def markdown(self) -> str:
        columns = list(self.rows[0])
        numeric = {name for name in columns if not isinstance(self.rows[0][name], str)}
        lines = [
            f"### {self.title}\n",
            f"{self.text}\n",
            _line(columns),
            _line(["---:" if name in numeric else "---" for name in columns]),
            *(_line([_shown(row[name]) for name in columns]) for row in self.rows),
        ]
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: str | float | None) -> str:
    """Three digits that mean something are all that a measurement has."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def in_turn(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all cases, one after the other, so many times."""
    found: dict[str, list[T]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            tell(f"round {number + 1} of {rounds}: {name}")
            found[name].append(case())
    return found


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(values, reference, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)]


def tell(what: str) -> None:
    """Show on a terminal what is being done."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def machine(folder: Path) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "file system": _file_system(folder),
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
    }


def _file_system(folder: Path) -> str:
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    folder = folder.resolve()
    return next((mounts[path] for path in (folder, *folder.parents) if path in mounts), "unknown")
