"""Tables with settings as rows under the paper's names: answers here, probes in `probe_table`; all output formats."""

import io
import json
from collections.abc import Sequence
from typing import Literal, get_args

import pandas as pd
from rich.console import Console, Group
from rich.text import Text

from analysis.measurements.cells import Cell, Results
from analysis.measurements.departures import departures_of, departures_remark
from analysis.measurements.names import (
    GROUPS,
    RECALL,
    before_training,
    header,
    majority,
    metric,
)  # fmt: skip
from analysis.measurements.table_rows import (
    Row,
    attributes,
    baseline,
    column_groups,
    published,
    published_baseline,
    rows,
    rows_by_start,
    with_any_column,
)
from analysis.presentation.console_table import Column, ConsoleTable
from analysis.presentation.number_format import MISSING, percent, points, ranged
from analysis.report import kind_table, probe_table, search_table

Format = Literal["table", "csv", "json", "parquet"]
TABLE_WIDTH = 160
"""Columns of text in which every column of a table has room."""


def everything(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Group:
    """All console tables of these results: answers, probes, other kinds of readout, searches."""
    others = [probe_table.rich_sheet(sheet) for sheet in (*kind_table.sheets(results), *search_table.sheets(results))]
    tables: list[Group | ConsoleTable] = [
        rich_table(results, paper, best_of=best_of),
        probe_table.rich_table(results, paper),
    ]
    tables += others
    departures = departures_of(results.cells)
    measured = {name for cell in results.cells for name in cell.metrics}
    if with_any_column(paper, measured) is None or not departures:
        return Group(*tables)
    scales = dict.fromkeys(cell.scale for cell in results.cells if cell.scale)
    return Group(*tables, Text(departures_remark(departures, ", ".join(scales) or "unknown"), style="dim"))


def comparison(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> pd.DataFrame:
    """Returns settings x answers, as fractions of 1, with the majority baseline as first row.

    Columns by metric name: mean and attributes of each group, then `<mean>/n`, `/low`, `/high`, `/seeds`, `/state`,
    and the recall. With `paper` (`tables.beside`), also `paper/<metric>` and `difference/<metric>` (ours less
    the paper's). Missing numbers are NaN here and an en dash in text.
    """
    table = rows(results, best_of=best_of)
    columns = ("mean", *attributes(table))
    lines: dict[str, dict[str, float | str | None]] = {"baseline": {}}
    for name in column_groups(table):
        lines["baseline"] |= {
            metric(name, column): baseline(table, majority(name, "whole", column)) for column in columns
        }
    for row in table:
        line = lines[row.name] = {}
        for name in column_groups(table):
            line |= {metric(name, column): row.value(name, column) for column in columns}
            mean, replicates, bounds = metric(name, "mean"), row.replicates.get(name), row.interval(name, "mean")
            line[f"{mean}/n"] = replicates.n.get(mean) if replicates else None
            line[f"{mean}/low"], line[f"{mean}/high"] = bounds or (None, None)
            line[f"{mean}/seeds"] = len(replicates.seeds) if replicates else 0
            line[f"{mean}/state"] = row.state(name)
            line[f"{name}/{RECALL}"] = replicates.metrics.get(RECALL) if replicates else None
    settings = {row.name: row.setting for row in table}
    for name, line in lines.items() if paper is not None else ():
        for column in [metric(g, c) for g in column_groups(table) for c in columns]:
            ours = line.get(column)
            if name == "baseline":
                theirs = published_baseline(paper, table, column)
            else:
                theirs = published(paper, settings[name], column)
            line[f"paper/{column}"] = theirs
            line[f"difference/{column}"] = ours - theirs if isinstance(ours, float) and theirs is not None else None
    frame = pd.DataFrame.from_dict(lines, orient="index")
    return frame.astype({column: float for column in frame.columns if not column.endswith("/state")})


def render(
    results: Results,
    format: Format,
    paper: pd.DataFrame | None = None,
    *,
    best_of: Sequence[str] = (),
    width: int = TABLE_WIDTH,
) -> str | bytes:
    """Returns the results as text (`table`, `csv`, `json`) or bytes (`parquet`).

    `table` averages over seeds and fits into `width` columns of text; the other formats hold one row or object per
    cell. Raises `ValueError` for another format.
    """
    match format:
        case "table":
            console = Console(file=io.StringIO(), width=width)
            console.print(everything(results, paper, best_of=best_of))
            return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]
        case "csv":
            return results.frame().to_csv(index=False)
        case "json":
            return json.dumps({"cells": [_contract(cell) for cell in results.cells]}, indent=2, allow_nan=False) + "\n"
        case "parquet":
            return _uniform(results.frame()).to_parquet(index=False)
    raise ValueError(f"format {format!r}: must be one of {', '.join(get_args(Format))}")


def rich_table(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Group:
    """One console table per column group of answers; with `paper`, its mean and the difference in points."""
    table = rows(results, best_of=best_of)
    return Group(*(_one_table(table, name, paper) for name in column_groups(table)))


def _one_table(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> ConsoleTable:
    paper = with_any_column(paper, [metric(name, "mean")])
    beside = () if paper is None else (Column("paper", essential=True), Column("diff."))
    asked = attributes(table)
    before = {
        line: [percent(baseline(begun, before_training(column))) for column in ("mean", *asked)]
        for line, begun in rows_by_start(table).items()
    }
    started = bool(before)
    columns = (
        Column("setting", "words", essential=True),
        Column("mean [95 %]", essential=True),
        *beside,
        *([Column("learned", essential=True)] if started else []),
        *(Column(header(column).replace(" ", "\n")) for column in asked),
        Column("n", essential=True),
        Column("asked"),
        Column("recall"),
        Column("seeds"),
        Column("state", "words", essential=True),
    )
    means = [percent(baseline(table, majority(name, "whole", column))) for column in ("mean", *asked)]
    theirs = [] if paper is None else [percent(published_baseline(paper, table, metric(name, "mean"))), ""]
    empty = [""] * (len(theirs) + started)
    lines = [("majority baseline", means[0], *theirs, *[""] * started, *means[1:], *[""] * 5)]
    lines += [(line, known[0], *empty, *known[1:], *[""] * 5) for line, known in before.items()]
    quiet = tuple(range(len(lines)))
    lines += [_line(row, name, asked, paper, started=started) for row in table if name in row.replicates]
    title = f"{GROUPS[name]}: exact match on people never asked about (%)"
    return ConsoleTable(title, columns, tuple(lines), quiet=quiet)


def _line(row: Row, name: str, asked: Sequence[str], paper: pd.DataFrame | None, *, started: bool) -> tuple[str, ...]:
    """The cells of one row of the console table."""
    replicates, ours = row.replicates[name], row.value(name, "mean")
    beside: list[str] = []
    if paper is not None:
        theirs = published(paper, row.setting, metric(name, "mean"))
        beside = [percent(theirs), points(None if ours is None or theirs is None else ours - theirs)]
    if started:
        beside.append(points(row.learned(name)))
    count = row.count(name, metric(name, "mean"))
    return (
        row.name,
        ranged(ours, row.interval(name, "mean")),
        *beside,
        *(percent(row.value(name, column)) for column in asked),
        MISSING if count is None else f"{count:,}",
        percent(row.train_accuracy(name)),
        percent(replicates.metrics.get(RECALL)),
        str(len(replicates.seeds)) if replicates.done else MISSING,
        row.state(name),
    )


def _contract(cell: Cell) -> dict[str, object]:
    """One cell of `ktrain results --format json`."""
    return {
        "key": cell.key,
        "axes": dict(cell.axes),
        "metrics": dict(cell.metrics),
        "n": dict(cell.n),
        "interval": {name: list(bounds) for name, bounds in cell.interval.items()},
        "state": cell.state,
        "stages": dict(cell.stages),
    }


def _uniform(frame: pd.DataFrame) -> pd.DataFrame:
    """Gives each column one type, as Parquet demands; an axis of mixed types becomes text."""
    mixed = [c for c in frame.columns if len({type(v) for v in frame[c].dropna()}) > 1 and frame[c].dtype == object]
    return frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in mixed})
