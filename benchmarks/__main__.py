"""Runs measurements and prints their tables: ``python -m benchmarks [--quick] [--json] [NAME...]``.

``python -m benchmarks fanout`` measures Penstock against others, and has options of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import fanout, latency, logs, memory, other_requests, publishing, reconnect_storm, recovery
from benchmarks.measure import Table, machine, tell

MEASUREMENTS: Mapping[str, Callable[..., list[Table]]] = {
    "publishing": publishing.run,
    "latency": latency.run,
    "logs": logs.run,
    "memory": memory.run,
    "recovery": recovery.run,
    "reconnect-storm": reconnect_storm.run,
    "other-requests": other_requests.run,
}


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["fanout"]:
        fanout.main(arguments[1:])
        return
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no measurement is named {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    folder = options.folder or Path(tempfile.gettempdir())
    facts = machine(folder)
    if not options.json:
        print("\n".join(f"- {name}: {value}" for name, value in facts.items()), flush=True)
    tables: dict[str, list[Table]] = {}
    for name in options.names or MEASUREMENTS:
        tell(name)
        tables[name] = MEASUREMENTS[name](folder, quick=options.quick)
        tell("")
        for table in tables[name] if not options.json else []:
            print(f"\n{table.markdown()}", flush=True)
    if options.json:
        found = {name: [asdict(table) for table in own] for name, own in tables.items()}
        json.dump({"machine": facts, "measurements": found}, sys.stdout, indent=2)
        print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "scripts/bench",
        description="Measure, side by side in one run.",
        epilog="scripts/bench fanout --help tells of another measurement: Penstock against others.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="little work, one round: shows that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON, with all digits")
    parser.add_argument("--folder", type=Path, help="where files are put; the disk is measured, too")
    return parser


if __name__ == "__main__":
    main()
