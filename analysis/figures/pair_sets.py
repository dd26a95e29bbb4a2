"""Set diagrams of couple data, like the paper's Fig. 6 and 15: accuracy by the attributes seen before."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from analysis.figures import venn
from analysis.figures.drawing import FAINT, INK, MUTED, SEQUENTIAL, STYLE, Plot, legible, stated
from analysis.measurements.cells import Results
from analysis.measurements.names import p_probe_after
from analysis.measurements.table_rows import Row, rows
from analysis.paper import tables
from analysis.presentation.number_format import percent, span

PARTNERS = {second: first for first, second in tables.PAIRS}
"""Second attribute of each pair -> its partner, which stands right before it and gives it away."""
SET_TITLES = {"nothing": "nothing seen", "others": "not the partner", "partner": "the partner"}
"""Column titles of the kinds of sets."""
PARTNER = "#d55e00"
WIDE, HIGH, TITLE, ABOVE, BELOW = 4.2, 3.5, 0.3, 0.35, 0.95
"""Size of a diagram, heights of the setting's and the target's title, and of the lines below, in inches."""
AROUND = 1.43
"""Half the width of a diagram, in which the ellipses span -1 to 1."""
CORNER = (-1.3, -0.98, 0.3, 0.17)
"""Left, bottom, width and height of the empty set's number, outside the ellipses."""


def draw_pair_sets(results: Results) -> Plot | None:
    """Draws one row of diagrams per couple setting, with a diagram for the second attribute of each pair.

    An ellipse is an attribute that stands before the position; the partner's is thick. A region shows the held-out
    accuracy of a P-probe of the first token, hatched if there is none yet; regions of sets that no entry can have stay
    empty. Returns `None` if no cell is a P-probe of couple data.
    """
    table = [row for row in rows(results, ("p_probe",)) if row.replicates["p_probe"].params.get("corpus.couple")]
    if not table:
        return None
    deep = TITLE + ABOVE + HIGH + BELOW
    width, height = WIDE * len(PARTNERS), deep * len(table)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for r, row in enumerate(table):
            top = height - deep * r
            figure.text(0.12 / width, (top - 0.05) / height, row.name, fontsize=11, fontweight="bold", va="top")
            for c, target in enumerate(PARTNERS):
                bottom = top - TITLE - ABOVE - HIGH
                box = (WIDE * c / width, bottom / height, WIDE / width, HIGH / height)
                _diagram(figure.add_axes(box), row, target)
        return Plot(figure, "Set diagrams: accuracy of P-probes by the attributes seen before")


def _diagram(axes: Axes, row: Row, target: str) -> None:
    one, other = (second for second in PARTNERS if second != target)
    # In this order, the region of every possible set is connected.
    around = (PARTNERS[target], one, PARTNERS[one], PARTNERS[other], other)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-AROUND, AROUND)
    axes.set_ylim(-AROUND * HIGH / WIDE, AROUND * HIGH / WIDE)
    possible = [chosen for kind in tables.sets(target).values() for chosen in kind]
    measured = {chosen: row.measured("p_probe", p_probe_after("first", chosen, target)) for chosen in possible}
    for chosen, value in measured.items():
        if chosen:
            region = venn.regions()[sum(1 << around.index(name) for name in chosen)]
            _filled(axes, region.path, region.place, value)
    left, bottom, wide, high = CORNER
    corner = Path.unit_rectangle().transformed(Affine2D().scale(wide, high).translate(left, bottom))
    _filled(axes, corner, (left + wide / 2, bottom + high / 2), measured[()])
    axes.text(left, bottom - 0.03, SET_TITLES["nothing"], va="top", fontsize=7.5, color=MUTED)
    for k, name in enumerate(around):
        _ellipse(axes, k, name, partner=name == PARTNERS[target])
    if not row.replicates["p_probe"].done:
        stated(axes, 0, 0, row.state("p_probe"), side="center")
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
    """Writes the title above, and our ranges, the paper's and the number of people below."""

    def write(x: float, line: int, text: str, **style: Any) -> None:
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(text, (x, line > 0), (0, 13 * line - 13 * (line <= 0)), ha="center", **place, **style)

    write(0.5, 1, f"{target.replace('_', ' ')}, by what was seen", fontweight="bold")
    lines: dict[str, Sequence[str]] = {"": tuple(SET_TITLES.values())}
    lines["ours"] = [
        _range([v for chosen in kind if (v := measured[chosen]) is not None]) for kind in tables.sets(target).values()
    ]
    if theirs := _published(row.setting, target):
        lines["the paper"] = theirs
    for line, (who, texts) in enumerate(lines.items()):
        for x, text in zip((0.12, 0.34, 0.6, 0.86), (who, *texts), strict=True):
            write(x, -line, text, fontsize=8, color=INK if line and x > 0.12 else MUTED)
    counts = [
        n for chosen in measured if (n := row.count("p_probe", p_probe_after("first", chosen, target))) is not None
    ]
    if counts:
        write(0.5, -len(lines), f"n = {span(counts)} per number", fontsize=8, color=MUTED)


def _range(values: Sequence[float]) -> str:
    low, high = (percent(bound) for bound in ((min(values), max(values)) if values else (None, None)))
    return low if low == high else f"{low}\N{EN DASH}{high}"


def _published(setting: str, target: str) -> list[str]:
    """The paper's range by kind of set, read off its pictures; empty for a setting that it does not have."""
    ranges = {n.metric: n.reported_range or (n.value, n.value) for n in tables.numbers("fig15") if n.row == setting}
    kinds = [
        [ranges.get(p_probe_after("first", chosen, target), ()) for chosen in kind]
        for kind in tables.sets(target).values()
    ]
    return [_range([bound for bounds in kind for bound in bounds]) for kind in kinds] if ranges else []
