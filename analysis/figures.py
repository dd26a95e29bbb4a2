"""Figures: which ones a set of results has, under which names; the command line needs to know no kind of readout."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import figure, probe_figure, seen_figure
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
    results: Results, paper: pd.DataFrame | None = None, *, question: str = "", best_of: Sequence[str] = ()
) -> tuple[Drawing, ...]:
    """All figures that these results have, at least one: answers, probes, and probes by what was seen before.

    `paper` is `analysis.paper.beside(...)`; `question` becomes the first caption.
    """
    kinds = {group(cell.params) for cell in results.cells}
    found: list[Drawing] = []
    if kinds & set(QUESTIONS) or not kinds:
        caption = "Answers about people who were never asked about, by setting and attribute."
        found.append(Drawing("figure", question or caption, figure.draw(results, paper, best_of=best_of)))
    if kinds & set(PROBES):
        caption = (
            "What a linear probe predicts about held-out people: from the name alone (Q-probe), and from the token "
            "before the i-th attribute of a biography (P-probe). Hatched: no number, because the readout has none yet "
            "or because a class has too few people. Blank: the attribute has been passed."
        )
        told = f"{question} {caption}" if question and not found else caption
        found.append(Drawing("probes", told, probe_figure.draw(results, paper)))
    if (svg := seen_figure.closer(results)) is not None:
        caption = (
            "P-probes by the attributes that stand before the position: where one attribute gives another away, "
            "having seen it makes the difference. Blank: no entry shows this set."
        )
        found.append(Drawing("seen", caption, svg))
    return tuple(found)
