"""The figure of probes: heat maps of what can be read off a name, and off each position of a biography."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import heat_map
from analysis.cells import Results
from analysis.drawing import Plot
from analysis.heat_map import NARROW, Entry, Group, Line, Panel
from analysis.names import (
    ACCURACY,
    ATTRIBUTES,
    OFS,
    POSITIONS,
    PREDICTED,
    PROBES,
    majority,
    of_attributes,
    p_probe,
    q_probe,
)
from analysis.number import BASELINE
from analysis.percent import span
from analysis.rows import Row, baseline, groups, holding, published, rows

SHORT = {
    "birth_date": "birth\nmonth",
    "birth_city": "birth\ncity",
    "university": "univ.",
    "company": "comp.",
    "company_city": "comp.\ncity",
}


@dataclass(frozen=True)
class Square:
    """One column of a panel."""

    metric: str
    baseline: str
    attribute: str
    position: int | None = None


def draw(results: Results, paper: pd.DataFrame | None = None) -> Plot:
    """Q-probes, P-probes of the first token and of the whole attribute, each beside or above the paper's.

    Cells that should have a number and have none are hatched; attributes already passed at a position are blank.
    """
    table = rows(results, PROBES)
    kinds = groups(table)
    lines: list[list[Panel]] = []
    if "q_probe" in kinds:
        shown = {
            PREDICTED[of]: [Square(q_probe(of, a), majority("q_probe", of, a), a) for a in of_attributes(of)]
            for of in OFS
        }
        # A Q-probe's two maps fit beside each other, a P-probe's stand one above the other.
        lines.append(_both("Q-probe", "q_probe", shown, table, paper))
    for of in OFS if "p_probe" in kinds else ():
        shown = {
            f"position {i}": [Square(p_probe(of, i, a), majority("p_probe", of, a), a, i) for a in of_attributes(of)]
            for i in POSITIONS
        }
        lines += [[panel] for panel in _both(f"P-probe, {PREDICTED[of]}", "p_probe", shown, table, paper)]
    described = f"Heat maps of probes: {ACCURACY}, by setting, attribute and position"
    return heat_map.draw(lines, described, cell=NARROW)


def _both(
    title: str, kind: str, shown: Mapping[str, Sequence[Square]], table: Sequence[Row], paper: pd.DataFrame | None
) -> list[Panel]:
    """Ours, and the paper's numbers for our settings where it has some."""
    mine = [row for row in table if kind in row.folds]
    metrics = [square.metric for squares in shown.values() for square in squares]
    counts = [count for row in mine for name in metrics if (count := row.count(kind, name)) is not None]
    label = ACCURACY + (f", n = {span(counts)} per number" if counts else "")
    panels = [_panel(title, label, kind, shown, mine, None)]
    theirs = holding(paper, metrics)
    if theirs is not None and any(row.setting in theirs.index for row in mine):
        panels.append(_panel(f"{title}: the paper", ACCURACY, kind, shown, mine, theirs))
    return panels


def _panel(
    title: str,
    note: str,
    kind: str,
    shown: Mapping[str, Sequence[Square]],
    table: Sequence[Row],
    paper: pd.DataFrame | None,
) -> Panel:
    columns = tuple(
        Group(heading, tuple(SHORT.get(s.attribute, s.attribute) for s in squares), (1.0,) * len(squares))
        for heading, squares in shown.items()
    )

    def entry(row: Row | None, square: Square) -> Entry | None:
        if paper is not None:
            value = published(paper, row.setting if row else BASELINE, square.metric)
        else:
            value = row.measured(kind, square.metric) if row else baseline(table, square.baseline, (kind,))
        return None if value is None and row and _passed(row, square) else Entry(value)

    lines = []
    for row in (None, *table):
        entries = tuple(tuple(entry(row, square) for square in squares) for squares in shown.values())
        state = row.state(kind) if row and paper is None and not row.folds[kind].done else ""
        states = (state, *[""] * (len(shown) - 1))
        name = "majority baseline" if row is None else row.name if paper is None else row.setting
        lines.append(Line(name, entries, states, quiet=row is None))
    return Panel(title, note, columns, tuple(lines))


def _passed(row: Row, column: Square) -> bool:
    """Whether the attribute stands before the position in every entry, so that there is nothing to predict."""
    if column.position is None:
        return False
    axes = row.folds["p_probe"].params
    shuffled = axes.get("corpus.permute") or axes.get("corpus.couple") or axes.get("corpus.kind", "bioS") != "bioS"
    return not shuffled and ATTRIBUTES.index(column.attribute) < column.position
