"""The figure of answers: grouped bars for a few settings, a heat map like the paper's Fig. 3 for many."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.cells import Results
from analysis.drawing import FAINT, INK, MUTED, PAGE, STYLE, Plot, brief
from analysis.heat_map import MEAN, Entry, Group, Line, Panel
from analysis.heat_map import draw as draw_map
from analysis.names import ATTRIBUTES, COLUMNS, GROUPS, majority, metric
from analysis.number import BASELINE
from analysis.percent import MISSING, percent, ranged
from analysis.rows import Row, baseline, groups, holding, published, rows

COLOURS = ("#8e9aa6", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's colour-blind-safe set, led by a grey: the first setting of a plan is what others are compared to."""
LINE = 0.24
"""Height of a line of text, in inches."""
FEW = 6
"""Up to so many settings are drawn as bars."""
LABEL = "exact match on people never asked about (%)"


def draw(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """The figure that fits the number of settings."""
    form = bars if len(rows(results, best_of=best_of)) <= FEW else heat_map
    return form(results, paper, best_of=best_of)


def bars(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """One panel per column group; clusters are the mean and the six attributes, with a bar for each setting.

    Whiskers are 95 % intervals, a dashed tick across a cluster is the majority baseline, a diamond the paper's number.
    Settings without a final number stand as hatched stubs, and the legend says why.
    """
    table = rows(results, best_of=best_of)
    names = groups(table) or ("qa",)
    with matplotlib.rc_context(STYLE):
        # A legend line for every two settings, and one for the marks.
        legend = LINE * (math.ceil(len(table) / 2) + 1) + 0.1
        height = legend + 2.9 * len(names)
        figure = Figure(figsize=(10.4, height))
        panels = figure.subplots(len(names), 1, sharex=False, squeeze=False)[:, 0]
        top, bottom = 1 - (legend + 0.4) / height, 0.3 / height
        figure.subplots_adjust(left=0.05, right=0.995, top=top, bottom=bottom, hspace=0.42)
        for axes, name in zip(panels, names, strict=True):
            _clusters(axes, table, name, paper)
        _legend(figure, table, names, paper)
        return Plot(figure, f"Bars: {LABEL}, by attribute and setting")


def heat_map(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """Settings x columns with the number in each cell, and a second panel with the paper's numbers for these settings.

    A mean has its interval. Cells without a final number are hatched, with the reason.
    """
    table = rows(results, best_of=best_of)
    names = groups(table) or ("qa",)
    paper = holding(paper, [metric(name, "mean") for name in names])
    compared = max([1, *(fold.compared for row in table for fold in row.folds.values())])
    note = f"best of {'up to ' if compared > 2 else ''}{compared}" if compared > 1 else ""
    panels = [Panel(LABEL, note, *_cells(table, names, None))]
    if paper is not None:
        panels.append(Panel("the paper", LABEL, *_cells(table, names, paper)))
    # Two column groups fill the width, so the panels stand one above the other; one group leaves room beside it.
    lines = [panels] if len(names) == 1 else [[panel] for panel in panels]
    return draw_map(lines, f"Heat map: {LABEL}, by setting and attribute")


def _cells(
    table: Sequence[Row], names: Sequence[str], paper: pd.DataFrame | None
) -> tuple[tuple[Group, ...], tuple[Line, ...]]:
    """Columns and lines: ours, or the paper's numbers for our settings."""
    mean = "mean [95 %]" if paper is None else "mean"
    labels = (mean, *(column.replace("_", "\n") for column in COLUMNS[1:]))
    widths = (MEAN, *[1.0] * len(ATTRIBUTES))

    def entry(row: Row | None, name: str, column: str) -> Entry:
        bold = column == "mean"
        if paper is not None:
            return Entry(published(paper, row.setting if row else BASELINE, metric(name, column)), bold=bold)
        if row is None:
            return Entry(baseline(table, majority(name, "whole", column)), bold=bold)
        value, bounds = row.value(name, column), row.interval(name, column)
        return Entry(value, ranged(value, bounds) if bold else None, bold)

    lines = [Line("majority baseline", tuple(tuple(entry(None, n, c) for c in COLUMNS) for n in names), quiet=True)]
    for row in table:
        entries = tuple(tuple(entry(row, name, column) for column in COLUMNS) for name in names)
        ours = [row.folds.get(name) if paper is None else None for name in names]
        states = tuple("" if fold is None or fold.done else fold.state for fold in ours)
        lines.append(Line(row.name if paper is None else row.setting, entries, states))
    return tuple(Group(GROUPS[name], labels, widths) for name in names), tuple(lines)


def _clusters(axes: Axes, table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> None:
    width = 0.82 / max(len(table), 1)
    # The mean stands apart from what it is the mean of.
    centres = [0.0, *(k + 1.25 for k in range(len(COLUMNS) - 1))]
    for column, centre in zip(COLUMNS, centres, strict=True):
        guess = baseline(table, majority(name, "whole", column))
        for k, row in enumerate(table):
            x = centre + (k - (len(table) - 1) / 2) * width
            value, theirs = row.value(name, column), published(paper, row.setting, metric(name, column))
            if theirs is not None:
                axes.plot(x, 100 * theirs, "D", ms=4.2, mfc=PAGE, mec=INK, mew=0.9, zorder=5, clip_on=False)
            if value is None:
                axes.bar(x, 4, 0.8 * width, color="none", edgecolor=MUTED, hatch="//////", linewidth=0.5)
                continue
            top = _bar(axes, x, width, value, row.interval(name, column), COLOURS[k % len(COLOURS)])
            free = _free(top, [100 * mark for mark in (theirs, guess) if mark is not None])
            axes.text(x, free, _short(value), ha="center", va="bottom", fontsize=7 if len(table) > 3 else 8)
        if guess is not None:
            axes.plot([centre - 0.46, centre + 0.46], [100 * guess] * 2, color=INK, lw=1, ls=(0, (3, 2)), zorder=4)
    axes.set_xlim(-0.55, centres[-1] + 0.55)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xticks(centres, ["mean of six", *(c.replace("_", " ") for c in COLUMNS[1:])])
    axes.get_xticklabels()[0].set_fontweight("bold")
    axes.tick_params(length=0)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.text(-0.55, 116, f"{GROUPS[name]}", fontweight="bold", va="bottom")
    axes.text(centres[-1] + 0.55, 116, LABEL, color=MUTED, va="bottom", ha="right")


def _bar(axes: Axes, x: float, width: float, value: float, bounds: tuple[float, float] | None, colour: str) -> float:
    """Draw one bar with its whisker; returns the height that is taken, in percent."""
    axes.bar(x, 100 * value, 0.88 * width, color=colour)
    if bounds is None:
        return 100 * value
    axes.plot([x, x], [100 * bounds[0], 100 * bounds[1]], color=INK, lw=1, solid_capstyle="butt", zorder=3)
    return 100 * max(value, bounds[1])


def _free(top: float, marks: Sequence[float]) -> float:
    """Where a number over a bar starts, in percent: above the whisker, and above any mark that it would cover."""
    start = top + 1.5
    for mark in sorted(marks):
        if start - 2.5 < mark < start + 8:
            start = mark + 3
    return start


def _legend(figure: Figure, table: Sequence[Row], names: Sequence[str], paper: pd.DataFrame | None) -> None:
    settings = []
    for k, row in enumerate(table):
        states = [
            f"{GROUPS[name]} {brief(row.state(name))}"
            for name in names
            if name in row.folds and (not row.folds[name].done or row.folds[name].compared > 1)
        ]
        label = row.name + (f" ({'; '.join(states)})" if states else "")
        settings.append(Patch(facecolor=COLOURS[k % len(COLOURS)], edgecolor="none", label=label))
    marks = [Line2D([], [], color=INK, lw=1, ls=(0, (3, 2)), label="majority baseline")]
    if any(row.interval(name, column) for row in table for name in names for column in COLUMNS):
        marks.insert(0, Line2D([], [], color=INK, lw=1, marker="|", ls="", ms=9, label="95 % interval"))
    if paper is not None and any(row.setting in paper.index for row in table):
        marks.append(Line2D([], [], marker="D", ls="", ms=4.2, mfc=PAGE, mec=INK, mew=0.9, label="the paper"))
    style: Any = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handlelength": 1.4, "columnspacing": 1.8}
    for handles, columns, above in ((settings, 2, 0), (marks, 3, math.ceil(len(table) / 2))):
        top = 1 - (0.08 + LINE * above) / figure.get_figheight()
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.05, top), ncols=columns, **style)


def _short(value: float) -> str:
    """The number over a bar: no decimal where there is no room for one."""
    return percent(value) if value < 0.0995 else f"{100 * value:.0f}" if not math.isnan(value) else MISSING
