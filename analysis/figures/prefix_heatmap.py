"""Heat maps of P-probes: accuracy on an attribute, by the set of attributes that stands before the position."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.drawing import FAINT, INK, MUTED, STYLE, Plot, square
from analysis.measurements.cells import Results
from analysis.measurements.names import (
    ACCURACY,
    ATTRIBUTES,
    PROBE_TARGETS,
    TARGET_TITLES,
    ProbeTarget,
    in_order,
    p_probe_after,
)
from analysis.measurements.table_rows import Row, attributes, rows

SECONDS = ("birth_city", "major", "company_city")
"""The second attribute of each coupled pair; the first one gives it away."""
MOST_SETS = 128
"""Sets of attributes that a map has room for: those of eight attributes in any order. Each further one doubles them."""
CELL, LINE, DOT = 0.46, 0.4, 0.17
"""Width and height of a cell, and height of a line of dots, in inches."""
ProbedRow = tuple[Row, ProbeTarget]


def draw_prefix_heatmaps(results: Results, targets: Sequence[str] = SECONDS) -> Plot | None:
    """Draws one heat map for each target and each attribute besides the six, with a column for each set of attributes
    seen before (dots) and n below values.

    Returns `None` if no cell recorded such accuracies, or each of more than `MOST_SETS` sets.
    """
    table = [row for row in rows(results, ("p_probe",)) if row.replicates["p_probe"].done]
    asked = attributes(table)
    drawn = (*targets, *asked[len(ATTRIBUTES) :])
    panels = [
        (attribute, lines, sets)
        for attribute in drawn
        if (lines := _having(table, attribute)) and len(sets := _sets(lines, attribute)) <= MOST_SETS
    ]
    if not panels:
        return None
    margin = 0.3 + 0.068 * max(len(_name(line)) for _, lines, _ in panels for line in lines)
    width = margin + max(5.6, CELL * max(len(sets) for _, _, sets in panels)) + 0.1
    above = 0.5 + DOT * (len(asked) - 1)
    heights = [above + LINE * len(lines) + 0.35 for _, lines, _ in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights)))
        top = 0.0
        for (attribute, lines, sets), height in zip(panels, heights, strict=True):
            bottom = sum(heights) - top - above - LINE * len(lines)
            box = (margin / width, bottom / sum(heights), CELL * len(sets) / width, LINE * len(lines) / sum(heights))
            _panel(figure.add_axes(box), attribute, [name for name in asked if name != attribute], lines, sets)
            top += height
        return Plot(figure, f"Heat maps of P-probes: {ACCURACY}, by the attributes seen before")


def _panel(
    axes: Axes, attribute: str, others: Sequence[str], lines: Sequence[ProbedRow], sets: Sequence[tuple[str, ...]]
) -> None:
    """One unit is a cell; y grows downwards, and the dots stand above 0."""
    step = DOT / LINE
    title = f"P-probe of {attribute.replace('_', ' ')}, by the attributes seen before (dots): {ACCURACY}, n below"
    axes.text(0, -step * len(others) - 0.45, title, fontsize=10, fontweight="bold", va="bottom")
    for k, name in enumerate(others):
        y = -step * (len(others) - k - 0.5) - 0.15
        axes.text(-0.25, y, name.replace("_", " "), ha="right", va="center", color=MUTED, fontsize=8)
        for c, chosen in enumerate(sets):
            colour = INK if name in chosen else FAINT
            axes.plot(c + 0.5, y, "o", ms=5 if name in chosen else 2.5, color=colour, mec="none", clip_on=False)
    for r, (row, target) in enumerate(lines):
        axes.text(-0.25, r + 0.5, _name((row, target)), ha="right", va="center")
        for c, chosen in enumerate(sets):
            metric = p_probe_after(target, chosen, attribute)
            value, n = row.measured("p_probe", metric), row.count("p_probe", metric)
            # No hatching: a set without a value never occurs in this setting's entries.
            if value is not None:
                square(axes, c, r, value, below=f"{n:,}" if n is not None else None)
    axes.set_xlim(0, len(sets))
    axes.set_ylim(len(lines), 0)
    axes.set_axis_off()


def _having(table: Sequence[Row], attribute: str) -> list[ProbedRow]:
    return [(row, target) for row in table for target in PROBE_TARGETS if _recorded(row, target, attribute)]


def _recorded(row: Row, target: ProbeTarget, attribute: str) -> set[tuple[str, ...]]:
    """The sets of attributes by which the row splits its accuracy on the attribute."""
    prefix, suffix = p_probe_after(target, (), "").removesuffix("none/"), f"/{attribute}"
    names = [name for name in row.replicates["p_probe"].metrics if name.startswith(prefix) and name.endswith(suffix)]
    sets = [name[len(prefix) : -len(suffix)] for name in names]
    return {() if text == "none" else tuple(text.split("-")) for text in sets}


def _sets(lines: Sequence[ProbedRow], attribute: str) -> list[tuple[str, ...]]:
    """All recorded sets, the smaller first, then in the order of the attributes."""
    recorded = {chosen for row, target in lines for chosen in _recorded(row, target, attribute)}
    places = {name: k for k, name in enumerate(in_order(name for chosen in recorded for name in chosen))}
    return sorted(recorded, key=lambda chosen: (len(chosen), [places[name] for name in chosen]))


def _name(line: ProbedRow) -> str:
    return f"{line[0].name}, {TARGET_TITLES[line[1]]}"
