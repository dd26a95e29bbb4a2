"""Rows: settings under the paper's names, each with its results in the column groups that have some."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.best import best
from analysis.cells import Axis, Fold, Results, replicates
from analysis.names import GROUPS, QUESTIONS, metric

NAMED = (
    "corpus.kind",
    "corpus.multi",
    "corpus.permute",
    "corpus.fullname",
    "corpus.couple",
    "readout.kind",
    "seed",
)
"""Axes that a row's name or its column group already tells."""
BUDGETS = ("readout.steps", "train.steps", "readout.learning_rate", "train.learning_rate")
"""Axes that mostly follow from others: more people or another kind of network take longer."""
USUAL = {"model.family": "gpt2"}
"""What goes without saying."""
ASKED = "{group}/exact_match/train/mean"
"""Exact match on the people whose questions were trained on: below it, no number on the others means anything."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a setting, with its result in each column group that has one."""

    name: str
    setting: str
    """The paper's name for it, without further axes, and what is not GPT-2: what finds the paper's numbers."""
    folds: Mapping[str, Fold]

    def measured(self, group: str, name: str) -> float | None:
        """A metric as a fraction of 1; `None` where there is no final number."""
        fold = self.folds.get(group)
        return fold.metrics.get(name) if fold and fold.done else None

    def bounds(self, group: str, name: str) -> tuple[float, float] | None:
        """95 % interval of `measured`."""
        fold = self.folds.get(group)
        return fold.interval.get(name) if fold and fold.done else None

    def count(self, group: str, name: str) -> int | None:
        """How many answers `measured` is the mean of."""
        fold = self.folds.get(group)
        return fold.n.get(name) if fold and fold.done else None

    def value(self, group: str, column: str) -> float | None:
        """Exact match on held-out people."""
        return self.measured(group, metric(group, column))

    def interval(self, group: str, column: str) -> tuple[float, float] | None:
        """95 % interval of `value`."""
        return self.bounds(group, metric(group, column))

    def asked(self, group: str) -> float | None:
        """Exact match on the people who were asked about in training."""
        return self.measured(group, ASKED.format(group=group))

    def state(self, group: str) -> str:
        """State of the group's cells; `missing` where the plan has none."""
        fold = self.folds.get(group)
        return fold.state if fold else "missing"


def setting(axes: Mapping[str, Axis]) -> str:
    """The paper's row name, such as `bioS multi5+permute+fullname` (Fig. 3) or `bioR single+wiki` (Fig. 17)."""
    multi, permute, couple = (axes.get(f"corpus.{name}") or 0 for name in ("multi", "permute", "couple"))
    writing = f"couple{couple}" if couple else f"multi{multi}" if multi not in (0, 1) else "single"
    parts = [f"{axes.get('corpus.kind', 'bioS')} {writing}"]
    if permute:
        # Each of M entries is shuffled once in the paper, so only other numbers need to be said.
        parts.append("permute" if writing != "single" and permute == 1 else f"permute{permute}")
    flags = {"fullname": "corpus.fullname", "CEL": "corpus.celebrity_fraction", "wiki": "corpus.background"}
    return "+".join(parts + [flag for flag, axis in flags.items() if axes.get(axis)])


def group(axes: Mapping[str, Axis]) -> str:
    """Which column group a cell belongs to: what is no probe and not asked at once is finetuned first."""
    kind = str(axes.get("readout.kind"))
    return kind if kind in GROUPS else "qa"


def rows(results: Results, kinds: Iterable[str] = tuple(QUESTIONS), *, best_of: Sequence[str] = ()) -> tuple[Row, ...]:
    """One row per setting read out in one of these ways, in plan order.

    Any further axis that differs between the rows is part of the name; a budget only where it tells two rows apart. Of
    settings that differ in the axes `best_of` alone, only the best is kept.
    """
    folds = best([fold for fold in replicates(results) if group(fold.params) in set(kinds)], best_of)
    grouped = {name: [fold for fold in folds if group(fold.params) == name] for name in GROUPS}
    told = {name: _needed(members, differing(members) - set(best_of)) for name, members in grouped.items()}
    found: dict[str, tuple[str, dict[str, Fold]]] = {}
    for fold in folds:
        base = setting(fold.params)
        family = fold.params.get("model.family", "gpt2")
        named = base if family == "gpt2" else f"{base} ({family})"
        found.setdefault(base + further(fold, told), (named, {}))[1][group(fold.params)] = fold
    return tuple(Row(name, base, members) for name, (base, members) in found.items())


def differing(folds: Sequence[Fold]) -> set[str]:
    """Axes beyond those that a row's name tells that have more than one value."""
    names = {name for fold in folds for name in fold.axes if name not in NAMED}
    return {
        name for name in names if len({written(fold.axes.get(name)) for fold in folds if _speaks(name, fold.axes)}) > 1
    }


def _needed(folds: Sequence[Fold], axes: set[str]) -> set[str]:
    """Axes without those budgets that follow from the others: without them no two folds have one name."""
    for budget in [axis for axis in BUDGETS if axis in axes]:
        fewer = axes - {budget}
        names = [
            (setting(fold.params), *(written(fold.axes.get(axis)) for axis in sorted(fewer | {"model.family"})))
            for fold in folds
        ]
        if len(set(names)) == len(names):
            axes = fewer
    return axes


RULED = " [rules, no LLM]"
"""Of bioR that no language model has written: a part of the row's name, so that no table and no figure is without."""


def further(fold: Fold, told: Mapping[str, Iterable[str]]) -> str:
    """What a row's name has besides the setting, such as ` [train.steps=900]`; `told` are axes by column group.

    How a model is read out belongs to a group; what it has read is compared across groups, under one name.
    """
    shared = {axis for axes in told.values() for axis in axes if not _of_group(axis)}
    shown = shared | {axis for axis in told.get(group(fold.params), ()) if _of_group(axis)}
    pairs = [(axis, value) for axis, value in fold.axes.items() if axis in shown and _speaks(axis, fold.axes)]
    named = "".join(f" [{axis}={written(value)}]" for axis, value in pairs if USUAL.get(axis) != value)
    return (RULED if _ruled(fold.params) else "") + named


def groups(table: Sequence[Row]) -> tuple[str, ...]:
    """Column groups that at least one row has, in the paper's order."""
    return tuple(name for name in GROUPS if any(name in row.folds for row in table))


def tidy(table: Sequence[Row]) -> pd.DataFrame:
    """One line per row, column group and metric, as fractions of 1.

    Columns: row, group, metric, value, low, high (95 % interval), n, seeds, state, keys (cells, separated by blanks).
    A group without numbers has one line, whose metric is empty.
    """
    lines = []
    for row in table:
        for home, fold in row.folds.items():
            own = [name for name in fold.metrics if name.startswith(f"{home}/")] if fold.done else []
            for name in own or [""]:
                low, high = fold.interval.get(name) or (None, None)
                numbers = {"value": fold.metrics.get(name), "low": low, "high": high, "n": fold.n.get(name)}
                told = {"row": row.name, "group": home, "metric": name} | numbers
                lines.append(told | {"seeds": len(fold.seeds), "state": fold.state, "keys": " ".join(fold.keys)})
    columns = ["row", "group", "metric", "value", "low", "high", "n", "seeds", "state", "keys"]
    return pd.DataFrame(lines, columns=columns).astype({"value": float, "low": float, "high": float, "n": "Int64"})


def baseline(table: Sequence[Row], name: str, kinds: Iterable[str] = tuple(GROUPS)) -> float | None:
    """Majority baseline by its metric name, the mean over the rows that recorded one; fraction of 1."""
    folds = [fold for row in table for kind, fold in row.folds.items() if kind in set(kinds)]
    values = [fold.metrics[name] for fold in folds if name in fold.metrics]
    return sum(values) / len(values) if values else None


def published(paper: pd.DataFrame | None, row: str, column: str) -> float | None:
    """The paper's number for a setting, a fraction of 1; `None` where it has none."""
    if paper is None or row not in paper.index or column not in paper.columns:
        return None
    value = float(paper.at[row, column])  # type: ignore[arg-type]  # the stubs do not know the dtype
    return None if math.isnan(value) else value


def holding(paper: pd.DataFrame | None, columns: Iterable[str]) -> pd.DataFrame | None:
    """The paper's numbers if it has any in these columns, so that nothing is set aside for none."""
    return paper if paper is not None and any(column in paper.columns for column in columns) else None


def written(value: Axis) -> str:
    """An axis' value as it is typed on the command line."""
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
    )


def _ruled(axes: Mapping[str, Axis]) -> bool:
    """Whether biographies of bioR are written by rules."""
    return axes.get("corpus.kind") == "bioR" and axes.get("corpus.writer.backend") == "rules"


def _speaks(axis: str, axes: Mapping[str, Axis]) -> bool:
    """Whether an axis says anything of such cells: there may be no celebrities, no writer, or nothing read besides."""
    if axis.startswith("corpus.writer."):
        return axes.get("corpus.kind") == "bioR" and not _ruled(axes)
    if axis == "readout.people" or axis.startswith("corpus.celebrity"):
        return bool(axes.get("corpus.celebrity_fraction"))
    return not axis.startswith("corpus.background") or bool(axes.get("corpus.background"))


def _of_group(axis: str) -> bool:
    return axis.startswith("readout.") or axis == "train.qa_ratio"
