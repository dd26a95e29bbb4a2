"""Set diagrams of couple data, like the paper's Fig. 6 and 15: an attribute's accuracy by which others were seen."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from analysis import venn
from analysis.cells import Results
from analysis.drawing import FAINT, INK, MUTED, SEQUENTIAL, STYLE, Plot, legible, stated
from analysis.names import ATTRIBUTES, seen
from analysis.paper import FOLDER
from analysis.percent import percent
from analysis.rows import Row, rows

PAIRS = {"birth_city": "birth_date", "major": "university", "company_city": "company"}
"""The partner of each second attribute of a pair, which stands right before it (section 4.3)."""
KINDS = {"nothing": "nothing seen", "others": "not the partner", "partner": "the partner"}
"""Sets that are alike: none, some without the partner, and those with it."""
PARTNER = "#d55e00"
WIDE, HIGH, TITLE, ABOVE, BELOW = 4.2, 3.5, 0.3, 0.35, 0.95
"""Size of a diagram, heights of a setting's name and of a target's, and of the lines below, in inches."""
AROUND = 1.38
"""Half the width of a diagram, where the ellipses reach to 1."""
CORNER = (-1.25, -0.98, 0.3, 0.17)
"""Left, bottom, width and height of the empty set's number, which has all the ground around the ellipses."""


def draw(results: Results) -> Plot | None:
    """One row of diagrams for each couple setting, with a diagram for the second attribute of each pair.

    An ellipse is an attribute that stands before the position, the partner's drawn thick. Each region that an entry can
    show has the accuracy on held-out people of a P-probe of the first token there, hatched where it has none yet; the
    others stay empty, since no entry shows them. Returns `None` where no cell is a P-probe of couple data.
    """
    table = [row for row in rows(results, ("p_probe",)) if row.folds["p_probe"].params.get("corpus.couple")]
    if not table:
        return None
    deep = TITLE + ABOVE + HIGH + BELOW
    width, height = WIDE * len(PAIRS), deep * len(table)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for r, row in enumerate(table):
            top = height - deep * r
            figure.text(0.12 / width, (top - 0.05) / height, row.name, fontsize=11, fontweight="bold", va="top")
            for c, target in enumerate(PAIRS):
                bottom = top - TITLE - ABOVE - HIGH
                box = (WIDE * c / width, bottom / height, WIDE / width, HIGH / height)
                _diagram(figure.add_axes(box), row, target)
        return Plot(figure, "Set diagrams: accuracy of P-probes by the attributes seen before")


def possible(target: str) -> tuple[tuple[str, ...], ...]:
    """Every set of attributes that can stand before a position at which `target` is still to come, in couple data."""
    found = {}
    for order in permutations(PAIRS):
        entry = [name for second in order for name in (PAIRS[second], second)]
        for count in range(entry.index(target) + 1):
            found[tuple(name for name in ATTRIBUTES if name in entry[:count])] = count
    return tuple(sorted(found, key=len))


def _diagram(axes: Axes, row: Row, target: str) -> None:
    one, other = (second for second in PAIRS if second != target)
    # In this order, all that can be seen together lies together.
    around = (PAIRS[target], one, PAIRS[one], PAIRS[other], other)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-AROUND, AROUND)
    axes.set_ylim(-AROUND * HIGH / WIDE, AROUND * HIGH / WIDE)
    measured = {chosen: row.measured("p_probe", seen("first", chosen, target)) for chosen in possible(target)}
    for chosen, value in measured.items():
        if chosen:
            region = venn.regions()[sum(1 << around.index(name) for name in chosen)]
            _filled(axes, region.path, region.place, value)
    left, bottom, wide, high = CORNER
    corner = Path.unit_rectangle().transformed(Affine2D().scale(wide, high).translate(left, bottom))
    _filled(axes, corner, (left + wide / 2, bottom + high / 2), measured[()])
    axes.text(left, bottom - 0.03, KINDS["nothing"], va="top", fontsize=7.5, color=MUTED)
    for k, name in enumerate(around):
        _ellipse(axes, k, name, partner=name == PAIRS[target])
    if not row.folds["p_probe"].done:
        stated(axes, 0, 0, row.state("p_probe"), align="center")
    _lines(axes, row, target, measured)


def _filled(axes: Axes, path: Path, place: tuple[float, float], value: float | None) -> None:
    if value is None:
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=FAINT, hatch="////", lw=0.3))
        return
    colour = SEQUENTIAL(value)
    axes.add_patch(PathPatch(path, facecolor=colour, edgecolor="none"))
    axes.text(*place, percent(value), ha="center", va="center", fontsize=7, color=legible(colour))


def _ellipse(axes: Axes, number: int, name: str, *, partner: bool) -> None:
    edge, width = (PARTNER, 1.8) if partner else (MUTED, 0.8)
    axes.add_patch(PathPatch(venn.outline(number), facecolor="none", edgecolor=edge, lw=width))
    x, y = venn.tip(number)
    side = "center" if abs(x) < 0.5 else "left" if x > 0 else "right"
    axes.text(
        1.05 * x,
        1.05 * y,
        name.replace("_", " " if side == "center" else "\n"),
        ha=side,
        va="center" if abs(y) < 0.5 else "bottom" if y > 0 else "top",
        fontsize=8,
        fontweight="bold" if partner else "normal",
        color=PARTNER if partner else INK,
        linespacing=1.0,
    )


def _lines(axes: Axes, row: Row, target: str, measured: Mapping[tuple[str, ...], float | None]) -> None:
    """What is drawn, above; our ranges, the paper's and the number of people, below."""

    def write(x: float, line: int, text: str, **style: Any) -> None:
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(text, (x, line > 0), (0, 13 * line - 13 * (line <= 0)), ha="center", **place, **style)

    write(0.5, 1, f"{target.replace('_', ' ')}, by what was seen", fontweight="bold")
    values: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for chosen, value in measured.items():
        if value is not None:
            values["partner" if PAIRS[target] in chosen else "others" if chosen else "nothing"].append(value)
    lines = {"": list(KINDS.values()), "ours": [_range(found) for found in values.values()]}
    if theirs := _published(row, target):
        lines["the paper"] = [_range(theirs[kind]) for kind in KINDS]
    for line, (who, texts) in enumerate(lines.items()):
        for x, text in zip((0.12, 0.34, 0.6, 0.86), (who, *texts), strict=True):
            write(x, -line, text, fontsize=8, color=INK if line and x > 0.12 else MUTED)
    counts = [n for chosen in measured if (n := row.count("p_probe", seen("first", chosen, target))) is not None]
    if counts:
        write(0.5, -len(lines), f"n = {min(counts):,} to {max(counts):,} per number", fontsize=8, color=MUTED)


def _range(values: Sequence[float]) -> str:
    low, high = (percent(bound) for bound in ((min(values), max(values)) if values else (None, None)))
    return low if low == high else f"{low}\N{EN DASH}{high}"


def _published(row: Row, target: str) -> dict[str, tuple[float, float]]:
    """The paper's lowest and highest by kind of set, read off its pictures; nothing for a setting that it has not."""
    lines = pd.read_csv(FOLDER / "fig15.csv", comment="#")
    setting = f"bioS couple{row.folds['p_probe'].params['corpus.couple']}"
    mine = lines[(lines["setting"] == setting) & (lines["attribute"] == target)]
    bounds = zip(mine["seen"], mine["low"] / 100, mine["high"] / 100, strict=True)
    return {str(kind): (float(low), float(high)) for kind, low, high in bounds}
