"""Tables of probes: accuracy on held-out people by setting, for a console and for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Group

from analysis.measurements.cells import Results
from analysis.measurements.names import (
    ACCURACY,
    PROBE_TARGETS,
    PROBES,
    RECALL,
    TARGET_TITLES,
    ProbeTarget,
    header,
    majority,
    p_probe,
    probed_attributes,
    q_probe,
)
from analysis.measurements.probe_updates import confined_note
from analysis.measurements.table_rows import (
    Row,
    attributes,
    baseline,
    column_groups,
    published,
    published_baseline,
    rows,
    with_any_column,
)
from analysis.presentation.console_table import Column, ConsoleTable
from analysis.presentation.number_format import percent, ranged
from analysis.presentation.section import Sheet

EXPLAINED = (
    "Accuracy of a linear probe on held-out people, in percent, with its 95 % interval; a mean is over all "
    "attributes but the birth date."
)
UNKNOWN = "; it has none of a permuted setting's own position"


@dataclass(frozen=True)
class ProbeColumn:
    """One column of a table: a metric and its header."""

    header: str
    metric: str
    baseline: str
    mean: bool
    """Whether to show the interval and the paper's number."""


def sheets(results: Results, paper: pd.DataFrame | None = None) -> tuple[Sheet, ...]:
    """Returns one table per kind of probe and target; numbers of `paper` (`tables.beside(...)`) follow the means."""
    table = rows(results, PROBES)
    return tuple(
        _sheet([row for row in table if kind in row.replicates], kind, target, paper)
        for kind in column_groups(table)
        for target in PROBE_TARGETS
    )


def rich_table(results: Results, paper: pd.DataFrame | None = None) -> Group:
    """The same tables for a console."""
    return Group(*(rich_sheet(sheet) for sheet in sheets(results, paper)))


def _columns(kind: str, target: ProbeTarget, asked: Sequence[str]) -> list[ProbeColumn]:
    guess = majority(kind, target, "mean")
    if kind == "p_probe":
        return [
            ProbeColumn("position 0", p_probe(target, 0, "mean"), guess, True),
            ProbeColumn("own", p_probe(target, "own", "mean"), guess, True),
        ]
    names = {name: header(name) for name in asked} | {"birth_date": "birth month"}
    return [ProbeColumn("mean", q_probe(target, "mean"), guess, True)] + [
        ProbeColumn(names[name], q_probe(target, name), majority(kind, target, name), False)
        for name in probed_attributes(target, asked)
    ]


def _sheet(table: Sequence[Row], kind: str, target: ProbeTarget, paper: pd.DataFrame | None) -> Sheet:
    columns = _columns(kind, target, attributes(table))
    paper = with_any_column(paper, [column.metric for column in columns])
    title = f"{PROBES[kind]}, {TARGET_TITLES[target]}: {ACCURACY}"
    if kind == "p_probe":
        title += ", at position 0 and right before the attribute itself (own)"
    headers, guesses = ["setting"], ["majority baseline"]
    for column in columns:
        headers.append(column.header + (" [95 %]" if column.mean else ""))
        guesses.append(percent(baseline(table, column.baseline, (kind,))))
        if column.mean and paper is not None:
            headers.append("paper")
            guesses.append(percent(published_baseline(paper, table, column.metric)))
    headers += ["n", "recall", "seeds", "state"]
    lines = [(*guesses, "", "", "", "")]
    for row in table:
        replicates, line = row.replicates[kind], [row.name]
        for column in columns:
            value = row.measured(kind, column.metric)
            line.append(ranged(value, row.bounds(kind, column.metric) if column.mean else None))
            if column.mean and paper is not None:
                line.append(percent(published(paper, row.setting, column.metric)))
        count = row.count(kind, columns[0].metric)
        line.append(percent(None) if count is None else f"{count:,}")
        line += [
            percent(replicates.metrics.get(RECALL)),
            str(len(replicates.seeds)) if replicates.done else percent(None),
            replicates.state,
        ]
        lines.append(tuple(line))
    sources = () if paper is None else [paper.attrs["sources"].get(column.metric) for column in columns]
    source = "; ".join(dict.fromkeys(filter(None, sources)))
    note = EXPLAINED + (f" The paper's means are computed from its cells ({source}){UNKNOWN}." if source else "")
    note = f"{note} {confined_note(row.replicates[kind] for row in table)}".strip()
    return Sheet(title, tuple(headers), tuple(lines), note, quiet=(0,))


def rich_sheet(sheet: Sheet) -> ConsoleTable:
    """Returns one table for a console; on a narrow one, the first number with what belongs to it."""
    essential = ("setting", "paper", "n", "state")
    columns = tuple(
        Column(
            header.replace("birth ", "birth\n").replace("company ", "company\n"),
            "words" if header in ("setting", "state") else "number",
            essential=header in essential or header.endswith("[95 %]"),
        )
        for header in sheet.headers
    )
    short = [line + ("",) * (len(columns) - len(line)) for line in sheet.lines]
    return ConsoleTable(sheet.title, columns, tuple(short), quiet=sheet.quiet)
