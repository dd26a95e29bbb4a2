"""Tables: settings as rows under the paper's names, the mean and six attributes as columns."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from analysis.percent import percent, points, ranged
from analysis.results import Axis, Cell, Fold, Results, replicates

Format = Literal["table", "csv", "json", "parquet"]

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "company", "company_city")
COLUMNS = ("mean", *ATTRIBUTES)
HEADERS = {
    "birth_date": "birth date",
    "birth_city": "birth city",
    "university": "univ.",
    "company_city": "company city",
}
GROUPS = {"qa": "QA finetune", "mixed": "Mixed training"}
"""Column groups of the paper's Fig. 3, as metric prefix and title."""
NAMED = ("corpus.kind", "corpus.multi", "corpus.permute", "corpus.fullname", "readout.kind", "seed")
"""Axes that a row's name or its column group already tells."""
RECALL = "recall/attribute_tokens"
ASKED = "{group}/exact_match/train/mean"
"""Exact match on the people whose questions were trained on: below it, no number on the others means anything."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a setting, with its result in each column group that has one."""

    name: str
    setting: str
    """The paper's name for it, without further axes: what finds the paper's numbers."""
    folds: Mapping[str, Fold]

    def value(self, group: str, column: str) -> float | None:
        """Exact match on held-out people, as a fraction of 1; `None` where there is no final number."""
        fold = self.folds.get(group)
        return fold.metrics.get(metric(group, column)) if fold and fold.done else None

    def interval(self, group: str, column: str) -> tuple[float, float] | None:
        """95 % interval of `value`."""
        fold = self.folds.get(group)
        return fold.interval.get(metric(group, column)) if fold and fold.done else None

    def asked(self, group: str) -> float | None:
        """Exact match on the people who were asked about in training."""
        fold = self.folds.get(group)
        return fold.metrics.get(ASKED.format(group=group)) if fold and fold.done else None

    def state(self, group: str) -> str:
        """State of the group's cells; `missing` where the plan has none."""
        fold = self.folds.get(group)
        return fold.state if fold else "missing"


def metric(group: str, column: str) -> str:
    """Metric name of one number: exact match on people never asked about."""
    return f"{group}/exact_match/test/{column}"


def setting(axes: Mapping[str, Axis]) -> str:
    """The paper's row name, such as `bioS single+permute2` or `bioS multi5+permute+fullname` (Fig. 3)."""
    multi, permute = axes.get("corpus.multi", 1), axes.get("corpus.permute", 0)
    parts = [f"{axes.get('corpus.kind', 'bioS')} {'single' if multi == 1 else f'multi{multi}'}"]
    if permute:
        # Each of M entries is shuffled once in the paper, so only other numbers need to be said.
        parts.append("permute" if multi != 1 and permute == 1 else f"permute{permute}")
    if axes.get("corpus.fullname"):
        parts.append("fullname")
    return "+".join(parts)


def group(axes: Mapping[str, Axis]) -> str:
    """Which column group a cell belongs to: `mixed` is asked at once, everything else is finetuned first."""
    return "mixed" if axes.get("readout.kind") == "mixed" else "qa"


def rows(results: Results) -> tuple[Row, ...]:
    """One row per setting, in plan order; any further axis that differs between rows is part of the name."""
    folds = replicates(results)
    grouped = {name: [fold for fold in folds if group(fold.params) == name] for name in GROUPS}
    differing = {name: _differing(members) for name, members in grouped.items()}
    # How a model is read out belongs to a group; what it has read is compared across groups, under one name.
    shared = {axis for axes in differing.values() for axis in axes if not _of_group(axis)}
    found: dict[str, tuple[str, dict[str, Fold]]] = {}
    for fold in folds:
        home = group(fold.params)
        base = setting(fold.params)
        told = [axis for axis in fold.axes if axis in shared or (_of_group(axis) and axis in differing[home])]
        name = base + "".join(f" [{axis}={_written(fold.axes[axis])}]" for axis in told)
        found.setdefault(name, (base, {}))[1][home] = fold
    return tuple(Row(name, base, members) for name, (base, members) in found.items())


def groups(table: Sequence[Row]) -> tuple[str, ...]:
    """Column groups that at least one row has, in the paper's order."""
    return tuple(name for name in GROUPS if any(name in row.folds for row in table))


def baseline(table: Sequence[Row], column: str) -> float | None:
    """Majority baseline of a column, the mean over the rows that recorded one; fraction of 1."""
    name = f"baseline/test/{column}"
    values = [fold.metrics[name] for row in table for fold in row.folds.values() if name in fold.metrics]
    return sum(values) / len(values) if values else None


def comparison(results: Results, paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """Settings x numbers, as fractions of 1, with the majority baseline as first row.

    Columns by metric name: mean and six attributes of each group, then `<mean>/n`, `/low`, `/high`, `/seeds`, `/state`,
    and the recall. With `paper` (`analysis.paper.figure`), also `paper/<metric>` and `difference/<metric>` (ours less
    the paper's). Missing numbers are NaN here and an en dash wherever they are written.
    """
    table = rows(results)
    lines: dict[str, dict[str, float | str | None]] = {"baseline": {}}
    for name in groups(table):
        lines["baseline"] |= {metric(name, column): baseline(table, column) for column in COLUMNS}
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


def published(paper: pd.DataFrame | None, row: str, column: str) -> float | None:
    """The paper's number for a setting, a fraction of 1; `None` where it has none."""
    if paper is None or row not in paper.index or column not in paper.columns:
        return None
    return float(paper.at[row, column])  # type: ignore[arg-type]  # the stubs do not know the dtype


def render(results: Results, format: Format, paper: pd.DataFrame | None = None) -> str | bytes:
    """The results as text (`table`, `csv`, `json`) or bytes (`parquet`).

    `table` folds seeds into settings; the other formats hold one row or object per cell. Raises `ValueError` for
    another format.
    """
    match format:
        case "table":
            console = Console(file=io.StringIO(), width=160)
            console.print(rich_table(results, paper))
            return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]
        case "csv":
            return results.frame().to_csv(index=False)
        case "json":
            return json.dumps({"cells": [_contract(cell) for cell in results.cells]}, indent=2, allow_nan=False) + "\n"
        case "parquet":
            return _uniform(results.frame()).to_parquet(index=False)
    raise ValueError(f"format {format!r}: must be one of {', '.join(get_args(Format))}")


def rich_table(results: Results, paper: pd.DataFrame | None = None) -> Group:
    """One table per column group, for a console; with `paper`, its mean and the difference in points beside ours."""
    table = rows(results)
    return Group(*(_one_table(table, name, paper) for name in groups(table)))


def _one_table(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> Table:
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
    means = [percent(baseline(table, column)) for column in COLUMNS]
    shown.add_row("majority baseline", means[0], *beside, *means[1:], *[""] * 5, style="dim")
    for row in table:
        fold, ours = row.folds.get(name), row.value(name, "mean")
        if paper is not None:
            theirs = published(paper, row.setting, metric(name, "mean"))
            both = ours is not None and theirs is not None
            beside = [percent(theirs), points(ours - theirs if both else None)]  # type: ignore[operator]
        count = fold.n.get(metric(name, "mean")) if fold and fold.done else None
        shown.add_row(
            escape(row.name),
            ranged(ours, row.interval(name, "mean")),
            *beside,
            *(percent(row.value(name, column)) for column in ATTRIBUTES),
            percent(None) if count is None else f"{count:,}",
            percent(row.asked(name)),
            percent(fold.metrics.get(RECALL) if fold else None),
            str(len(fold.seeds)) if fold and fold.done else percent(None),
            Text(row.state(name)),
        )
    return shown


def _differing(folds: Sequence[Fold]) -> set[str]:
    """Axes beyond the named ones that have more than one value."""
    names = {name for fold in folds for name in fold.axes if name not in NAMED}
    return {name for name in names if len({_written(fold.axes.get(name)) for fold in folds}) > 1}


def _of_group(axis: str) -> bool:
    return axis.startswith("readout.") or axis == "train.qa_ratio"


def _written(value: Axis) -> str:
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
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
    """Columns of one type each, which Parquet demands; an axis of mixed types becomes text."""
    mixed = [c for c in frame.columns if len({type(v) for v in frame[c].dropna()}) > 1 and frame[c].dtype == object]
    return frame.assign(**{c: frame[c].map(str, na_action="ignore") for c in mixed})
