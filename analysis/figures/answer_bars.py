"""Figures of answers: grouped bars for few settings, a heat map like the paper's Fig. 3 for many."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.drawing import COLOURS, FAINT, INK, MUTED, PAGE, STYLE, Plot, brief
from analysis.figures.heat_map import MEAN, Entry, Group, Line, Panel, draw_heat_maps
from analysis.measurements.cells import Results
from analysis.measurements.names import COLUMNS, GROUPS, counted, majority, metric
from analysis.measurements.table_rows import (
    Row,
    attributes,
    baseline,
    column_groups,
    published,
    rows,
    with_any_column,
)
from analysis.paper.paper_value import BASELINE, SIZES
from analysis.presentation.number_format import MISSING, percent, ranged

LINE = 0.24
"""Height of a line of text, in inches."""
FEW = 6
"""Largest number of settings drawn as bars."""
LABEL = "exact match on people never asked about (%)"


def draw_answers(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """Draws the figure that suits the number of settings."""
    form = bars if len(rows(results, best_of=best_of)) <= FEW else heat_map
    return form(results, paper, best_of=best_of)


def bars(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """Draws a panel per column group; clusters are the mean and the attributes, with a bar for each setting.

    Whiskers are 95 % intervals, dashed ticks majority baselines, diamonds the paper's numbers. Settings without a final
    number are hatched stubs, and the legend gives the reason.
    """
    table = rows(results, best_of=best_of)
    names = column_groups(table) or ("qa",)
    with matplotlib.rc_context(STYLE):
        # A legend line for every two settings, and one for the marks.
        legend = LINE * (math.ceil(len(table) / 2) + 1) + 0.1
        height = legend + 2.9 * len(names)
        figure = Figure(figsize=(10.4, height))
        panels = figure.subplots(len(names), 1, sharex=False, squeeze=False)[:, 0]
        top, bottom = 1 - (legend + 0.4) / height, 0.45 / height
        figure.subplots_adjust(left=0.05, right=0.995, top=top, bottom=bottom, hspace=0.5)
        for axes, name in zip(panels, names, strict=True):
            _clusters(axes, table, name, paper)
        _legend(figure, table, names, paper)
        return Plot(figure, f"Bars: {LABEL}, by attribute and setting")


def heat_map(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Plot:
    """Draws settings x columns with the number in each cell, and a second panel with the paper's numbers.

    Means carry their interval. Cells without a final number are hatched, with the reason.
    """
    table = rows(results, best_of=best_of)
    names = column_groups(table) or ("qa",)
    paper = with_any_column(paper, [metric(name, "mean") for name in names])
    compared = max([1, *(replicates.compared for row in table for replicates in row.replicates.values())])
    note = f"best of {'up to ' if compared > 2 else ''}{compared}" if compared > 1 else ""
    panels = [Panel(LABEL, note, *_cells(table, names, None))]
    if paper is not None:
        panels.append(Panel("the paper", LABEL, *_cells(table, names, paper)))
    # Two column groups fill the width, so their panels are stacked; one group leaves room beside it.
    lines = [panels] if len(names) == 1 else [[panel] for panel in panels]
    return draw_heat_maps(lines, f"Heat map: {LABEL}, by setting and attribute")


def _cells(
    table: Sequence[Row], names: Sequence[str], paper: pd.DataFrame | None
) -> tuple[tuple[Group, ...], tuple[Line, ...]]:
    """Columns and lines of our numbers, or of the paper's for our settings."""
    # The paper's people have the six.
    columns = ("mean", *attributes(table if paper is None else ()))
    mean = "mean [95 %]" if paper is None else "mean"
    labels = (mean, *(column.replace("_", "\n") for column in columns[1:]))
    widths = (MEAN, *[1.0] * (len(columns) - 1))

    def entry(row: Row | None, name: str, column: str) -> Entry | None:
        bold = column == "mean"
        if row is not None and not row.asks(column):
            return None
        if paper is not None:
            return Entry(published(paper, row.setting if row else BASELINE, metric(name, column)), bold=bold)
        if row is None:
            guess = baseline(table, majority(name, "whole", column))
            # Rows with different attributes have no such mean in common.
            return None if guess is None and bold and len(columns) > len(COLUMNS) else Entry(guess, bold=bold)
        value, bounds = row.value(name, column), row.interval(name, column)
        return Entry(value, ranged(value, bounds) if bold else None, bold)

    lines = [Line("majority baseline", tuple(tuple(entry(None, n, c) for c in columns) for n in names), quiet=True)]
    for row in table:
        entries = tuple(tuple(entry(row, name, column) for column in columns) for name in names)
        ours = [row.replicates.get(name) if paper is None else None for name in names]
        states = tuple("" if replicates is None or replicates.done else replicates.state for replicates in ours)
        lines.append(Line(row.name if paper is None else row.setting, entries, states))
    return tuple(Group(GROUPS[name], labels, widths) for name in names), tuple(lines)


def _clusters(axes: Axes, table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> None:
    columns = ("mean", *attributes(table))
    width = 0.82 / max(len(table), 1)
    # A gap separates the mean from its attributes.
    centres = [0.0, *(k + 1.25 for k in range(len(columns) - 1))]
    for column, centre in zip(columns, centres, strict=True):
        guess = baseline(table, majority(name, "whole", column))
        for k, row in enumerate(table):
            x = centre + (k - (len(table) - 1) / 2) * width
            value, theirs = row.value(name, column), published(paper, row.setting, metric(name, column))
            if theirs is not None:
                axes.plot(x, 100 * theirs, "D", ms=4.2, mfc=PAGE, mec=INK, mew=0.9, zorder=5, clip_on=False)
            if not row.asks(column):
                continue
            if value is None:
                axes.bar(x, 4, 0.8 * width, color="none", edgecolor=MUTED, hatch="//////", linewidth=0.5)
                continue
            _bar(axes, x, width, value, row.interval(name, column), COLOURS[k % len(COLOURS)])
            # Below the axis, where it cannot be read as the paper's.
            axes.text(x, -1.5, _short(value), ha="center", va="top", fontsize=7 if len(table) > 3 else 8)
        if guess is not None:
            axes.plot([centre - 0.46, centre + 0.46], [100 * guess] * 2, color=INK, lw=1, ls=(0, (3, 2)), zorder=4)
    axes.set_xlim(-0.55, centres[-1] + 0.55)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 25))
    axes.set_xticks(centres, [f"mean of {counted(len(columns) - 1)}", *(c.replace("_", " ") for c in columns[1:])])
    axes.get_xticklabels()[0].set_fontweight("bold")
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=16)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.text(-0.55, 116, f"{GROUPS[name]}", fontweight="bold", va="bottom")
    axes.text(centres[-1] + 0.55, 116, LABEL, color=MUTED, va="bottom", ha="right")


def _bar(axes: Axes, x: float, width: float, value: float, bounds: tuple[float, float] | None, colour: str) -> None:
    """Draws one bar with its whisker."""
    axes.bar(x, 100 * value, 0.88 * width, color=colour)
    if bounds is not None:
        axes.plot([x, x], [100 * bounds[0], 100 * bounds[1]], color=INK, lw=1, solid_capstyle="butt", zorder=3)


def _legend(figure: Figure, table: Sequence[Row], names: Sequence[str], paper: pd.DataFrame | None) -> None:
    settings = []
    for k, row in enumerate(table):
        states = [
            f"{GROUPS[name]} {brief(row.state(name))}"
            for name in names
            if name in row.replicates and (not row.replicates[name].done or row.replicates[name].compared > 1)
        ]
        label = row.name + (f" ({'; '.join(states)})" if states else "")
        settings.append(Patch(facecolor=COLOURS[k % len(COLOURS)], edgecolor="none", label=label))
    marks = [Line2D([], [], color=INK, lw=1, ls=(0, (3, 2)), label="majority baseline")]
    if any(row.interval(name, column) for row in table for name in names for column in ("mean", *attributes(table))):
        marks.insert(0, Line2D([], [], color=INK, lw=1, marker="|", ls="", ms=9, label="95 % interval"))
    sizes = dict.fromkeys(
        _papers_size(row.setting) for row in table if paper is not None and row.setting in paper.index
    )
    if sizes:
        label = f"the paper ({' and '.join(sizes)}, 100,000 people)"
        marks.append(Line2D([], [], marker="D", ls="", ms=4.2, mfc=PAGE, mec=INK, mew=0.9, label=label))
    style: Any = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handlelength": 1.4, "columnspacing": 1.8}
    for handles, columns, above in ((settings, 2, 0), (marks, 3, math.ceil(len(table) / 2))):
        top = 1 - (0.08 + LINE * above) / figure.get_figheight()
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.05, top), ncols=columns, **style)


def _papers_size(setting: str) -> str:
    """The size of the network that the paper trained on a setting."""
    return SIZES[setting.partition(" ")[0]].upper()


def _short(value: float) -> str:
    """The number under a bar; two-digit percentages get no decimal, for lack of room."""
    return percent(value) if value < 0.0995 else f"{100 * value:.0f}" if not math.isnan(value) else MISSING
