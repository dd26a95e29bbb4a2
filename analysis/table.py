"""Tables: settings as rows under the paper's names; of answers here, of probes in `probe_table`; and all formats."""

import io
import json
from collections.abc import Sequence
from typing import Literal, get_args

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from analysis import probe_table
from analysis.cells import Cell, Results
from analysis.names import ATTRIBUTES, COLUMNS, GROUPS, HEADERS, RECALL, majority, metric
from analysis.percent import percent, points, ranged
from analysis.rows import Row, baseline, groups, holding, published, rows

Format = Literal["table", "csv", "json", "parquet"]


def everything(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> Group:
    """All tables that these results have, for a console: of answers, then of probes."""
    return Group(rich_table(results, paper, best_of=best_of), probe_table.rich_table(results, paper))


def comparison(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> pd.DataFrame:
    """Settings x answers, as fractions of 1, with the majority baseline as first row.

    Columns by metric name: mean and six attributes of each group, then `<mean>/n`, `/low`, `/high`, `/seeds`, `/state`,
    and the recall. With `paper` (`analysis.paper.beside`), also `paper/<metric>` and `difference/<metric>` (ours less
    the paper's). Missing numbers are NaN here and an en dash wherever they are written.
    """
    table = rows(results, best_of=best_of)
    lines: dict[str, dict[str, float | str | None]] = {"baseline": {}}
    for name in groups(table):
        lines["baseline"] |= {
            metric(name, column): baseline(table, majority(name, "whole", column)) for column in COLUMNS
        }
    for row in table:
        line = lines[row.name] = {}
        for name in groups(table):
            line |= {metric(name, column): row.value(name, column) for column in COLUMNS}
            mean, fold, bounds = metric(name, "mean"), row.folds.get(name), row.interval(name, "mean")
            line[f"{mean}/n"] = fold.n.get(mean) if fold else None
            line[f"{mean}/low"], line[f"{mean}/high"] = bounds or (None, None)
            line[f"{mean}/seeds"] = len(fold.seeds) if fold else 0
            line[f"{mean}/state"] = row.state(name)
            line[f"{name}/{RECALL}"] = fold.metrics.get(RECALL) if fold else None
    settings = {row.name: row.setting for row in table} | {"baseline": "baseline"}
    for name, line in lines.items() if paper is not None else ():
        for column in [metric(g, c) for g in groups(table) for c in COLUMNS]:
            theirs, ours = published(paper, settings[name], column), line.get(column)
            line[f"paper/{column}"] = theirs
            line[f"difference/{column}"] = ours - theirs if isinstance(ours, float) and theirs is not None else None
    frame = pd.DataFrame.from_dict(lines, orient="index")
    return frame.astype({column: float for column in frame.columns if not column.endswith("/state")})


def render(
    results: Results, format: Format, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()
) -> str | bytes:
    """The results as text (`table`, `csv`, `json`) or bytes (`parquet`).

    `table` folds seeds into settings; the other formats hold one row or object per cell. Raises `ValueError` for
    another format.
    """
    match format:
        case "table":
            console = Console(file=io.StringIO(), width=160)
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
    """One table per column group of answers, for a console; with `paper`, its mean and the difference in points."""
    table = rows(results, best_of=best_of)
    return Group(*(_one_table(table, name, paper) for name in groups(table)))


def _one_table(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> Table:
    paper = holding(paper, [metric(name, "mean")])
    title = f"{GROUPS[name]}: exact match on people never asked about (%)"
    shown = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("setting", overflow="fold")
    shown.add_column("mean [95 %]", justify="right", no_wrap=True)
    if paper is not None:
        shown.add_column("paper", justify="right", no_wrap=True)
        shown.add_column("diff.", justify="right", no_wrap=True)
    for column in ATTRIBUTES:
        shown.add_column(HEADERS.get(column, column).replace(" ", "\n"), justify="right", no_wrap=True)
    for column in ("n", "asked", "recall", "seeds"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("state", overflow="fold")
    theirs = published(paper, "baseline", metric(name, "mean"))
    beside = [] if paper is None else [percent(theirs), ""]
    means = [percent(baseline(table, majority(name, "whole", column))) for column in COLUMNS]
    shown.add_row("majority baseline", means[0], *beside, *means[1:], *[""] * 5, style="dim")
    for row in (row for row in table if name in row.folds):
        fold, ours = row.folds[name], row.value(name, "mean")
        if paper is not None:
            theirs = published(paper, row.setting, metric(name, "mean"))
            both = ours is not None and theirs is not None
            beside = [percent(theirs), points(ours - theirs if both else None)]  # type: ignore[operator]
        count = row.count(name, metric(name, "mean"))
        shown.add_row(
            escape(row.name),
            ranged(ours, row.interval(name, "mean")),
            *beside,
            *(percent(row.value(name, column)) for column in ATTRIBUTES),
            percent(None) if count is None else f"{count:,}",
            percent(row.asked(name)),
            percent(fold.metrics.get(RECALL)),
            str(len(fold.seeds)) if fold.done else percent(None),
            Text(row.state(name)),
        )
    return shown


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
    """Columns of one type each, which Parquet demands; an axis of mixed types becomes text."""
    mixed = [c for c in frame.columns if len({type(v) for v in frame[c].dropna()}) > 1 and frame[c].dtype == object]
    return frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in mixed})
