"""Tables of probes: accuracy on held-out people by setting, for a console and for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from analysis.cells import Results
from analysis.names import (
    ACCURACY,
    ATTRIBUTES,
    HEADERS,
    OFS,
    PREDICTED,
    PROBES,
    RECALL,
    Of,
    majority,
    of_attributes,
    p_probe,
    q_probe,
)
from analysis.percent import percent, ranged
from analysis.rows import Row, baseline, groups, holding, published, rows
from analysis.section import Sheet

EXPLAINED = (
    "Accuracy of a linear probe on held-out people, in percent, with its 95 % interval; a mean is over the five "
    "attributes without the birth date."
)
UNKNOWN = "; it has none of a permuted setting's own position"


@dataclass(frozen=True)
class Column:
    """One number of a table: a metric, and how its column is headed."""

    header: str
    metric: str
    baseline: str
    mean: bool
    """Means have their interval, and the paper's number beside."""


def sheets(results: Results, paper: pd.DataFrame | None = None) -> tuple[Sheet, ...]:
    """One table for each kind of probe that there is and for what it predicts.

    `paper` is `analysis.paper.beside(...)`; its numbers stand beside the means.
    """
    table = rows(results, PROBES)
    return tuple(
        _sheet([row for row in table if kind in row.folds], kind, of, paper) for kind in groups(table) for of in OFS
    )


def rich_table(results: Results, paper: pd.DataFrame | None = None) -> Group:
    """The same tables for a console."""
    return Group(*(_rich(sheet) for sheet in sheets(results, paper)))


def _columns(kind: str, of: Of) -> list[Column]:
    guess = majority(kind, of, "mean")
    if kind == "p_probe":
        return [
            Column("position 0", p_probe(of, 0, "mean"), guess, True),
            Column("own", p_probe(of, "own", "mean"), guess, True),
        ]
    names = {name: HEADERS.get(name, name) for name in ATTRIBUTES} | {"birth_date": "birth month"}
    return [Column("mean", q_probe(of, "mean"), guess, True)] + [
        Column(names[name], q_probe(of, name), majority(kind, of, name), False) for name in of_attributes(of)
    ]


def _sheet(table: Sequence[Row], kind: str, of: Of, paper: pd.DataFrame | None) -> Sheet:
    columns = _columns(kind, of)
    paper = holding(paper, [column.metric for column in columns])
    title = f"{PROBES[kind]}, {PREDICTED[of]}: {ACCURACY}"
    if kind == "p_probe":
        title += ", at position 0 and right before the attribute itself (own)"
    headers, guesses = ["setting"], ["majority baseline"]
    for column in columns:
        headers.append(column.header + (" [95 %]" if column.mean else ""))
        guesses.append(percent(baseline(table, column.baseline, (kind,))))
        if column.mean and paper is not None:
            headers.append("paper")
            guesses.append(percent(published(paper, "baseline", column.metric)))
    headers += ["n", "recall", "seeds", "state"]
    lines = [(*guesses, "", "", "", "")]
    for row in table:
        fold, line = row.folds[kind], [row.name]
        for column in columns:
            value = row.measured(kind, column.metric)
            line.append(ranged(value, row.bounds(kind, column.metric) if column.mean else None))
            if column.mean and paper is not None:
                line.append(percent(published(paper, row.setting, column.metric)))
        count = row.count(kind, columns[0].metric)
        line.append(percent(None) if count is None else f"{count:,}")
        line += [percent(fold.metrics.get(RECALL)), str(len(fold.seeds)) if fold.done else percent(None), fold.state]
        lines.append(tuple(line))
    sources = () if paper is None else [paper.attrs["sources"].get(column.metric) for column in columns]
    told = "; ".join(dict.fromkeys(filter(None, sources)))
    note = EXPLAINED + (f" The paper's means are computed from its cells ({told}){UNKNOWN}." if told else "")
    return Sheet(title, tuple(headers), tuple(lines), note, quiet=(0,))


def _rich(sheet: Sheet) -> Table:
    shown = Table(
        title=sheet.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for header in sheet.headers:
        text = header in ("setting", "state")
        broken = header.replace("birth ", "birth\n").replace("company ", "company\n")
        shown.add_column(broken, overflow="fold", justify="left" if text else "right", no_wrap=not text)
    for k, line in enumerate(sheet.lines):
        shown.add_row(*(escape(cell) for cell in line), style=None if k else "dim")
    return shown
