"""Verdicts as they are shown: counted in a line, as a table for a console, as lines of the page, and as JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.claims import FAILS, HOLDS, OPEN, Outcome, Verdict, Word, sha256
from analysis.percent import MISSING, percent, points

STYLES = {HOLDS: "green", FAILS: "red", OPEN: "yellow"}


def shown(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The claims that the sweep's cells bear on, if only in part."""
    return tuple(verdict for verdict in verdicts if verdict.covered)


def counted(verdicts: Sequence[Verdict]) -> str | None:
    """For instance `7 hold, 2 fail, 2 not enough data`, of the claims whose every part the sweep has cells for; `None`
    where there is no such claim."""
    words = Counter(verdict.verdict for verdict in verdicts if verdict.tested)
    if not words:
        return None
    said = []
    for word, one, several in ((HOLDS, "holds", "hold"), (FAILS, "fails", "fail"), (OPEN, OPEN, OPEN)):
        if words[word]:
            said.append(f"{words[word]} {one if words[word] == 1 else several}")
    return ", ".join(said)


def effect(outcome: Outcome) -> str:
    """`+79.1 [72.4, 85.8]`: points for a difference, percent for an accuracy, a plain number for a correlation."""
    found = outcome.effect
    if found is None:
        return MISSING
    numbers = [_number(outcome, value) for value in (found.value, found.low, found.high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def threshold(outcome: Outcome) -> str:
    """`at least +40.0`, in the same unit as the effect."""
    word = "at most" if outcome.part.at_least is None else "at least"
    return f"{word} {_number(outcome, outcome.part.threshold)}"


def rich_table(verdicts: Sequence[Verdict]) -> Table | str:
    """One line for each claim and each of its parts, for a console; nothing where the sweep bears on none."""
    if not (found := shown(verdicts)):
        return ""
    table = Table(
        title=f"Claims of the paper, by thresholds set before the first run (claims.toml {sha256()})",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("claim", overflow="fold")
    for header in ("verdict", "effect [95 %]", "threshold"):
        table.add_column(header, justify="left" if header == "verdict" else "right", no_wrap=True)
    for verdict in found:
        says = verdict.claim.says
        if not verdict.tested:
            says += f" ({len(verdict.covered)} of {len(verdict.parts)} parts in this sweep)"
        table.add_row(Text(says, style="bold"), _coloured(verdict.verdict))
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
        "claims": [
            {
                "name": verdict.claim.name,
                "says": verdict.claim.says,
                "paper": verdict.claim.paper,
                "verdict": verdict.verdict,
                "why": verdict.why,
                "tested": verdict.tested,
                "parts": [_part(outcome) for outcome in verdict.parts],
            }
            for verdict in verdicts
        ],
    }


def _coloured(word: Word) -> Text:
    return Text(word, style=STYLES[word])


def _part(outcome: Outcome) -> dict[str, Any]:
    found, part = outcome.effect, outcome.part
    return {
        "says": part.says,
        "verdict": outcome.verdict,
        "why": outcome.why,
        "effect": found.value if found else None,
        "interval": [found.low, found.high] if found else None,
        "at_least" if part.at_most is None else "at_most": part.threshold,
        "covered": outcome.covered,
        "cells": list(outcome.cells),
    }


def _number(outcome: Outcome, value: float) -> str:
    if outcome.part.correlation:
        return f"{value:.2f}"
    return points(value) if outcome.part.lead or outcome.part.minus else percent(value)
