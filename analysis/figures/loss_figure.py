"""The loss of each pretraining over its steps."""

import math
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.figures.drawing import COLOURS, FAINT, MUTED, STYLE, Plot
from analysis.measurements.curves import mean_over_seeds
from analysis.measurements.names import LOSS

DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)))
MOST = len(COLOURS) * len(DASHES)
"""Largest number of lines that can be told apart; the data file has the others."""
LINE, HEIGHT, WIDTH = 0.22, 2.7, 10.4
"""Inches of a line of the legend, and of the panel."""


def losses(curves: pd.DataFrame) -> pd.DataFrame:
    """Returns the loss by setting and step, averaged over seeds; a training that several settings share counts for the
    first of them. `curves` is `curves.read_curves(...)`, which may hold other metrics too."""
    mine = curves[curves["metric"] == LOSS]
    return mean_over_seeds(mine.drop_duplicates(["run", "step"]))


def draw_losses(curves: pd.DataFrame) -> Plot | None:
    """Draws the loss over the steps of training, a line for each setting; returns `None` if there is no loss."""
    averaged = losses(curves)
    if averaged.empty:
        return None
    lines = list(averaged.groupby(["setting", "train.qa_ratio"], sort=False, dropna=False))[:MOST]
    with matplotlib.rc_context(STYLE):
        legend = LINE * math.ceil(len(lines) / 2) + 0.35
        figure = Figure(figsize=(WIDTH, HEIGHT + legend + 0.45))
        height = figure.get_figheight()
        axes = figure.add_axes((0.05, 0.45 / height, 0.925, HEIGHT / height))
        for number, ((name, ratio), line) in enumerate(lines):
            line = line.sort_values("step")
            mixed = f", {ratio:.0%} of the windows with questions" if ratio else ""
            style: Any = {"color": COLOURS[number % len(COLOURS)], "ls": DASHES[number // len(COLOURS)]}
            axes.plot(
                line["step"], line["value"], lw=1.5, label=f"{name}{mixed}: {line['value'].iloc[-1]:.3f}", **style
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        # The loss seldom spans a whole power of ten.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.set_xlim(0, averaged["step"].max())
        axes.set_xlabel("steps of training")
        axes.grid(axis="y", color=FAINT, lw=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        note = "training loss, nats a token; in the legend its last value"
        figure.text(0.05, 1 - 0.08 / height, note, color=MUTED, va="top")
        frame: Any = {"frameon": False, "borderpad": 0, "borderaxespad": 0, "handlelength": 2.4, "columnspacing": 1.8}
        figure.legend(loc="upper left", bbox_to_anchor=(0.05, 1 - 0.3 / height), ncols=2, **frame)
        return Plot(figure, "Lines: training loss by step and setting")
