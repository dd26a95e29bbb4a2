"""Learning curves like the paper's Fig. 1b and c: one panel for each mixed training."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures.drawing import FAINT, INK, MUTED, STYLE, Plot, brief, stated
from analysis.measurements.cells import Results
from analysis.measurements.curves import mean_over_seeds
from analysis.measurements.names import LEARNING, majority
from analysis.measurements.table_rows import Row, rows

LINES: dict[str, Any] = {
    "bio/first_token/train/mean": {"color": "#0072b2", "ls": "-"},
    "mixed/first_token/train/mean": {"color": "#d55e00", "ls": "-"},
    "bio/first_token/test/mean": {"color": "#56b4e9", "ls": (0, (4, 1.6))},
    "mixed/first_token/test/mean": {"color": "#e69f00", "ls": (0, (4, 1.6))},
    "mixed/exact_match/test/mean": {"color": "#009e73", "ls": (0, (1.2, 1.2))},
}
"""Okabe and Ito's colours: blues are biographies, oranges questions; dashed lines are people never asked about."""
EPOCH = 500
"""Steps per epoch on the axes of the paper's Fig. 1."""
MOST = 12
"""Largest number of panels; the data file has the curves of the others."""
APART = 4.5
"""Line ends closer than this, in percent, share one number."""
SIZES = {1: (7.2, 3.4), 2: (4.9, 2.9), 3: (3.3, 2.3)}
"""Width and height of a panel in inches, by the number of columns."""
ABOVE, BELOW, LEFT, RIGHT, LEGEND, AXIS = 0.6, 0.55, 0.45, 0.5, 0.85, 0.4
"""Margins of a panel, and the heights of the legend and of a second axis, in inches."""


def draw_curves(results: Results, curves: pd.DataFrame, *, best_of: Sequence[str] = ()) -> Plot | None:
    """Draws accuracy in percent over the steps of training, with 95 % intervals as bands.

    `curves` is `curves.read_curves(...)`, averaged here over seeds. An unfinished training shows its
    curve so far and its state. Returns `None` if no cell has curves.
    """
    table = [row for row in rows(results, best_of=best_of) if "mixed" in row.replicates]
    known = curves[curves["metric"].isin(list(LEARNING))]
    if known[known["key"].isin([key for row in table for key in row.replicates["mixed"].keys])].empty:
        return None
    as_in_paper = {cell.key for cell in results.cells if cell.departures == ()}
    shown = table[:MOST]
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    lines = math.ceil(len(shown) / columns)
    wide, high = SIZES[columns]
    epochs = AXIS * any(as_in_paper & set(row.replicates["mixed"].keys) for row in shown)
    cell = (wide + LEFT + RIGHT, high + ABOVE + BELOW + epochs)
    width, height = columns * cell[0], LEGEND + lines * cell[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for k, row in enumerate(shown):
            left = (k % columns) * cell[0] + LEFT
            bottom = height - LEGEND - (k // columns + 1) * cell[1] + BELOW
            axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
            mine = row.replicates["mixed"].keys
            _panel(
                axes, row, mean_over_seeds(known[known["key"].isin(list(mine))]), epochs=bool(as_in_paper & set(mine))
            )
        _legend(figure, len(table))
        return Plot(figure, "Lines: accuracy over training, in and out of distribution")


def _panel(axes: Axes, row: Row, replicates: pd.DataFrame, *, epochs: bool) -> None:
    ends = []
    for name, style in LINES.items():
        curve = replicates[replicates["metric"] == name].sort_values("step")
        if curve.empty:
            continue
        low, high = 100 * curve["low"], 100 * curve["high"]
        axes.fill_between(curve["step"], low, high, color=style["color"], alpha=0.16, lw=0)
        axes.plot(curve["step"], 100 * curve["value"], lw=1.7, **style)
        ends.append(100 * float(curve["value"].iloc[-1]))
    _title(axes, row, replicates, AXIS * epochs)
    axes.set_ylim(0, 103)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    if not ends:
        axes.set_xticks([])
        axes.set_xlim(0, 1)
        why = "no curves yet" if row.state("mixed") == "done" else row.state("mixed")
        stated(axes, 0.5, 50, why, side="center")
        return
    guess = row.replicates["mixed"].metrics.get(majority("mixed", "whole", "mean"))
    if guess is not None:
        axes.axhline(100 * guess, color=INK, lw=1, ls=(0, (3, 2)), zorder=1)
    steps = row.replicates["mixed"].params.get("train.steps")
    last = int(replicates["step"].max())
    whole = steps if isinstance(steps, int) else last
    axes.set_xlim(0, max(whole, last))
    for height, text in _together(ends):
        axes.annotate(text, (last, height), (4, 0), textcoords="offset points", fontsize=7.5, va="center")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.set_xlabel("steps of training")
    if epochs:
        above = axes.secondary_xaxis("top", functions=(_epochs, _steps))
        above.set_xlabel(f"epochs of {EPOCH} steps, as in the paper", color=MUTED)
        above.tick_params(length=0, colors=MUTED)
        above.spines["top"].set_visible(False)


def _epochs(steps: Any) -> Any:
    return steps / EPOCH


def _steps(epochs: Any) -> Any:
    return epochs * EPOCH


def _title(axes: Axes, row: Row, replicates: pd.DataFrame, lifted: float) -> None:
    """Writes the setting, n and seeds, `lifted` inches above the axes."""
    remarks = []
    if not replicates.empty:
        seeds, n = int(replicates["seeds"].max()), replicates["n"].dropna()
        remarks += [f"n = {n.min():,} to {n.max():,}" if n.nunique() > 1 else f"n = {n.max():,}"] if len(n) else []
        remarks += [f"{seeds} seeds"] if seeds > 1 else []
        reached = replicates["fraction"].max()
        remarks += [f"curves up to {100 * reached:.0f} % of training"] if reached < 0.995 else []
    if row.state("mixed") != "done" and not replicates.empty:
        remarks.append(brief(row.state("mixed")))
    lines: list[tuple[str, float, Any]] = [
        (row.name, 0.25, {"fontsize": 10, "fontweight": "bold"}),
        (", ".join(remarks), 0.08, {"fontsize": 8, "color": MUTED}),
    ]
    for text, inches, style in lines:
        points = 72 * (inches + lifted)
        axes.annotate(text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", **style)


def _together(values: Sequence[float]) -> list[tuple[float, str]]:
    """Height and text of the numbers beside line ends; lines that end close together share a range."""
    near: list[list[float]] = []
    for value in sorted(values):
        if near and value - near[-1][-1] < APART:
            near[-1].append(value)
        else:
            near.append([value])
    ends = [(sum(group) / len(group), f"{group[0]:.0f}", f"{group[-1]:.0f}") for group in near]
    return [(height, low if low == high else f"{low}\N{EN DASH}{high}") for height, low, high in ends]


def _legend(figure: Figure, count: int) -> None:
    marks = [Line2D([], [], lw=1.9, label=_label(name), **style) for name, style in LINES.items()]
    marks.append(Line2D([], [], color=INK, lw=1, ls=(0, (3, 2)), label="majority baseline of whole answers"))
    top = 1 - 0.3 / figure.get_figheight()
    note = "accuracy over training (%), bands: 95 % interval over people or seeds"
    if count > MOST:
        note += f"; the first {MOST} of {count} trainings"
    figure.text(LEFT / figure.get_figwidth(), 1 - 0.08 / figure.get_figheight(), note, color=MUTED, va="top")
    figure.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(LEFT / figure.get_figwidth(), top),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.4,
        columnspacing=1.8,
    )


def _label(name: str) -> str:
    return LEARNING[name] + (", first token" if "first_token" in name else "")
