"""Rows of tables and figures: settings under the paper's names, with their results in each column group."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from analysis.measurements.best_settings import keep_best, shown_groups
from analysis.measurements.cells import Axis, ReplicateGroup, Results
from analysis.measurements.names import (
    ATTRIBUTES,
    BEFORE_TRAINING,
    GROUPS,
    PROBES,
    QUESTIONS,
    attributes_of,
    before_training,
    in_order,
    metric,
)

if TYPE_CHECKING:
    # A plan reads this module and does not wait for pandas.
    import pandas as pd

SHAPE = ("model.config", "model.start", "model.layers", "model.heads", "model.width")
"""Axes whose values `model.size` states where they make a network of no named size, or one of `transformers`."""
NAMED = (
    "corpus.kind",
    "corpus.multi",
    "corpus.permute",
    "corpus.fullname",
    "corpus.couple",
    *SHAPE,
    "readout.kind",
    "seed",
)
"""Axes that the row's name, `model.size` or the column group already states."""
BUDGETS = ("readout.steps", "train.steps", "readout.learning_rate", "train.learning_rate")
"""Axes that mostly follow from others: more people, or another network family, take longer."""
UNNAMED = {"model.family": "gpt2"}
"""Values that a row's name does not mention."""
TRAIN_ACCURACY = "{group}/exact_match/train/mean"
"""Exact match on the people whose questions were trained on; where it is low, held-out accuracy means little."""
RULES_SUFFIX = " [rules, no LLM]"
"""Part of the name of every bioR row that rules wrote, so that no table and no figure hides it."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a setting, with its results by column group."""

    name: str
    setting: str
    """The paper's name, with the family if it is not GPT-2 and without further axes; finds the paper's numbers."""
    replicates: Mapping[str, ReplicateGroup]

    def measured(self, group: str, name: str) -> float | None:
        """A metric as a fraction of 1; `None` where no final number exists."""
        replicates = self._finished(group)
        return replicates.metrics.get(name) if replicates else None

    def bounds(self, group: str, name: str) -> tuple[float, float] | None:
        """95 % interval of `measured`."""
        replicates = self._finished(group)
        return replicates.interval.get(name) if replicates else None

    def count(self, group: str, name: str) -> int | None:
        """Number of answers that `measured` averages."""
        replicates = self._finished(group)
        return replicates.n.get(name) if replicates else None

    def value(self, group: str, column: str) -> float | None:
        """Exact match on held-out people."""
        return self.measured(group, metric(group, column))

    def interval(self, group: str, column: str) -> tuple[float, float] | None:
        """95 % interval of `value`."""
        return self.bounds(group, metric(group, column))

    def learned(self, group: str) -> float | None:
        """Exact match on held-out people less that of the same networks of `model.start` before they read anything;
        `None` where networks begin with random weights."""
        after, before = self.value(group, "mean"), self.measured(group, before_training("mean"))
        return None if after is None or before is None else after - before

    def train_accuracy(self, group: str) -> float | None:
        """Exact match on the people whose questions were trained on."""
        return self.measured(group, TRAIN_ACCURACY.format(group=group))

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of the row's people, as far as its numbers tell."""
        return (*ATTRIBUTES, *own_attributes(self.replicates.values()))

    def asks(self, column: str) -> bool:
        """Whether a number of this column is missing where the row has none: its people may not have the attribute."""
        measured = any(replicates.metrics for replicates in self.replicates.values())
        return column in ("mean", *self.attributes) or not measured

    def state(self, group: str) -> str:
        """State of the group's cells; `missing` where the plan has none."""
        replicates = self.replicates.get(group)
        return replicates.state if replicates else "missing"

    def _finished(self, group: str) -> ReplicateGroup | None:
        replicates = self.replicates.get(group)
        return replicates if replicates and replicates.done else None


def setting(axes: Mapping[str, Axis]) -> str:
    """The paper's row name, such as `bioS multi5+permute+fullname` (Fig. 3) or `bioR single+wiki` (Fig. 17)."""
    multi, permute, couple = (axes.get(f"corpus.{name}") or 0 for name in ("multi", "permute", "couple"))
    entries = f"couple{couple}" if couple else f"multi{multi}" if multi not in (0, 1) else "single"
    parts = [f"{axes.get('corpus.kind', 'bioS')} {entries}"]
    if permute:
        # The paper shuffles each of M entries once and does not print that 1.
        parts.append("permute" if entries != "single" and permute == 1 else f"permute{permute}")
    flags = {"fullname": "corpus.fullname", "CEL": "corpus.celebrity_fraction", "wiki": "corpus.background"}
    return "+".join(parts + [flag for flag, axis in flags.items() if axes.get(axis)])


def own_attributes(replicate_groups: Iterable[ReplicateGroup]) -> tuple[str, ...]:
    """The attributes besides the six that the people of these results have, as far as the numbers tell."""
    asked = [replicates for replicates in replicate_groups if column_group(replicates.params) in GROUPS]
    return attributes_of(name for replicates in asked for name in replicates.metrics)[len(ATTRIBUTES) :]


def paper_setting(*row: ReplicateGroup) -> str:
    """The paper's name of a row of results; where people have attributes besides the six, that of no row of the
    paper."""
    own = own_attributes(row)
    return setting(row[0].params) + (f" with {' and '.join(own)}" if own else "")


def column_group(axes: Mapping[str, Axis]) -> str:
    """Column group of a cell: its kind of readout, of which QA finetuning has the name `qa` and is the default."""
    kind = axes.get("readout.kind")
    return "qa" if kind in (None, "qa_finetune") else str(kind)


def rows(results: Results, kinds: Iterable[str] = tuple(QUESTIONS), *, best_of: Sequence[str] = ()) -> tuple[Row, ...]:
    """One row per setting that has a cell in the column groups `kinds`, in plan order.

    A row's name includes every further axis that differs between rows, and a budget only where two rows would otherwise
    share a name. Of settings that differ only in the axes `best_of`, the best one stays, as does the best sample of a
    search.
    """
    kinds = set(kinds)
    members = [replicates for replicates in shown_groups(results) if column_group(replicates.params) in kinds]
    kept = keep_best(members, best_of)
    naming_axes = {}
    for name in dict.fromkeys((*GROUPS, *sorted(kinds))):
        of_group = [replicates for replicates in kept if column_group(replicates.params) == name]
        naming_axes[name] = _without_implied_budgets(of_group, varied_axes(of_group) - set(best_of))
    table: dict[str, dict[str, ReplicateGroup]] = {}
    for replicates in kept:
        name = setting(replicates.params) + name_suffix(replicates, naming_axes)
        table.setdefault(name, {})[column_group(replicates.params)] = replicates
    return tuple(Row(name, _paper_name(tuple(by_group.values())), by_group) for name, by_group in table.items())


def _paper_name(row: Sequence[ReplicateGroup]) -> str:
    family = row[0].params.get("model.family", "gpt2")
    return paper_setting(*row) + ("" if family == "gpt2" else f" ({family})")


def row_names(results: Results) -> dict[str, str]:
    """The name of each cell's row in the tables, by the cell's key, every sample of a search included."""
    results = replace(results, searches=())
    others = {column_group(cell.params) for cell in results.cells} - set(GROUPS)
    return {
        key: row.name
        for kinds in (QUESTIONS, PROBES, *([kind] for kind in sorted(others)))
        for row in rows(results, kinds)
        for replicates in row.replicates.values()
        for key in replicates.keys
    }


def varied_axes(replicate_groups: Sequence[ReplicateGroup]) -> set[str]:
    """Axes that take more than one value here and that a row's name does not state by itself."""
    values: dict[str, set[str]] = {}
    candidates = {axis for replicates in replicate_groups for axis in replicates.axes if axis not in NAMED}
    for replicates in replicate_groups:
        for axis in candidates:
            if _applies(axis, replicates.axes):
                values.setdefault(axis, set()).add(format_value(replicates.axes.get(axis)))
    return {axis for axis, several in values.items() if len(several) > 1}


def _without_implied_budgets(replicate_groups: Sequence[ReplicateGroup], axes: set[str]) -> set[str]:
    """`axes` without each budget that the others determine, that is, without which all names still differ."""
    for budget in [axis for axis in BUDGETS if axis in axes]:
        fewer = axes - {budget}
        naming = sorted(fewer | {"model.family"})
        names = {
            (setting(replicates.params), *(format_value(replicates.axes.get(axis)) for axis in naming))
            for replicates in replicate_groups
        }
        if len(names) == len(replicate_groups):
            axes = fewer
    return axes


def name_suffix(replicates: ReplicateGroup, naming_axes: Mapping[str, Iterable[str]]) -> str:
    """Rest of a row's name after the setting, such as ` [train.steps=900]`; `naming_axes` by column group.

    Readout axes name a row only within their own group. Axes of text and network name it in every group, so that all
    readouts of one model stand in one row.
    """
    of_model = {axis for axes in naming_axes.values() for axis in axes if not _belongs_to_readout(axis)}
    of_readout = {axis for axis in naming_axes.get(column_group(replicates.params), ()) if _belongs_to_readout(axis)}
    suffix = RULES_SUFFIX if _written_by_rules(replicates.params) else ""
    for axis, value in replicates.axes.items():
        if axis in of_model | of_readout and _applies(axis, replicates.axes) and UNNAMED.get(axis) != value:
            suffix += f" [{axis}={format_value(value)}]"
    return suffix


def column_groups(table: Sequence[Row]) -> tuple[str, ...]:
    """Column groups that at least one row has, in the paper's order."""
    return tuple(name for name in GROUPS if any(name in row.replicates for row in table))


def attributes(table: Sequence[Row]) -> tuple[str, ...]:
    """The attributes of the people of these rows: the six, then others that any row asks for."""
    return in_order([*ATTRIBUTES, *(name for row in table for name in row.attributes)])


def baseline(table: Sequence[Row], name: str, kinds: Iterable[str] = tuple(GROUPS)) -> float | None:
    """Majority baseline by its metric name: the mean over the rows that recorded it, a fraction of 1.

    `None` for the mean of the attributes where rows have different ones: it would be that of no row.
    """
    kinds = set(kinds)
    recorded = [(row, group) for row in table for kind, group in row.replicates.items() if kind in kinds]
    recorded = [(row, group) for row, group in recorded if name in group.metrics]
    if not recorded or (name.endswith("/mean") and len({row.attributes for row, _ in recorded}) > 1):
        return None
    return sum(group.metrics[name] for _, group in recorded) / len(recorded)


def rows_by_start(table: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    """Rows whose networks were trained before, by the line that says what these answered then: one for each network."""
    by_network: dict[Axis, list[Row]] = {}
    for row in table:
        for replicates in row.replicates.values():
            if before_training("mean") in replicates.metrics:
                by_network.setdefault(replicates.params.get("model.start"), []).append(row)
                break
    several = len(by_network) > 1
    return {
        BEFORE_TRAINING + f" [model.start={format_value(network)}]" * several: tuple(started)
        for network, started in by_network.items()
    }


def published(paper: "pd.DataFrame | None", row: str, column: str) -> float | None:
    """The paper's number for a setting, a fraction of 1; `None` where it has none."""
    if paper is None or row not in paper.index or column not in paper.columns:
        return None
    value = float(paper.at[row, column])  # type: ignore[arg-type]  # the stubs do not know the dtype
    return None if math.isnan(value) else value


def published_baseline(paper: "pd.DataFrame | None", table: Sequence[Row], column: str) -> float | None:
    """The paper's majority baseline; `None` beside people with attributes besides the six, whose mean is another."""
    return None if len(attributes(table)) > len(ATTRIBUTES) else published(paper, "baseline", column)


def with_any_column(paper: "pd.DataFrame | None", columns: Iterable[str]) -> "pd.DataFrame | None":
    """`paper` if it has at least one of these columns, else `None`, so that tables reserve no column for nothing."""
    return paper if paper is not None and any(column in paper.columns for column in columns) else None


def format_value(value: Axis) -> str:
    """An axis' value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _written_by_rules(axes: Mapping[str, Axis]) -> bool:
    """Whether rules, not a language model, wrote the biographies of bioR."""
    return axes.get("corpus.kind") == "bioR" and axes.get("corpus.writer.backend") == "rules"


def _applies(axis: str, axes: Mapping[str, Axis]) -> bool:
    """Whether an axis can change such cells: without celebrities, writer or background text, their axes do not."""
    if axis.startswith("corpus.writer."):
        return axes.get("corpus.kind") == "bioR" and not _written_by_rules(axes)
    if axis == "readout.people" or axis.startswith("corpus.celebrity"):
        return bool(axes.get("corpus.celebrity_fraction"))
    return not axis.startswith("corpus.background") or bool(axes.get("corpus.background"))


def _belongs_to_readout(axis: str) -> bool:
    return axis.startswith("readout.") or axis == "train.qa_ratio"
