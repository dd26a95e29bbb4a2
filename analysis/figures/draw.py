"""Chooses, names and captions the figures of a set of results, so that callers need to know no kind of readout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.figures import (
    answer_bars,
    curve_figure,
    kind_map,
    loss_figure,
    pair_sets,
    paper_figure,
    prefix_heatmap,
    probe_figure,
)
from analysis.figures.drawing import Plot
from analysis.measurements.cells import Results
from analysis.measurements.curves import mean_over_seeds
from analysis.measurements.names import LEARNING, PROBES, QUESTIONS
from analysis.measurements.probe_updates import confined_note
from analysis.measurements.table_rows import column_group, rows
from analysis.measurements.tidy_frame import tidy
from analysis.paper.comparison import Comparison
from analysis.presentation.section import Picture, Section

COVERED = 1 / 3
"""Smallest share of a paper figure's rows that a sweep must plan; below it, the sweep's own figure is drawn instead."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One figure and the numbers that it shows."""

    name: str
    """Stem of its files; for a figure of the paper its name, such as `fig12a`."""
    caption: str
    """Text below it in the report."""
    plot: Plot
    data: pd.DataFrame
    """The numbers that it shows, one per line."""

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
        """Names of the files that `write` writes."""
        return f"{self.name}.svg", f"{self.name}.png", f"{self.name}.csv"

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write `<name>.svg`, `.png` and `.csv` into an existing folder; returns their paths."""
        svg, png, csv = (folder / name for name in self.files)
        svg.write_text(self.svg, "utf-8")
        png.write_bytes(self.png)
        csv.write_text(self.csv, "utf-8")
        return svg, png, csv


def draw_figures(
    results: Results,
    paper: pd.DataFrame | None = None,
    *,
    question: str = "",
    best_of: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    curves: pd.DataFrame | None = None,
) -> tuple[Drawing, ...]:
    """Draws all figures that these results support, at least one.

    The paper's figures (`comparisons`, of `comparison.compare(...)`) come first. Cells outside them get the general
    figures: answers, probes, and probes by prefix. Learning curves and set diagrams cover all cells and come last.
    `paper` is `tables.beside(...)`, `curves` is `curves.read_curves(...)`; `question` starts the first caption.
    """
    drawings: list[Drawing] = []
    drawn: set[str] = set()
    for one in comparisons:
        if one.counts.planned < COVERED * one.counts.printed or (plot := paper_figure.draw_comparison(one)) is None:
            continue
        caption = " ".join([*([question] if question and not drawings else []), f"{one.source}.", *one.remarks()])
        drawings.append(Drawing(one.figure, caption, plot, one.frame()))
        drawn |= one.keys
    rest = replace(results, cells=tuple(cell for cell in results.cells if cell.key not in drawn))
    if rest.cells or not drawings:
        drawings += _general_figures(rest, paper, question="" if drawings else question, best_of=best_of)
    if curves is not None and (lines := curve_figure.draw_curves(results, curves, best_of=best_of)) is not None:
        caption = (
            "Learning curves of mixed training: accuracy on people whose questions are trained on (in distribution) "
            "and on people never asked about (out of distribution), whose biographies are read like all others."
        )
        drawings.append(
            Drawing("curves", caption, lines, mean_over_seeds(curves[curves["metric"].isin(list(LEARNING))]))
        )
    if (sets := pair_sets.draw_pair_sets(results)) is not None:
        caption = (
            "P-probes of the first token in couple data, whose biographies are ordered pairs: the accuracy on the "
            "second attribute of a pair, by the set of attributes that stands before the position. Ellipses are "
            "attributes, the thick one the partner. Hatched: no number yet. Empty: no entry shows this set. The "
            "paper's ranges are read off the pictures of its Figures 6 and 15."
        )
        # Figure 15 has all of Figure 6.
        compared = {one.figure: one for one in comparisons}
        beside = compared.get("fig15") or compared.get("fig6")
        name, data = (beside.figure, beside.frame()) if beside else ("sets", _accuracy_by_prefix(results))
        drawings.append(Drawing(name, caption, sets, data))
    if curves is not None and (lines := loss_figure.draw_losses(curves)) is not None:
        caption = "How each network learned the biographies; settings that share a pretraining share a line."
        drawings.append(Drawing("loss", caption, lines, loss_figure.losses(curves)))
    return tuple(drawings)


def sections(drawings: Sequence[Drawing], comparisons: Sequence[Comparison]) -> tuple[Section, ...]:
    """Returns the page's sections: first the drawings outside the paper, then one section per figure of the paper."""
    named = {one.figure for one in comparisons}
    own = tuple(_picture(drawing) for drawing in drawings if drawing.name not in named)
    made = [Section("", own)] if own else []
    for one in comparisons:
        pictures = tuple(_picture(drawing) for drawing in drawings if drawing.name == one.figure)
        made.append(Section(one.title, pictures, one.sheets(), " ".join((*one.remarks(), *one.agreement()))))
    return tuple(made)


def _general_figures(
    results: Results, paper: pd.DataFrame | None, *, question: str, best_of: Sequence[str]
) -> list[Drawing]:
    """Figures that any sweep can have, whether or not the paper has them."""
    kinds = {column_group(cell.params) for cell in results.cells}
    drawings: list[Drawing] = []
    if kinds & set(QUESTIONS) or not kinds:
        caption = "Answers about people never asked about, by setting and attribute."
        answers = answer_bars.draw_answers(results, paper, best_of=best_of)
        drawings.append(Drawing("figure", question or caption, answers, tidy(rows(results, best_of=best_of))))
    if kinds & set(PROBES):
        caption = (
            "What a linear probe predicts about held-out people: from the name alone (Q-probe), and from the token "
            "before the i-th attribute of a biography (P-probe). Hatched: no number, because the readout has none yet "
            "or because a class has too few people. Blank: the attribute has been passed."
        )
        caption = f"{question} {caption}" if question and not drawings else caption
        caption = f"{caption} {confined_note(results.cells)}".strip()
        drawings.append(
            Drawing("probes", caption, probe_figure.draw_probes(results, paper), tidy(rows(results, PROBES)))
        )
    if (by_prefix := prefix_heatmap.draw_prefix_heatmaps(results)) is not None:
        caption = (
            "P-probes by the attributes that stand before the position: where one attribute gives another away, "
            "having seen it makes the difference. Blank: no entry shows this set."
        )
        drawings.append(Drawing("seen", caption, by_prefix, _accuracy_by_prefix(results)))
    for kind in results.other_kinds:
        if (plot := kind_map.draw_kind(results, kind)) is not None:
            caption = f"{kind.title}: {kind.label}, by setting."
            caption = f"{question} {caption}" if question and not drawings else caption
            drawings.append(Drawing(kind.name, caption, plot, tidy(rows(results, (kind.name,)))))
    return drawings


def _accuracy_by_prefix(results: Results) -> pd.DataFrame:
    probed = tidy(rows(results, ("p_probe",)))
    return probed[probed["metric"].str.startswith("p_probe/seen/")]


def _picture(drawing: Drawing) -> Picture:
    return Picture(drawing.caption, drawing.svg, drawing.files)
