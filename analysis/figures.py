"""Figures: which ones a set of results has, under which names; the command line needs to know no kind of readout."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis import curve_figure, figure, paper_figure, probe_figure, seen_figure, set_figure
from analysis.cells import Results
from analysis.comparison import Comparison
from analysis.drawing import Plot
from analysis.learning import folded
from analysis.names import LEARNING, PROBES, QUESTIONS
from analysis.rows import group, rows, tidy
from analysis.section import Picture, Section

COVERED = 1 / 3
"""A sweep with a smaller share of a figure's rows does not regenerate it: its own figure is drawn instead."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One figure with its numbers."""

    name: str
    """Stem of its files; a figure of the paper has its name, such as `fig12a`."""
    caption: str
    """What stands below it in the report."""
    plot: Plot
    data: pd.DataFrame
    """The numbers that it shows, one to a line."""

    @cached_property
    def svg(self) -> str:
        """As SVG."""
        return self.plot.svg

    @property
    def png(self) -> bytes:
        """As PNG."""
        return self.plot.png

    @property
    def csv(self) -> str:
        """Its numbers as CSV."""
        return str(self.data.to_csv(index=False))

    @property
    def files(self) -> tuple[str, str, str]:
        """The names under which `write` writes it."""
        return f"{self.name}.svg", f"{self.name}.png", f"{self.name}.csv"

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write `<name>.svg`, `.png` and `.csv` into an existing folder; returns their paths."""
        svg, png, csv = (folder / name for name in self.files)
        svg.write_text(self.svg, "utf-8")
        png.write_bytes(self.png)
        csv.write_text(self.csv, "utf-8")
        return svg, png, csv


def draw(
    results: Results,
    paper: pd.DataFrame | None = None,
    *,
    question: str = "",
    best_of: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    curves: pd.DataFrame | None = None,
) -> tuple[Drawing, ...]:
    """All figures that these results have, at least one.

    Those of the paper come first, of `analysis.comparison.compare(...)`; cells that belong to none of them get the
    figures of any sweep: answers, probes, and probes by what was seen before. Learning curves and set diagrams, of all
    cells, come last. `paper` is `analysis.paper.beside(...)`, `curves` is `analysis.learning.read(...)`; `question`
    starts the first caption.
    """
    found: list[Drawing] = []
    drawn: set[str] = set()
    for one in comparisons:
        if one.counts.planned < COVERED * one.counts.printed or (plot := paper_figure.draw(one)) is None:
            continue
        caption = " ".join([*([question] if question and not found else []), f"{one.source}.", *one.remarks()])
        found.append(Drawing(one.figure, caption, plot, one.frame()))
        drawn |= one.keys
    rest = Results(results.sweep, tuple(cell for cell in results.cells if cell.key not in drawn))
    if rest.cells or not found:
        found += _own(rest, paper, question="" if found else question, best_of=best_of)
    if curves is not None and (lines := curve_figure.draw(results, curves, best_of=best_of)) is not None:
        caption = (
            "Learning curves of mixed training: accuracy on people whose questions are trained on (in distribution) "
            "and on people never asked about (out of distribution), whose biographies are read like all others."
        )
        found.append(Drawing("curves", caption, lines, folded(curves[curves["metric"].isin(list(LEARNING))])))
    if (sets := set_figure.draw(results)) is not None:
        caption = (
            "P-probes of the first token in couple data, whose biographies are ordered pairs: the accuracy on the "
            "second attribute of a pair, by the set of attributes that stands before the position. Ellipses are "
            "attributes, the thick one the partner. Hatched: no number yet. Empty: no entry shows this set. The "
            "paper's ranges are read off the pictures of its Figures 6 and 15."
        )
        # Figure 15 has all of Figure 6.
        compared = {one.figure: one for one in comparisons}
        beside = compared.get("fig15") or compared.get("fig6")
        name, data = (beside.figure, beside.frame()) if beside else ("sets", _seen(results))
        found.append(Drawing(name, caption, sets, data))
    return tuple(found)


def sections(drawings: Sequence[Drawing], comparisons: Sequence[Comparison]) -> tuple[Section, ...]:
    """For the page: what belongs to each figure of the paper, and before these whatever belongs to none."""
    named = {one.figure for one in comparisons}
    own = tuple(_picture(drawing) for drawing in drawings if drawing.name not in named)
    made = [Section("", own)] if own else []
    for one in comparisons:
        pictures = tuple(_picture(drawing) for drawing in drawings if drawing.name == one.figure)
        made.append(Section(one.title, pictures, one.sheets(), " ".join((*one.remarks(), *one.agreement()))))
    return tuple(made)


def _own(results: Results, paper: pd.DataFrame | None, *, question: str, best_of: Sequence[str]) -> list[Drawing]:
    """Figures of any sweep, whether the paper has them or not."""
    kinds = {group(cell.params) for cell in results.cells}
    found: list[Drawing] = []
    if kinds & set(QUESTIONS) or not kinds:
        caption = "Answers about people who were never asked about, by setting and attribute."
        answers = figure.draw(results, paper, best_of=best_of)
        found.append(Drawing("figure", question or caption, answers, tidy(rows(results, best_of=best_of))))
    if kinds & set(PROBES):
        caption = (
            "What a linear probe predicts about held-out people: from the name alone (Q-probe), and from the token "
            "before the i-th attribute of a biography (P-probe). Hatched: no number, because the readout has none yet "
            "or because a class has too few people. Blank: the attribute has been passed."
        )
        told = f"{question} {caption}" if question and not found else caption
        found.append(Drawing("probes", told, probe_figure.draw(results, paper), tidy(rows(results, PROBES))))
    if (closer := seen_figure.closer(results)) is not None:
        caption = (
            "P-probes by the attributes that stand before the position: where one attribute gives another away, "
            "having seen it makes the difference. Blank: no entry shows this set."
        )
        found.append(Drawing("seen", caption, closer, _seen(results)))
    return found


def _seen(results: Results) -> pd.DataFrame:
    probed = tidy(rows(results, ("p_probe",)))
    return probed[probed["metric"].str.startswith("p_probe/seen/")]


def _picture(drawing: Drawing) -> Picture:
    return Picture(drawing.caption, drawing.svg, drawing.files)
