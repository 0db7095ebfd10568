"""One event to many streams, side by side with other systems: ``scripts/bench fanout``.

*Pairs*: Penstock between the limit and the strongest other system, in turn, again and again; medians.
*Matrix*: every system in every cell, once. One that cannot do a cell is in the table, with what happened.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product, starmap
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import chart
from benchmarks.cells import Cell, Outcome, busy_elsewhere, measure
from benchmarks.measure import Row, Table, machine, median_ratio, tell
from benchmarks.systems import SYSTEMS, System
from benchmarks.systems.install import NotInstalled

STREAMS = [1_000, 5_000, 10_000]
PAYLOADS = [64, 1_024, 16_384]
PACES = [0.0, 20.0]  # events a second; 0: each as soon as the one before is answered
PAIRS = ["bare-c", "penstock-uvicorn", "penstock-gunicorn", "nchan"]  # compared with the first
PAIR_CELLS = [
    *(Cell(streams, 64, pace) for streams in STREAMS for pace in PACES),
    *(Cell(5_000, payload, pace) for payload in (1_024, 16_384) for pace in PACES),
    Cell(5_000, 64, 5.0),  # which none is too slow for
]
ROUNDS = 5
QUICK = Cell(200, 64, 0.0)
QUICK_EVENTS = 20

PAIR_TEXT = (
    "In turn, {rounds} rounds; medians. *Ratio* is the median of the ratios of CPU time within a round."
)
MATRIX_TEXT = "Each once."


class Step(NamedTuple):
    """A measurement that is to be made, and where its outcome goes."""

    system: System
    cell: Cell
    place: list[Outcome]
    events: int | None = None  # None: as many as suit the system


@dataclass(slots=True)
class Findings:
    """All that was measured, as it is kept in JSON."""

    machine: dict[str, str]
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: list[Outcome] = field(default_factory=list)
    matrix: list[Outcome] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> Findings:
        """What was kept."""
        kept = json.loads(file.read_text())
        for part in ("pairs", "matrix"):
            kept[part] = [Outcome(**{**one, "cell": Cell(**one["cell"])}) for one in kept[part]]
        return cls(**kept)

    def keep(self, file: Path | None) -> None:
        """Write it all anew: a long run that is broken off leaves what it has."""
        if file is not None:
            file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def main(arguments: Sequence[str]) -> None:
    """Measure what the command line asks for."""
    options = _parser().parse_args(arguments)
    folder: Path = options.folder or Path(tempfile.gettempdir())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers, too
    findings = Findings(machine(folder))
    print("\n".join(f"- {name}: {value}" for name, value in findings.machine.items()), flush=True)
    for system, cell, place, events in list(_plan(options, findings)):
        tell(f"{system.name}: {cell}")
        place.append(measure(system, cell, folder, events))
        findings.keep(options.json)
    tell("")
    for table in tables(findings):
        print(f"\n{table.markdown()}", flush=True)
    print(f"\n{versions(findings)}")
    if options.chart:
        options.chart.write_text(chart.draw(findings.pairs + findings.matrix))


def _plan(options: argparse.Namespace, findings: Findings) -> Iterator[Step]:
    """All that is to be run, in its order; what is needed for it is installed."""
    if options.quick:
        for system in _installed(options.systems or list(SYSTEMS), findings):
            yield Step(system, QUICK, findings.matrix, QUICK_EVENTS)
        return
    cells = list(
        starmap(Cell, product(options.streams or STREAMS, options.payload or PAYLOADS, options.pace or PACES))
    )
    chosen = options.streams or options.payload or options.pace
    if options.only != "matrix":
        systems = _installed(options.pairs or PAIRS, findings)
        for cell, _, system in product(cells if chosen else PAIR_CELLS, range(options.rounds), systems):
            yield Step(system, cell, findings.pairs, cell.events(systems[0]))  # the same for all of a pair
    if options.only != "pairs":
        for cell, system in product(cells, _installed(options.systems or list(SYSTEMS), findings)):
            yield Step(system, cell, findings.matrix)


def tables(findings: Findings) -> Iterator[Table]:
    """The tables of what was measured: all of it, and the pairs once more at a glance."""
    yield from glances(findings.pairs)
    for cell in dict.fromkeys(outcome.cell for outcome in findings.pairs):
        own = [outcome for outcome in findings.pairs if outcome.cell == cell]
        names = list(dict.fromkeys(outcome.system for outcome in own))
        rounds = len(own) // len(names)
        yield Table(f"Pairs: {cell}", PAIR_TEXT.format(rounds=rounds), _pair_rows(own, names))
    if findings.matrix:
        yield Table("Matrix", MATRIX_TEXT, [_matrix_row(outcome) for outcome in findings.matrix])


def glances(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """One figure of all cells and systems in a table."""
    cells = list(dict.fromkeys(outcome.cell for outcome in outcomes))
    names = list(dict.fromkeys(outcome.system for outcome in outcomes))

    def of(cell: Cell, name: str, value: Callable[[Outcome], float | None]) -> list[float | None]:
        return [value(one) for one in outcomes if one.cell == cell and one.system == name]

    def cpu(cell: Cell, name: str) -> str | None:
        own, reference = (of(cell, each, lambda one: one.cpu_us) for each in (name, names[0]))
        both = [(one, other) for one, other in zip(own, reference, strict=True) if one and other]
        if not both:
            return None
        ratio = median_ratio(*zip(*both, strict=True))
        return f"{_median(own):.3g} ({ratio:.2f})"

    def median_of(value: Callable[[Outcome], float | None]) -> Callable[[Cell, str], float | None]:
        return lambda cell, name: _median(of(cell, name, value))

    figures: list[tuple[str, str, Callable[[Cell, str], str | float | None]]] = (
        [
            ("CPU time", f"µs of the server for a delivery, and in brackets its ratio to {names[0]}'s.", cpu),
            ("Latency, p99", "ms.", median_of(lambda one: one.latency_ms("p99"))),
            ("Memory", "KB for a stream.", median_of(lambda one: one.kb_per_stream)),
            ("Deliveries a second", "All streams together.", median_of(lambda one: one.per_second)),
        ]
        if names
        else []
    )
    for title, text, figure in figures:
        yield Table(title, text, [{"": str(cell), **{n: figure(cell, n) for n in names}} for cell in cells])


def _pair_rows(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Row]:
    by_name = {name: [outcome for outcome in outcomes if outcome.system == name] for name in names}
    reference = [outcome.cpu_us for outcome in by_name[names[0]]]
    rows: list[Row] = []
    for name, own in by_name.items():
        cpu = [outcome.cpu_us for outcome in own]
        pairs = [(one, other) for one, other in zip(cpu, reference, strict=True) if one and other]
        accounts = [outcome.account for outcome in own if outcome.account]
        rows.append(
            {
                "": name,
                "deliveries/s": _median(outcome.per_second for outcome in own),
                "CPU µs per delivery": _median(cpu),
                "ratio": median_ratio(*zip(*pairs, strict=True)) if pairs else None,
                "KB per stream": _median(outcome.kb_per_stream for outcome in own),
                "p50 ms": _median(outcome.latency_ms("p50") for outcome in own),
                "p99 ms": _median(outcome.latency_ms("p99") for outcome in own),
                "lost": sum(account["lost"] for account in accounts),
                "generator's share of a core": _median(_generator_share(outcome) for outcome in own),
                "busy elsewhere": _median(busy_elsewhere(account) for account in accounts),
                "remarks": "; ".join(dict.fromkeys(remark for one in own for remark in one.remarks)),
            }
        )
    return rows


def _matrix_row(outcome: Outcome) -> Row:
    account = outcome.account
    return {
        "": outcome.system,
        "streams": f"{outcome.cell.streams:,}",
        "bytes": f"{outcome.cell.payload:,}",
        "pace": f"{outcome.cell.rate:g}/s" if outcome.cell.rate else "full",
        "deliveries/s": outcome.per_second,
        "CPU µs per delivery": outcome.cpu_us,
        "KB per stream": outcome.kb_per_stream,
        "p50 ms": outcome.latency_ms("p50"),
        "p99 ms": outcome.latency_ms("p99"),
        "lost": account["lost"] if account else None,
        "remarks": "; ".join(outcome.remarks),
    }


def _generator_share(outcome: Outcome) -> float | None:
    """How busy its reading thread is: below 1, the server is what limits."""
    if outcome.account is None:
        return None
    share: float = outcome.account["load"]["reader_cpu_s"] / outcome.account["measured_s"]
    return share


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def versions(findings: Findings) -> str:
    """What was measured, as a list."""
    return "\n".join(
        f"- **{name}**: {facts['about']}. "
        + ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
        for name, facts in findings.systems.items()
    )


def _installed(names: Sequence[str], findings: Findings) -> list[System]:
    ready = []
    for name in names:
        tell(f"installing {name}")
        try:
            found = dict(SYSTEMS[name].install())
        except NotInstalled as error:
            print(f"- {name} is left out: {error}", file=sys.stderr)
            continue
        findings.systems[name] = {"about": SYSTEMS[name].about, "versions": found}
        ready.append(SYSTEMS[name])
    return ready


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "scripts/bench fanout",
        description="Fan-out, side by side. All of it takes more than an hour; --only pairs half of one.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one small cell of each system: shows that it runs"
    )
    parser.add_argument("--only", choices=["pairs", "matrix"], help="one part")
    parser.add_argument("--systems", type=_names, help=f"of the matrix: all, or some of {','.join(SYSTEMS)}")
    parser.add_argument(
        "--pairs", type=_names, help=f"of the pairs; the first is the reference ({','.join(PAIRS)})"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of the pairs ({ROUNDS})")
    parser.add_argument("--streams", type=_numbers, help="such as 1000,5000")
    parser.add_argument("--payload", type=_numbers, help="bytes, such as 64,1024")
    parser.add_argument("--pace", type=_paces, help="events a second, or 'full': such as full,20")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found, after each step")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="draw it; benchmarks/chart.py draws a FILE of --json"
    )
    parser.add_argument("--folder", type=Path, help="where logs are put; the disk is measured, too")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise argparse.ArgumentTypeError(
            f"no system is named {', '.join(unknown)}; there are {', '.join(SYSTEMS)}"
        )
    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _paces(text: str) -> list[float]:
    return [0.0 if pace == "full" else float(pace) for pace in text.split(",")]
