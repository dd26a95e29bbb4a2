"""Heat maps: panels of settings x columns with a number in every cell."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.drawing import INK, MUTED, STYLE, Plot, square, stated

CELL, NARROW, LINE = 0.5, 0.36, 0.25
"""Width of a cell, of a cell in a wide map, and height of a cell, in inches."""
MEAN, GAP = 2.4, 0.5
"""Width of a mean with its interval, and the space between column groups, in cells."""
LETTER, NOTE, TITLE = 0.068, 0.066, 0.083
"""Width of a letter of a label, of a note and of a title, in inches."""
ABOVE, NOTED, BELOW, BETWEEN = 1.04, 0.17, 0.1, 0.5
"""Inches above a panel for its headings, for a line of its note, below it, and between panels beside each other."""
ALONE = 8.0
"""Width, in inches, for title and note of a panel that stands alone."""


@dataclass(frozen=True)
class Entry:
    """One cell: a fraction of 1, or `None` for a missing number, and the text if it is not the number alone."""

    value: float | None
    text: str | None = None
    bold: bool = False


@dataclass(frozen=True)
class Group:
    """Columns under one heading, with their widths in cells."""

    heading: str
    labels: tuple[str, ...]
    widths: tuple[float, ...]

    @property
    def width(self) -> float:
        """In cells."""
        return sum(self.widths)


@dataclass(frozen=True)
class Line:
    """One setting: entries by group (`None` leaves a blank), and why numbers are missing."""

    label: str
    entries: tuple[tuple[Entry | None, ...], ...]
    states: tuple[str, ...] = ()
    """Texts over the groups' entries; empty ones are not drawn."""
    quiet: bool = False


@dataclass(frozen=True)
class Panel:
    """One heat map."""

    title: str
    note: str
    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    corner: str = ""
    """Header of the line labels, if they need one."""

    @property
    def width(self) -> float:
        """In cells."""
        return sum(group.width for group in self.groups) + GAP * (len(self.groups) - 1)


def draw_heat_maps(rows: Sequence[Sequence[Panel]], description: str, *, cell: float = CELL, size: float = 8) -> Plot:
    """Draws rows of panels; `cell` is the width of a cell in inches, `size` the font size of numbers in points.

    Only the first panel of a row has line labels, so all panels of a row must have the same lines.
    """
    labels = [line.label for row in rows for line in row[0].lines] + [row[0].corner for row in rows]
    margin = 0.4 + LETTER * max((len(label) for label in labels), default=0)
    widths = [[max(cell * p.width, TITLE * len(p.title), ALONE if len(row) == 1 else 0) for p in row] for row in rows]
    width = margin + max((sum(row) + BETWEEN * (len(row) - 1) for row in widths), default=0) + 0.1
    notes = [
        [textwrap.wrap(panel.note, int(inches / NOTE)) for panel, inches in zip(row, of, strict=True)]
        for row, of in zip(rows, widths, strict=True)
    ]
    deepest = [max(len(note) for note in row) for row in notes]
    above = [ABOVE + NOTED * count for count in deepest]
    heights = [up + LINE * max(len(panel.lines) for panel in row) + BELOW for row, up in zip(rows, above, strict=True)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights) or 1))
        top = 0.0
        for r, row in enumerate(rows):
            left = margin
            for k, panel in enumerate(row):
                inches = LINE * len(panel.lines)
                bottom = sum(heights) - top - above[r] - inches
                box = (left / width, bottom / sum(heights), cell * panel.width / width, inches / sum(heights))
                axes = figure.add_axes(box)
                _headed(axes, panel.title, notes[r][k], deepest[r])
                _panel(axes, panel, labelled=k == 0, size=size)
                left += widths[r][k] + BETWEEN
            top += heights[r]
        return Plot(figure, description)


def _headed(axes: Axes, title: str, note: Sequence[str], deepest: int) -> None:
    """Writes title and note above a panel; the deepest note of the row sets the height of all titles."""
    bottom = -3.2 - NOTED / LINE * deepest
    axes.text(0, bottom, title, fontsize=10, fontweight="bold", va="bottom")
    axes.text(0, bottom + 0.35, "\n".join(note), fontsize=8.5, va="top", color=MUTED, linespacing=1.15)


def _panel(axes: Axes, panel: Panel, *, labelled: bool, size: float) -> None:
    """One unit is a cell; y grows downwards."""
    axes.text(-0.3, -0.2, panel.corner if labelled else "", ha="right", va="bottom", fontsize=8, color=MUTED)
    start = 0.0
    for g, group in enumerate(panel.groups):
        axes.text(start, -1.75, group.heading, va="bottom")
        x = start
        for c, (label, width) in enumerate(zip(group.labels, group.widths, strict=True)):
            middle = x + width / 2
            axes.text(middle, -0.2, label, ha="center", va="bottom", fontsize=size - 0.5, linespacing=1.0)
            for r, line in enumerate(panel.lines):
                if (entry := line.entries[g][c]) is not None:
                    square(axes, x, r, entry.value, bold=entry.bold, text=entry.text, width=width, size=size)
            x += width
        for r, line in enumerate(panel.lines):
            if line.states and line.states[g]:
                stated(axes, start + 0.25, r + 0.52, line.states[g])
        start = x + GAP
    for r, line in enumerate(panel.lines if labelled else ()):
        axes.text(-0.3, r + 0.5, line.label, ha="right", va="center", color=MUTED if line.quiet else INK)
    axes.set_xlim(0, panel.width)
    axes.set_ylim(len(panel.lines), 0)
    axes.set_axis_off()
