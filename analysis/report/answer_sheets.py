"""Sheets of answers: exact match on people never asked about, by setting, alone and beside the paper's numbers."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.measurements.cells import Results
from analysis.measurements.departures import departures_of, departures_remark
from analysis.measurements.names import (
    COLUMNS,
    GROUPS,
    NAMELESS,
    RECALL,
    before_training,
    majority,
    metric,
)
from analysis.measurements.table_rows import (
    Row,
    attributes,
    baseline,
    column_groups,
    published,
    rows,
    rows_by_start,
)
from analysis.presentation.number_format import MISSING, percent, points, ranged
from analysis.presentation.section import Sheet

EXPLAINED = (
    "Exact match on people never asked about, in percent, with the 95 % interval of the mean. Baseline: always the "
    "commonest value among the same people. Asked: exact match on the people whose questions were trained on. "
    "Recall: share of the attribute tokens of the biographies that the model gives back as read; below its gate it is "
    "not asked. Nameless: share of the attribute tokens that pretraining read in a window without the name before them."
)
STARTED = (
    " Before training: the networks of model.start as they were found. Learned: the mean less theirs, in percentage "
    "points."
)
LEARNED = "learned"
BESIDE = "Differences are ours less the paper's, in percentage points."
AFTER = ("n", "seeds", "asked", "baseline", "recall", "nameless")


def sheets(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> tuple[Sheet, ...]:
    """Returns a sheet per column group, and a comparison if `paper` (`tables.beside(...)`) has its settings."""
    table = rows(results, best_of=best_of)
    made = []
    scales = dict.fromkeys(cell.scale for cell in results.cells if cell.scale)
    remark = departures_remark(departures_of(results.cells), ", ".join(scales) or "unknown")
    for name in column_groups(table):
        made.append(_ours(table, name))
        if (compared := _beside(table, name, paper)) is not None:
            made.append(replace(compared, note=f"{compared.note} {remark}".strip()))
    return tuple(made)


def _ours(table: Sequence[Row], name: str) -> Sheet:
    """One line per row: its numbers, or its state instead."""
    columns = ("mean", *attributes(table))
    guesses = [percent(baseline(table, majority(name, "whole", column))) for column in columns]
    before = {
        line: [percent(baseline(begun, before_training(column))) for column in columns]
        for line, begun in rows_by_start(table).items()
    }
    started = bool(before)
    after = (LEARNED, *AFTER) if started else AFTER
    lines = [("majority baseline", *guesses, *[""] * len(after))]
    lines += [(line, *known, *[""] * len(after)) for line, known in before.items()]
    quiet = tuple(range(len(lines)))
    explained = EXPLAINED + STARTED * started
    for row in table:
        replicates = row.replicates.get(name)
        if replicates is None:
            continue
        if not replicates.done:
            gate = replicates.params.get("readout.recall_gate")
            gate_note = f" [gate {percent(gate)}]" if "recall" in replicates.state and isinstance(gate, float) else ""
            lines.append((row.name, row.state(name) + gate_note))
            continue
        count = row.count(name, metric(name, "mean"))
        lines.append(
            (
                row.name if row.state(name) == "done" else f"{row.name} [{row.state(name)}]",
                ranged(row.value(name, "mean"), row.interval(name, "mean")),
                *(percent(row.value(name, column)) for column in columns[1:]),
                *([points(row.learned(name))] if started else []),
                MISSING if count is None else f"{count:,}",
                ", ".join(map(str, replicates.seeds)),
                percent(row.train_accuracy(name)),
                percent(replicates.metrics.get(majority(name, "whole", "mean"))),
                percent(replicates.metrics.get(RECALL)),
                percent(replicates.metrics.get(NAMELESS)),
            )
        )
    headers = ("setting", *_spaced(columns), *after)
    return Sheet(GROUPS[name], headers, tuple(lines), explained, quiet=quiet)


def _beside(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> Sheet | None:
    """Ours, the paper's and the difference, for the settings that the paper has in this column group."""
    lines: list[tuple[str, ...]] = []
    for row in table:
        # The paper's people have the six attributes.
        theirs = [published(paper, row.setting, metric(name, column)) for column in COLUMNS]
        if name not in row.replicates or None in theirs:
            continue
        ours = [row.value(name, column) for column in COLUMNS]
        less = [None if o is None or t is None else o - t for o, t in zip(ours, theirs, strict=True)]
        lines.append((row.name, "ours", *map(percent, ours)))
        lines.append(("", "paper", *map(percent, theirs)))
        lines.append(("", "difference", *map(points, less)))
    if not lines or paper is None:
        return None
    starts = f"{name}/"
    sources = dict.fromkeys(text for column, text in paper.attrs["sources"].items() if column.startswith(starts))
    note = f"{'; '.join(sources)}. {BESIDE}"
    quiet = tuple(range(2, len(lines), 3))
    return Sheet(f"{GROUPS[name]} beside the paper", ("setting", "", *_spaced(COLUMNS)), tuple(lines), note, quiet)


def _spaced(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(column.replace("_", " ") for column in columns)
