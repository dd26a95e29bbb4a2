"""Figures of probes: heat maps of what a linear probe reads off a name, and off each position of a biography."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures import heat_map
from analysis.figures.drawing import Plot
from analysis.figures.heat_map import NARROW, Entry, Group, Line, Panel
from analysis.measurements.cells import Results
from analysis.measurements.names import (
    ACCURACY,
    PROBE_TARGETS,
    PROBES,
    TARGET_TITLES,
    majority,
    p_probe,
    probed_attributes,
    q_probe,
)
from analysis.measurements.table_rows import (
    Row,
    attributes,
    baseline,
    column_groups,
    published,
    rows,
    with_any_column,
)
from analysis.paper.paper_value import BASELINE
from analysis.presentation.number_format import span

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


def draw_probes(results: Results, paper: pd.DataFrame | None = None) -> Plot:
    """Draws Q-probes and P-probes of the first token and of the whole attribute, each beside or above the paper's.

    Missing numbers are hatched; attributes already passed at a position are blank.
    """
    table = rows(results, PROBES)
    kinds, asked = column_groups(table), attributes(table)
    lines: list[list[Panel]] = []
    if "q_probe" in kinds:
        shown = {
            TARGET_TITLES[of]: [
                Square(q_probe(of, a), majority("q_probe", of, a), a) for a in probed_attributes(of, asked)
            ]
            for of in PROBE_TARGETS
        }
        # Both maps of Q-probes fit beside each other; those of P-probes are stacked.
        lines.append(_both("Q-probe", "q_probe", shown, table, paper))
    for of in PROBE_TARGETS if "p_probe" in kinds else ():
        shown = {
            f"position {i}": [
                Square(p_probe(of, i, a), majority("p_probe", of, a), a, i) for a in probed_attributes(of, asked)
            ]
            # Position i is right before the i-th attribute of an entry.
            for i in range(len(asked))
        }
        lines += [[panel] for panel in _both(f"P-probe, {TARGET_TITLES[of]}", "p_probe", shown, table, paper)]
    described = f"Heat maps of probes: {ACCURACY}, by setting, attribute and position"
    return heat_map.draw_heat_maps(lines, described, cell=NARROW)


def _both(
    title: str, kind: str, shown: Mapping[str, Sequence[Square]], table: Sequence[Row], paper: pd.DataFrame | None
) -> list[Panel]:
    """Our panel, and the paper's if it has numbers for our settings."""
    mine = [row for row in table if kind in row.replicates]
    metrics = [square.metric for squares in shown.values() for square in squares]
    counts = [count for row in mine for name in metrics if (count := row.count(kind, name)) is not None]
    label = ACCURACY + (f", n = {span(counts)} per number" if counts else "")
    panels = [_panel(title, label, kind, shown, mine, None)]
    theirs = with_any_column(paper, metrics)
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
        Group(
            heading,
            tuple(SHORT.get(s.attribute, s.attribute.replace("_", "\n")) for s in squares),
            (1.0,) * len(squares),
        )
        for heading, squares in shown.items()
    )

    def entry(row: Row | None, square: Square) -> Entry | None:
        if paper is not None:
            value = published(paper, row.setting if row else BASELINE, square.metric)
        else:
            value = row.measured(kind, square.metric) if row else baseline(table, square.baseline, (kind,))
        absent = row is not None and (not row.asks(square.attribute) or _passed(row, square))
        return None if value is None and absent else Entry(value)

    lines = []
    for row in (None, *table):
        entries = tuple(tuple(entry(row, square) for square in squares) for squares in shown.values())
        state = row.state(kind) if row and paper is None and not row.replicates[kind].done else ""
        states = (state, *[""] * (len(shown) - 1))
        name = "majority baseline" if row is None else row.name if paper is None else row.setting
        lines.append(Line(name, entries, states, quiet=row is None))
    return Panel(title, note, columns, tuple(lines))


def _passed(row: Row, column: Square) -> bool:
    """Whether every entry has the attribute before the position, so that there is nothing to predict."""
    if column.position is None:
        return False
    axes = row.replicates["p_probe"].params
    shuffled = axes.get("corpus.permute") or axes.get("corpus.couple") or axes.get("corpus.kind", "bioS") != "bioS"
    if column.attribute not in row.attributes:
        # A row without numbers does not tell which attributes its people have.
        return False
    place = row.attributes.index(column.attribute)
    return column.position >= len(row.attributes) or (not shuffled and place < column.position)
