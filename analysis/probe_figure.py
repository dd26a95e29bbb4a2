"""The figure of probes: heat maps of what can be read off a name, and off each position of a biography."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import Results
from analysis.drawing import INK, MUTED, STYLE, square, stated, svg
from analysis.names import (
    ACCURACY,
    ATTRIBUTES,
    OFS,
    POSITIONS,
    PREDICTED,
    PROBES,
    majority,
    of_attributes,
    p_probe,
    q_probe,
)
from analysis.rows import Row, baseline, groups, holding, published, rows

CELL, LINE, GAP = 0.36, 0.25, 0.35
"""Width and height of a cell in inches, and the space between column groups in cells."""
ABOVE, BETWEEN = 1.2, 0.3
"""Inches above a panel for its headings, and below it."""
SHORT = {
    "birth_date": "birth\nmonth",
    "birth_city": "birth\ncity",
    "university": "univ.",
    "company": "comp.",
    "company_city": "comp.\ncity",
}


@dataclass(frozen=True)
class Square:
    """One column of a panel."""

    metric: str
    baseline: str
    attribute: str
    position: int | None = None


@dataclass(frozen=True)
class Panel:
    """One heat map: ours, or the paper's numbers for our settings."""

    title: str
    label: str
    kind: str
    groups: tuple[tuple[str, tuple[Square, ...]], ...]
    table: tuple[Row, ...]
    paper: pd.DataFrame | None = None

    @property
    def cells(self) -> float:
        """Width in cells."""
        return sum(len(squares) for _, squares in self.groups) + GAP * (len(self.groups) - 1)


def draw(results: Results, paper: pd.DataFrame | None = None) -> str:
    """Q-probes, P-probes of the first token and of the whole attribute, each beside or above the paper's; as SVG.

    Cells that should have a number and have none are hatched; attributes already passed at a position are blank.
    """
    table = rows(results, PROBES)
    lines = _lines(table, paper)
    margin = 0.3 + 0.068 * max([len("majority baseline"), *(len(row.name) for row in table)])
    width = margin + CELL * max([sum(p.cells for p in line) + 1.5 * (len(line) - 1) for line in lines], default=0) + 0.1
    heights = [ABOVE + LINE * (len(line[0].table) + 1) + BETWEEN for line in lines]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights) or 1))
        top = 0.0
        for line, height in zip(lines, heights, strict=True):
            left = margin
            for k, panel in enumerate(line):
                inches = LINE * (len(panel.table) + 1)
                bottom = sum(heights) - top - ABOVE - inches
                box = (left / width, bottom / sum(heights), CELL * panel.cells / width, inches / sum(heights))
                _panel(figure.add_axes(box), panel, labelled=k == 0)
                left += CELL * (panel.cells + 1.5)
            top += height
        return svg(figure, f"Heat maps of probes: {ACCURACY}, by setting, attribute and position")


def _lines(table: Sequence[Row], paper: pd.DataFrame | None) -> list[tuple[Panel, ...]]:
    """Panels, line by line: a Q-probe's two fit beside each other, a P-probe's stand one above the other."""
    kinds = groups(table)
    lines: list[tuple[Panel, ...]] = []
    if "q_probe" in kinds:
        shown = tuple(
            (PREDICTED[of], tuple(Square(q_probe(of, a), majority("q_probe", of, a), a) for a in of_attributes(of)))
            for of in OFS
        )
        lines.append(tuple(_both("Q-probe", "q_probe", shown, table, paper)))
    for of in OFS if "p_probe" in kinds else ():
        shown = tuple(
            (
                f"position {i}",
                tuple(Square(p_probe(of, i, a), majority("p_probe", of, a), a, i) for a in of_attributes(of)),
            )
            for i in POSITIONS
        )
        lines += [(panel,) for panel in _both(f"P-probe, {PREDICTED[of]}", "p_probe", shown, table, paper)]
    return lines


def _both(
    title: str,
    kind: str,
    shown: tuple[tuple[str, tuple[Square, ...]], ...],
    table: Sequence[Row],
    paper: pd.DataFrame | None,
) -> list[Panel]:
    mine = tuple(row for row in table if kind in row.folds)
    metrics = [square.metric for _, squares in shown for square in squares]
    counts = [count for row in mine for name in metrics if (count := row.count(kind, name)) is not None]
    label = ACCURACY + (f", n = {_span(counts)} per number" if counts else "")
    panels = [Panel(title, label, kind, shown, mine)]
    theirs = holding(paper, metrics)
    if theirs is not None and any(row.setting in theirs.index for row in mine):
        panels.append(Panel(f"{title}: the paper", ACCURACY, kind, shown, mine, theirs))
    return panels


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _panel(axes: Axes, panel: Panel, *, labelled: bool) -> None:
    """One unit is a cell; y grows downwards."""
    axes.text(0, -3.95, panel.title, fontsize=10, fontweight="bold", va="bottom")
    axes.text(0, -2.95, panel.label, fontsize=8.5, va="bottom", color=MUTED)
    start = 0.0
    for heading, squares in panel.groups:
        axes.text(start, -1.75, heading, va="bottom")
        for c, column in enumerate(squares):
            label = SHORT.get(column.attribute, column.attribute)
            axes.text(start + c + 0.5, -0.2, label, ha="center", va="bottom", fontsize=7.5, linespacing=1.0)
            _column(axes, panel, column, start + c)
        start += len(squares) + GAP
    for r, row in enumerate(panel.table, start=1) if panel.paper is None else ():
        if not row.folds[panel.kind].done:
            # Over the first positions, where even a fixed order has passed little.
            stated(axes, min(panel.cells / 2, 4.5), r + 0.52, row.state(panel.kind))
    for r, label in enumerate(["majority baseline", *(row.name for row in panel.table)] if labelled else []):
        axes.text(-0.3, r + 0.5, label, ha="right", va="center", color=INK if r else MUTED)
    axes.set_xlim(0, panel.cells)
    axes.set_ylim(len(panel.table) + 1, 0)
    axes.set_axis_off()


def _column(axes: Axes, panel: Panel, column: Square, x: float) -> None:
    if panel.paper is None:
        square(axes, x, 0, baseline(panel.table, column.baseline, (panel.kind,)))
    else:
        square(axes, x, 0, published(panel.paper, "baseline", column.metric))
    for r, row in enumerate(panel.table, start=1):
        if panel.paper is None:
            value = row.measured(panel.kind, column.metric)
        else:
            value = published(panel.paper, row.setting, column.metric)
        if value is not None or not _passed(row, column):
            square(axes, x, r, value)


def _passed(row: Row, column: Square) -> bool:
    """Whether the attribute stands before the position in every entry, so that there is nothing to predict."""
    axes = row.folds["p_probe"].params if column.position is not None else {}
    if column.position is None or axes.get("corpus.permute") or axes.get("corpus.kind", "bioS") != "bioS":
        return False
    return ATTRIBUTES.index(column.attribute) < column.position
