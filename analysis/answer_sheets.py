"""Sheets of answers: exact match on people never asked about, by setting, and the same beside the paper's numbers."""

from collections.abc import Sequence

import pandas as pd

from analysis.cells import Results
from analysis.names import COLUMNS, GROUPS, RECALL, majority, metric
from analysis.percent import MISSING, percent, points, ranged
from analysis.rows import Row, baseline, groups, published, rows
from analysis.section import Sheet

EXPLAINED = (
    "Exact match on people never asked about, in percent, with the 95 % interval of the mean. Baseline: always the "
    "commonest value among the same people. Asked: exact match on the people whose questions were trained on. "
    "Recall: share of the attribute tokens of the biographies that the model gives back as read; below its gate it is "
    "not asked."
)
BESIDE = "Differences are ours less the paper's, in percentage points."
AFTER = ("n", "seeds", "asked", "baseline", "recall")


def sheets(results: Results, paper: pd.DataFrame | None = None, *, best_of: Sequence[str] = ()) -> tuple[Sheet, ...]:
    """For each column group with results, ours, and where the paper has these settings, a comparison with it.

    `paper` is `analysis.paper.beside(...)`.
    """
    table = rows(results, best_of=best_of)
    found = []
    for name in groups(table):
        found.append(_ours(table, name))
        if (compared := _beside(table, name, paper)) is not None:
            found.append(compared)
    return tuple(found)


def _ours(table: Sequence[Row], name: str) -> Sheet:
    """Per row its numbers, or the state that stands in their place."""
    guesses = [percent(baseline(table, majority(name, "whole", column))) for column in COLUMNS]
    lines = [("majority baseline", *guesses, *[""] * len(AFTER))]
    for row in table:
        fold = row.folds.get(name)
        if fold is None:
            continue
        if not fold.done:
            gate = fold.params.get("readout.recall_gate")
            told = f" [gate {percent(gate)}]" if "recall" in fold.state and isinstance(gate, float) else ""
            lines.append((row.name, row.state(name) + told))
            continue
        count = row.count(name, metric(name, "mean"))
        lines.append(
            (
                row.name if row.state(name) == "done" else f"{row.name} [{row.state(name)}]",
                ranged(row.value(name, "mean"), row.interval(name, "mean")),
                *(percent(row.value(name, column)) for column in COLUMNS[1:]),
                MISSING if count is None else f"{count:,}",
                ", ".join(map(str, fold.seeds)),
                percent(row.asked(name)),
                percent(fold.metrics.get(majority(name, "whole", "mean"))),
                percent(fold.metrics.get(RECALL)),
            )
        )
    headers = ("setting", *_columns(), *AFTER)
    return Sheet(GROUPS[name], headers, tuple(lines), EXPLAINED, quiet=(0,))


def _beside(table: Sequence[Row], name: str, paper: pd.DataFrame | None) -> Sheet | None:
    """Ours, the paper's and the difference, for the settings that the paper has in this column group."""
    lines: list[tuple[str, ...]] = []
    for row in table:
        theirs = [published(paper, row.setting, metric(name, column)) for column in COLUMNS]
        if name not in row.folds or None in theirs:
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
    return Sheet(f"{GROUPS[name]} beside the paper", ("setting", "", *_columns()), tuple(lines), note, quiet)


def _columns() -> tuple[str, ...]:
    return tuple(column.replace("_", " ") for column in COLUMNS)
