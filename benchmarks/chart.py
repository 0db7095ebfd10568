"""Draws findings of the fan-out as SVG: ``python -m benchmarks.chart FINDINGS.json CHART.svg``.

Three panels of bars, for one number of streams and one payload: CPU time of a delivery, memory of a stream,
latency. Text and bars are plain SVG; its own style sheet follows the reader's light or dark mode.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.cells import Cell, Outcome

STREAMS, PAYLOAD = 5_000, 64
FULL, PACED = 0.0, 20.0
WIDTH, LABELS, VALUES = 760, 190, 110  # of all, of the names at the left, of the figures at the right
ROW, BAR, TITLE = 24, 14, 58  # heights

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .note, .value { fill: #59636e }
  .own { font-weight: 600 }
  rect { fill: #8c959f }
  rect.own { fill: #0969da }
  rect.limit { fill: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note, .value { fill: #9198a1 }
    rect { fill: #6e7681 }
    rect.own { fill: #4493f8 }
    rect.limit { fill: #3d444d }
  }
"""


class Panel(NamedTuple):
    """One figure of each system.

    Args:
        title: what it is.
        rate: the pace at which it was measured.
        unit: of the figure.
        of: takes the figure from an outcome.
        logarithmic: for figures that differ by orders of magnitude.
    """

    title: str
    rate: float
    unit: str
    of: Callable[[Outcome], float | None]
    logarithmic: bool = False


PANELS = [
    Panel("CPU time of one delivery", FULL, "µs", lambda outcome: outcome.cpu_us),
    Panel("Memory of one stream", FULL, "KB", lambda outcome: outcome.kb_per_stream),
    Panel("Latency, p99", PACED, "ms", lambda outcome: outcome.latency_ms("p99"), logarithmic=True),
]


def draw(outcomes: Sequence[Outcome]) -> str:
    """The whole picture; medians, where a cell was measured several times."""
    streams, payload = STREAMS, PAYLOAD
    if outcomes and not any(_is_of(one.cell, streams, payload) for one in outcomes):
        streams, payload = outcomes[0].cell.streams, outcomes[0].cell.payload
    parts: list[str] = []
    top = 0
    for panel in PANELS:
        of_panel = [
            one for one in outcomes if _is_of(one.cell, streams, payload) and one.cell.rate == panel.rate
        ]
        if not of_panel:
            continue
        pace = f"{panel.rate:g} events a second" if panel.rate else "events as fast as they are answered"
        note = f"{streams:,} streams, {payload:,} bytes, {pace}" + "; logarithmic" * panel.logarithmic
        parts += [
            f'<text class="title" x="0" y="{top + 20}">{panel.title}</text>',
            f'<text class="note" x="0" y="{top + 40}">{note}</text>',
            *_bars(panel, of_panel, top + TITLE),
        ]
        top += TITLE + ROW * len({one.system for one in of_panel}) + 16
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    )
    name = "Fan-out of server-sent events: CPU time, memory and latency of several systems"
    return "\n".join(
        [f'{head} role="img" aria-label="{name}">', f"<style>{STYLE}</style>", *parts, "</svg>", ""]
    )


def _bars(panel: Panel, outcomes: Sequence[Outcome], top: int) -> list[str]:
    figures: dict[str, float | None] = {}
    for name in dict.fromkeys(outcome.system for outcome in outcomes):
        found = [value for one in outcomes if one.system == name and (value := panel.of(one)) is not None]
        figures[name] = statistics.median(found) if found else None
    ranked = sorted(figures.items(), key=lambda one: math.inf if one[1] is None else one[1])
    most = max((value for value in figures.values() if value), default=1.0)
    room = WIDTH - LABELS - VALUES
    parts = []
    for number, (name, value) in enumerate(ranked):
        y = top + number * ROW
        kind = "own" if name.startswith("penstock") else "limit" if name == "bare-c" else "other"
        parts.append(
            f'<text class="{kind}" x="{LABELS - 10}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        )
        if value is None:
            parts.append(f'<text class="value" x="{LABELS}" y="{y + 12}">could not do it</text>')
            continue
        length = max(2.0, room * _part(value, most, panel.logarithmic))
        parts.append(
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.0f}" height="{BAR}" rx="2"/>'
        )
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.3g}"
        x = LABELS + length + 8
        parts.append(f'<text class="value" x="{x:.0f}" y="{y + 12}">{shown} {panel.unit}</text>')
    return parts


def _part(value: float, most: float, logarithmic: bool) -> float:
    """The bar's part of the longest; a logarithmic one begins at 1."""
    return math.log10(max(1.0, value)) / max(1.0, math.log10(most)) if logarithmic else value / most


def _is_of(cell: Cell, streams: int, payload: int) -> bool:
    return (cell.streams, cell.payload) == (streams, payload)


if __name__ == "__main__":
    from benchmarks.fanout import Findings  # which imports this file

    findings = Findings.read(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(draw(findings.pairs + findings.matrix))
