"""Figures: which ones a set of results has, under which names; the command line needs to know no kind of readout."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import curve_figure, figure, probe_figure, seen_figure, set_figure
from analysis.cells import Results
from analysis.names import PROBES, QUESTIONS
from analysis.rows import group


@dataclass(frozen=True)
class Drawing:
    """One figure: the stem of its file, what stands below it in the report, and its SVG."""

    name: str
    caption: str
    svg: str


def draw(
    results: Results,
    paper: pd.DataFrame | None = None,
    *,
    question: str = "",
    best_of: Sequence[str] = (),
    curves: pd.DataFrame | None = None,
) -> tuple[Drawing, ...]:
    """All figures that these results have, at least one: answers, learning curves, probes, probes by what was seen.

    `paper` is `analysis.paper.beside(...)`, `curves` is `analysis.learning.read(...)`; `question` becomes the first
    caption.
    """
    kinds = {group(cell.params) for cell in results.cells}
    found: list[Drawing] = []
    if kinds & set(QUESTIONS) or not kinds:
        caption = "Answers about people who were never asked about, by setting and attribute."
        found.append(Drawing("figure", question or caption, figure.draw(results, paper, best_of=best_of)))
    if curves is not None and (svg := curve_figure.draw(results, curves, best_of=best_of)) is not None:
        caption = (
            "Learning curves of mixed training: accuracy on people whose questions are trained on (in distribution) "
            "and on people never asked about (out of distribution), whose biographies are read like all others."
        )
        found.append(Drawing("curves", caption, svg))
    if kinds & set(PROBES):
        caption = (
            "What a linear probe predicts about held-out people: from the name alone (Q-probe), and from the token "
            "before the i-th attribute of a biography (P-probe). Hatched: no number, because the readout has none yet "
            "or because a class has too few people. Blank: the attribute has been passed."
        )
        told = f"{question} {caption}" if question and not found else caption
        found.append(Drawing("probes", told, probe_figure.draw(results, paper)))
    if (svg := set_figure.draw(results)) is not None:
        caption = (
            "P-probes of the first token in couple data, whose biographies are ordered pairs: the accuracy on the "
            "second attribute of a pair, by the set of attributes that stands before the position. Ellipses are "
            "attributes, the thick one the partner. Hatched: no number yet. Empty: no entry shows this set. The "
            "paper's ranges are read off the pictures of its Figures 6 and 15."
        )
        found.append(Drawing("sets", caption, svg))
    if (svg := seen_figure.closer(results)) is not None:
        caption = (
            "P-probes by the attributes that stand before the position: where one attribute gives another away, "
            "having seen it makes the difference. Blank: no entry shows this set."
        )
        found.append(Drawing("seen", caption, svg))
    return tuple(found)
