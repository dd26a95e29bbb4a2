"""The closer probe: how well an attribute is predicted, by which other attributes stand before the position."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import Results
from analysis.drawing import FAINT, INK, MUTED, STYLE, Plot, square
from analysis.names import ACCURACY, ATTRIBUTES, OFS, PREDICTED, Of, seen
from analysis.rows import Row, rows

TARGETS = ("birth_city", "major", "company_city")
"""The second attribute of each pair of coupled ones, which the first one gives away."""
CELL, LINE, DOT = 0.46, 0.4, 0.17
"""Width and height of a cell, and height of a line of dots, in inches."""
Line = tuple[Row, Of]


def closer(results: Results, targets: Sequence[str] = TARGETS) -> Plot | None:
    """One heat map per target: a column for each set of attributes seen before, marked by dots; n below each value.

    `None` where no cell recorded this.
    """
    table = [row for row in rows(results, ("p_probe",)) if row.folds["p_probe"].done]
    panels = [(target, lines, _sets(lines, target)) for target in targets if (lines := _having(table, target))]
    if not panels:
        return None
    margin = 0.3 + 0.068 * max(len(_name(line)) for _, lines, _ in panels for line in lines)
    width = margin + max(5.6, CELL * max(len(sets) for _, _, sets in panels)) + 0.1
    above = 0.5 + DOT * (len(ATTRIBUTES) - 1)
    heights = [above + LINE * len(lines) + 0.35 for _, lines, _ in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights)))
        top = 0.0
        for (target, lines, sets), height in zip(panels, heights, strict=True):
            bottom = sum(heights) - top - above - LINE * len(lines)
            box = (margin / width, bottom / sum(heights), CELL * len(sets) / width, LINE * len(lines) / sum(heights))
            _panel(figure.add_axes(box), target, lines, sets)
            top += height
        return Plot(figure, f"Heat maps of P-probes: {ACCURACY}, by the attributes seen before")


def _panel(axes: Axes, target: str, lines: Sequence[Line], sets: Sequence[tuple[str, ...]]) -> None:
    """One unit is a cell; y grows downwards, and the dots stand above 0."""
    others = [name for name in ATTRIBUTES if name != target]
    step = DOT / LINE
    title = f"P-probe of {target.replace('_', ' ')}, by the attributes seen before (dots): {ACCURACY}, n below"
    axes.text(0, -step * len(others) - 0.45, title, fontsize=10, fontweight="bold", va="bottom")
    for k, name in enumerate(others):
        y = -step * (len(others) - k - 0.5) - 0.15
        axes.text(-0.25, y, name.replace("_", " "), ha="right", va="center", color=MUTED, fontsize=8)
        for c, chosen in enumerate(sets):
            colour = INK if name in chosen else FAINT
            axes.plot(c + 0.5, y, "o", ms=5 if name in chosen else 2.5, color=colour, mec="none", clip_on=False)
    for r, (row, of) in enumerate(lines):
        axes.text(-0.25, r + 0.5, _name((row, of)), ha="right", va="center")
        for c, chosen in enumerate(sets):
            metric = seen(of, chosen, target)
            value, n = row.measured("p_probe", metric), row.count("p_probe", metric)
            # A set that no entry of this setting shows is no gap.
            if value is not None:
                square(axes, c, r, value, below=f"{n:,}" if n is not None else None)
    axes.set_xlim(0, len(sets))
    axes.set_ylim(len(lines), 0)
    axes.set_axis_off()


def _having(table: Sequence[Row], target: str) -> list[Line]:
    return [(row, of) for row in table for of in OFS if _recorded(row, of, target)]


def _recorded(row: Row, of: Of, target: str) -> set[tuple[str, ...]]:
    """The sets of attributes by which the row's accuracy on the target is split."""
    prefix, suffix = seen(of, (), "").removesuffix("none/"), f"/{target}"
    names = [name for name in row.folds["p_probe"].metrics if name.startswith(prefix) and name.endswith(suffix)]
    sets = [name[len(prefix) : -len(suffix)] for name in names]
    return {() if text == "none" else tuple(text.split("-")) for text in sets}


def _sets(lines: Sequence[Line], target: str) -> list[tuple[str, ...]]:
    """Every set that occurs: the smaller first, and sets of one size in the order of the attributes."""
    found = {chosen for row, of in lines for chosen in _recorded(row, of, target)}
    return sorted(found, key=lambda chosen: (len(chosen), [ATTRIBUTES.index(name) for name in chosen]))


def _name(line: Line) -> str:
    return f"{line[0].name}, {PREDICTED[line[1]]}"
