"""A question for each attribute, with the answers of the networks that a headline contrasts, right and wrong."""

import textwrap
from collections.abc import Sequence

import pandas as pd

from analysis.measurements.cells import Cell, Results
from analysis.measurements.names import ATTRIBUTES, QUESTIONS, counted, in_order
from analysis.measurements.table_rows import rows
from analysis.presentation.number_format import percent
from analysis.presentation.section import Sheet
from analysis.report.headline import MEASURES, contrast

RIGHT, WRONG = "✓", "✗"
LONGEST = 60
"""Characters of an answer that are shown."""
CUE = " Answer:"
"""Ends each question that a network is asked."""
SAME = ["person", "attribute", "prompt", "expected"]
COLUMNS = {*SAME, "split", "predicted", "exact"}
"""What predictions must have."""


def sampled_cells(results: Results, *, best_of: Sequence[str] = ()) -> tuple[tuple[str, Cell], ...]:
    """Returns the settings that the headline contrasts, the better one last, each with a finished cell of it.

    Of answers after finetuning, or else in mixed training; empty if there are none.
    """
    cells, answers = {cell.key: cell for cell in results.cells}, rows(results, best_of=best_of)
    for measure in MEASURES:
        if measure.group not in QUESTIONS:
            continue
        pair = contrast([row for row in answers if measure.group in row.replicates], measure)
        if pair:
            return tuple((row.name, cells[row.replicates[measure.group].counted[0]]) for row in pair)
    return ()


def sheet(answers: Sequence[tuple[str, pd.DataFrame]]) -> Sheet | None:
    """Returns one question of each attribute with the answers of each setting; `answers` are predictions by setting.

    The last setting decides: of the half of the attributes that it answers best, the first person about whom it is
    right, of the others the first about whom it is wrong. Leaves out settings that were not asked the same. Returns
    `None` without an answer about people never asked about.
    """
    tested = [(name, frame[frame["split"] == "test"]) for name, frame in answers]
    if not tested or tested[-1][1].empty:
        return None
    last = tested[-1][0]
    attributes = in_order([*ATTRIBUTES, *tested[-1][1]["attribute"]])
    picked = _picked(tested[-1][1], attributes)
    shown: list[tuple[str, pd.DataFrame]] = []
    for name, frame in tested:
        mine = picked[SAME].merge(frame, on=SAME, how="left")
        if not mine["predicted"].isna().any():
            shown.append((name, mine))
    lines = tuple(
        (row["prompt"].removesuffix(CUE), row["expected"].strip(), *(_answer(mine.iloc[k]) for _, mine in shown))
        for k, row in enumerate(picked.to_dict("records"))
    )
    exact = tested[-1][1]["exact"]
    note = (
        f"Of the {counted(len(attributes) // 2)} attributes that {last} answers best, the first person about whom it "
        f"is right, of the others the first about whom it is wrong, as far as there is one; {RIGHT} is an exact match. "
        f"Of all its {len(exact):,} answers about people never asked about, {percent(float(exact.mean()))} % are right."
    )
    headers = ("question", "right answer", *(name for name, _ in shown))
    title = f"{counted(len(attributes)).capitalize()} questions about people never asked about"
    return Sheet(title, headers, lines, note, words=True)


def _picked(frame: pd.DataFrame, attributes: Sequence[str]) -> pd.DataFrame:
    """One row of each attribute: right ones of those that are answered best, wrong ones of the others."""
    shares = frame.groupby("attribute")["exact"].mean().reindex(list(attributes))
    best = set(shares.sort_values(ascending=False, kind="stable").index[: len(attributes) // 2])
    chosen = []
    for attribute in attributes:
        mine = frame[frame["attribute"] == attribute]
        wanted = mine[mine["exact"] == (attribute in best)]
        chosen.append((mine if wanted.empty else wanted).head(1))
    return pd.concat(chosen)


def _answer(row: pd.Series) -> str:
    """An answer with its mark, which must not stand alone on a line."""
    text = textwrap.shorten(str(row["predicted"]), LONGEST, placeholder=" …") or "(nothing)"
    return f"{text}\N{NO-BREAK SPACE}{RIGHT if row['exact'] else WRONG}"
