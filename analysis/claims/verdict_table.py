"""Verdicts as text: counted in a line, as a table for a console, as numbers of the page, and as JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.claims.claim_file import sha256
from analysis.claims.verdict import FAILS, HOLDS, OPEN, Outcome, Verdict, Word
from analysis.presentation.number_format import MISSING, percent, points

STYLES = {HOLDS: "green", FAILS: "red", OPEN: "yellow"}


def shown(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The claims for which the sweep has cells, if only for some parts."""
    return tuple(verdict for verdict in verdicts if verdict.covered)


def counted(verdicts: Sequence[Verdict]) -> str | None:
    """For instance `7 hold, 2 fail, 2 not enough data`, over claims whose every part has cells; `None` without such."""
    words = Counter(verdict.verdict for verdict in verdicts if verdict.tested)
    if not words:
        return None
    counts = []
    for word, one, several in ((HOLDS, "holds", "hold"), (FAILS, "fails", "fail"), (OPEN, OPEN, OPEN)):
        if words[word]:
            counts.append(f"{words[word]} {one if words[word] == 1 else several}")
    return ", ".join(counts)


def effect(outcome: Outcome) -> str:
    """`+79.1 [72.4, 85.8]`: points for a difference, percent for an accuracy, a plain number for a correlation."""
    measured = outcome.effect
    if measured is None:
        return MISSING
    numbers = [_number(outcome, value) for value in (measured.value, measured.low, measured.high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def threshold(outcome: Outcome) -> str:
    """`at least +40.0`, in the same unit as the effect."""
    word = "at most" if outcome.part.at_least is None else "at least"
    return f"{word} {_number(outcome, outcome.part.threshold)}"


def tuned_on(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Which recipes were tuned on seeds of these results, one sentence each."""
    notes = dict.fromkeys(note for verdict in verdicts for part in verdict.parts for note in part.tuned_on)
    return tuple(f"{note[0].upper()}{note[1:]}: shown, but not counted for a verdict." for note in notes)


def rich_table(verdicts: Sequence[Verdict]) -> Table | str:
    """A console table with one line per claim and per part; an empty text if the sweep has cells for no claim."""
    tested = shown(verdicts)
    if not tested:
        return ""
    table = Table(
        title=f"Claims of the paper, by thresholds set before the first run (claims.toml {sha256()})",
        title_justify="left",
        title_style="bold",
        caption="\n".join(tuned_on(tested)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("claim", overflow="fold")
    for header in ("verdict", "effect [95 %]", "threshold"):
        table.add_column(header, justify="left" if header == "verdict" else "right", no_wrap=True)
    for verdict in tested:
        says = Text(verdict.claim.says, style="bold")
        if verdict.scope:
            says.append(f"\n  {verdict.in_sweep} {verdict.scope}", style=f"not bold {STYLES[verdict.in_sweep]}")
        table.add_row(says, _coloured(verdict.in_sweep))
        for outcome in verdict.covered:
            label = Text(f"  {outcome.part.says}")
            if outcome.verdict == OPEN:
                label.append(f"\n    {outcome.why}", style="dim")
            table.add_row(label, _coloured(outcome.verdict), effect(outcome), threshold(outcome))
    return table


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything: each claim with its parts, effects, intervals, thresholds, reasons and the cells behind them."""
    return {
        "sha256": sha256(),
        "tuned_on": list(tuned_on(verdicts)),
        "claims": [
            {
                "name": verdict.claim.name,
                "says": verdict.claim.says,
                "paper": verdict.claim.paper,
                "verdict": verdict.verdict,
                "why": verdict.why,
                "tested": verdict.tested,
                "in_sweep": verdict.in_sweep,
                "scope": verdict.scope,
                "parts": [_part(outcome) for outcome in verdict.parts],
            }
            for verdict in verdicts
        ],
    }


def _coloured(word: Word) -> Text:
    return Text(word, style=STYLES[word])


def _part(outcome: Outcome) -> dict[str, Any]:
    effect, part = outcome.effect, outcome.part
    return {
        "says": part.says,
        "verdict": outcome.verdict,
        "why": outcome.why,
        "effect": effect.value if effect else None,
        "interval": [effect.low, effect.high] if effect else None,
        "at_least" if part.at_most is None else "at_most": part.threshold,
        "paper_value": part.paper_value,
        "covered": outcome.covered,
        "tuned_on": list(outcome.tuned_on),
        "cells": list(outcome.cells),
    }


def _number(outcome: Outcome, value: float) -> str:
    if outcome.part.correlation:
        return f"{value:.2f}"
    return points(value) if outcome.part.lead or outcome.part.minus else percent(value)
