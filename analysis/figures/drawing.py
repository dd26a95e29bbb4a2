"""Colours, the cell of a heat map, and output formats that all figures share."""

import io
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.presentation.number_format import percent

INK, MUTED, FAINT, PAGE = "#1f2933", "#65707c", "#c9d0d8", "#fffffe"
"""Text, lines and ground; the report replaces exactly these with its own colours, so that they follow a dark theme."""
SEQUENTIAL = LinearSegmentedColormap.from_list("exact", ["#eef3f8", "#a9cbe6", "#4a93c8", "#0b5394", "#08305c"])
COLOURS = ("#8e9aa6", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's colour-blind-safe set after a grey for the first setting of a plan, to which others are compared."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "analysis",
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": MUTED,
    "hatch.linewidth": 0.7,
    "hatch.color": MUTED,
}


def square(
    axes: Axes,
    x: float,
    y: float,
    value: float | None,
    *,
    bold: bool = False,
    below: str | None = None,
    text: str | None = None,
    width: float = 1,
    size: float = 8,
) -> None:
    """Draws a cell coloured by `value`, with its number (or `text`) and a second line; hatched if `value` is `None`."""
    if value is None:
        axes.add_patch(
            Rectangle((x, y), width, 1, facecolor="none", edgecolor=FAINT, hatch="////", linewidth=0.6, clip_on=False)
        )
        return
    colour = SEQUENTIAL(value)
    # White lines between cells would glare on a dark page; a thin transparent gap suits both themes.
    corner = (x + 0.015, y + 0.03)
    axes.add_patch(Rectangle(corner, width - 0.03, 0.94, facecolor=colour, edgecolor="none", clip_on=False))
    style: Any = {"ha": "center", "va": "center", "color": legible(colour)}
    weight = "bold" if bold else "normal"
    middle, height = x + width / 2, y + (0.33 if below else 0.52)
    axes.text(middle, height, text or percent(value), fontsize=size, fontweight=weight, **style)
    if below:
        axes.text(middle, y + 0.73, below, fontsize=size - 1.5, **style)


def stated(axes: Axes, x: float, y: float, state: str, *, side: Literal["left", "center"] = "left") -> None:
    """Writes the reason for missing numbers over the hatching; the text starts or is centred at `x`."""
    box = {"facecolor": PAGE, "edgecolor": "none", "pad": 2}
    axes.text(x, y, brief(state), ha=side, va="center", fontsize=8, color=MUTED, bbox=box)


def brief(state: str) -> str:
    """A state shortened for a figure; tables show all of it."""
    return textwrap.shorten(state, 48, placeholder=" …")


@dataclass(frozen=True, eq=False)
class Plot:
    """A drawn figure that can be written repeatedly, in several formats."""

    figure: Figure
    description: str

    @property
    def svg(self) -> str:
        """As SVG with a transparent ground."""
        return svg(self.figure, self.description)

    @property
    def png(self) -> bytes:
        """As PNG at 200 dots per inch, on a light ground."""
        out = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(out, format="png", dpi=200, facecolor=PAGE, metadata={"Title": self.description})
        return out.getvalue()


def svg(figure: Figure, description: str) -> str:
    """The figure as SVG; equal figures give equal text."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Title": description})
    return out.getvalue()


def legible(colour: tuple[float, float, float, float]) -> str:
    """The text colour for a ground: dark on light, white on dark."""
    return "#101820" if _luminance(colour) > 0.2 else "#ffffff"


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Relative luminance as WCAG 2 defines it; black and white are about equally legible on 0.18."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
