"""The frame of results that most people want: a row for each cell, with its few main numbers under short names."""

from typing import Any

import pandas as pd

from analysis.measurements.cells import Cell, Results, group_replicates
from analysis.measurements.names import (
    ATTRIBUTES,
    GROUPS,
    LOSS,
    PROBES,
    QUESTIONS,
    RECALL,
    ProbeTarget,
    attributes_of,
    majority,
    metric,
    p_probe,
    q_probe,
)
from analysis.measurements.other_kinds import OtherKind
from analysis.measurements.table_rows import TRAIN_ACCURACY, column_group, row_names, varied_axes

SHORT_AXES = {
    "people": "corpus.people",
    "multi": "corpus.multi",
    "permute": "corpus.permute",
    "fullname": "corpus.fullname",
    "family": "model.family",
    "size": "model.size",
    "steps": "train.steps",
    "qa_ratio": "train.qa_ratio",
}
"""Columns of every frame; axes that vary beyond these follow under their own names."""
SPEED = "speed/tokens_per_second"


def compact(results: Results) -> pd.DataFrame:
    """One row per cell: key, state and scale; setting, readout and seed; common axes, and others that vary; the main
    number with its interval, `n`, its attributes and baseline; recall, loss and speed; folders of model and answers.

    An attribute besides the six whose name is that of another column is called `attribute.<name>`.
    """
    names, kinds, varied = row_names(results), {kind.name: kind for kind in results.other_kinds}, _varied(results)
    asked = [cell for cell in results.cells if column_group(cell.params) in GROUPS]
    own = attributes_of(name for cell in asked for name in cell.metrics)[len(ATTRIBUTES) :]
    rows = []
    for cell in results.cells:
        group = column_group(cell.params)
        row: dict[str, Any] = {"key": cell.key, "state": cell.state, "scale": cell.scale}
        row |= {"setting": names[cell.key], "readout": group, "seed": cell.params.get("seed")}
        row |= {short: cell.params.get(axis) for short, axis in SHORT_AXES.items()}
        row |= {axis: cell.axes.get(axis) for axis in cell.axes if axis in varied}
        row |= _numbers(cell, group, kinds.get(group))
        row |= {"model": cell.stages.get("pretrain"), "answers": _readout_folder(cell)}
        more = {name: cell.metrics.get(main_metric(group, name, kinds.get(group))) for name in own}
        row |= {f"attribute.{name}" if name in row else name: value for name, value in more.items()}
        rows.append(row)
    return pd.DataFrame(rows).astype({"n": "Int64"})


def _varied(results: Results) -> set[str]:
    """The axes besides `SHORT_AXES` in which cells of one kind of readout differ."""
    replicate_groups = group_replicates(results)
    kinds = {column_group(replicates.params) for replicates in replicate_groups}
    by_kind = ([r for r in replicate_groups if column_group(r.params) == kind] for kind in kinds)
    return {axis for members in by_kind for axis in varied_axes(members)} - set(SHORT_AXES.values())


def main_metric(group: str, column: str, kind: OtherKind | None = None) -> str:
    """Returns the metric that orders the settings of a kind of readout; `column` is an attribute or `mean`.

    Of answers, exact match on people never asked about; of probes, the first token, read at position 0 or at the name.
    """
    if group in QUESTIONS:
        return metric(group, column)
    if group == "p_probe":
        return p_probe("first", 0, column)
    if group == "q_probe":
        return q_probe("first", column)
    return kind.metrics[0] if kind and column == "mean" else f"{group}/{column}"


def _numbers(cell: Cell, group: str, kind: OtherKind | None) -> dict[str, Any]:
    """The main numbers of a cell; None for each that it has not."""
    mean = main_metric(group, "mean", kind)
    low, high = cell.interval.get(mean, (None, None))
    target: ProbeTarget = "first" if group in PROBES else "whole"
    numbers: dict[str, Any] = {"mean": cell.metrics.get(mean), "low": low, "high": high, "n": cell.n.get(mean)}
    numbers |= {column: cell.metrics.get(main_metric(group, column, kind)) for column in ATTRIBUTES}
    numbers["baseline"] = cell.metrics.get(majority(group, target, "mean"))
    numbers["train"] = cell.metrics.get(TRAIN_ACCURACY.format(group=group))
    network = {"recall": RECALL, "loss": LOSS, "tokens_per_second": SPEED}
    return numbers | {name: cell.metrics.get(recorded) for name, recorded in network.items()}


def _readout_folder(cell: Cell) -> str | None:
    """The folder of the stage that is neither corpus nor pretraining."""
    return next((folder for kind, folder in cell.stages.items() if kind not in ("corpus", "pretrain")), None)
