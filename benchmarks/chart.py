"""The chart of the documentation, as SVG text: requests per second relative to this server, a panel for each row, a bar for each server.

One scale for all panels, so that this server's bar is equally long in each; a bar beyond CUT is cut there. The colours come in a light
and a dark set, with a background of their own: the picture is readable on any page, whatever the reader's system prefers. As a script,
``python chart.py JSON SVG`` draws what ``compare.py --json`` has written.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from peers import OURS
from report import BARE, Document

WIDTH = 880
MARGIN = 24
COLUMNS = 2
GUTTER = 32
HEADER = 64
FOOTER = 34
PANEL_TITLE = 26
PANEL_GAP = 22
BAR = 12
STEP = 18
NAMES = 112
RATIOS = 44
RATES = 84
CUT = 2.0
"""The ratio at which a bar ends, whatever comes beyond: one outlier must not make all others the same."""
PANEL = (WIDTH - 2 * MARGIN - GUTTER * (COLUMNS - 1)) // COLUMNS
LONGEST = PANEL - NAMES - RATIOS - RATES

STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #33373d; }
.heading { font-size: 16px; font-weight: 600; fill: #14171a; }
.title { font-size: 13px; font-weight: 600; fill: #14171a; }
.quiet { fill: #5c636b; }
.ours { font-weight: 600; fill: #14171a; }
.page { fill: #ffffff; }
.bar { fill: #a3abb5; }
.bar.first { fill: #1f6fc5; }
.one { stroke: #1f6fc5; stroke-width: 1; stroke-dasharray: 2 3; }
.cut { stroke: #ffffff; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #c6cbd2; }
  .heading, .title, .ours { fill: #f0f2f4; }
  .quiet { fill: #98a0aa; }
  .page { fill: #16191d; }
  .bar { fill: #5d6671; }
  .bar.first { fill: #5aa2ee; }
  .one { stroke: #5aa2ee; }
  .cut { stroke: #16191d; }
}"""


def draw(document: Document) -> str:
    """The chart of what ``compare.py`` has measured. Rows without this server have no ratios and are left out."""
    rows = [row for row in document["rows"] if row["chart"] and OURS in row["servers"]]
    bars = [_bars(row) for row in rows]
    scale = LONGEST / min(CUT, max((bar.ratio for panel in bars for bar in panel), default=1.0))
    parts: list[str] = []
    top = HEADER
    for start in range(0, len(rows), COLUMNS):
        beside = range(start, min(start + COLUMNS, len(rows)))
        for index in beside:
            left = MARGIN + (index - start) * (PANEL + GUTTER)
            parts += _panel(left, top, rows[index]["title"], bars[index], scale)
        top += PANEL_TITLE + max(len(bars[index]) for index in beside) * STEP + PANEL_GAP
    height = top + FOOTER
    heading = f"Requests per second, relative to {OURS}"
    machine = document["machine"]
    rounds = f"{document['rounds']} round{'s' * (document['rounds'] > 1)}"
    facts = (
        f"One process, {document['threads']} threads, {machine['cores']} cores, {machine['python']}. "
        f"Medians of {rounds} of {document['seconds']} s. Longer is faster; bars are cut at {CUT:g}."
    )
    if any(bar.errors for panel in bars for bar in panel):
        facts += " * With errors."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            'role="img" aria-labelledby="heading facts">',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
            f'<text id="heading" class="heading" x="{MARGIN}" y="32">{escape(heading)}</text>',
            *parts,
            f'<text id="facts" class="quiet" x="{MARGIN}" y="{height - 18}">{escape(facts)}</text>',
            "</svg>\n",
        ]
    )


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    ratio: float
    rate: float
    errors: bool


def _bars(row: Document) -> list[Bar]:
    """Of each server, the fastest first."""
    bars = [
        Bar(name, server["ratio"], server["requests_per_second"], server["errors"] > 0)
        for name, server in row["servers"].items()
        if name != BARE and server["ratio"] is not None
    ]
    return sorted(bars, key=lambda bar: -bar.ratio)


def _panel(left: int, top: int, title: str, bars: list[Bar], scale: float) -> list[str]:
    axis, right = left + NAMES, left + PANEL
    first = top + PANEL_TITLE
    one = axis + scale
    parts = [
        f'<text class="title" x="{left}" y="{top + 12}">{escape(title)}</text>',
        f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="{first - 4}" y2="{first + len(bars) * STEP - 2}"/>',
    ]
    for number, bar in enumerate(bars):
        y = first + number * STEP
        base = y + 10
        text, fill = ("ours", "bar first") if bar.name == OURS else ("quiet", "bar")
        length = max(1.0, min(bar.ratio, CUT) * scale)
        mark = "*" if bar.errors else ""
        parts += [
            f'<text class="{text}" x="{axis - 8}" y="{base}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{fill}" x="{axis}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="{text}" x="{right - RATES}" y="{base}" text-anchor="end">{bar.ratio:.2f}</text>',
            f'<text class="{text}" x="{right}" y="{base}" text-anchor="end">{bar.rate:,.0f}/s{mark}</text>',
        ]
        if bar.ratio > CUT:
            end = axis + length
            parts.append(f'<line class="cut" x1="{end - 14:.1f}" x2="{end - 8:.1f}" y1="{y + BAR + 1}" y2="{y - 1}"/>')
    return parts


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
