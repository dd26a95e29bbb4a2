"""The finding: what the numbers of a sweep say, in words computed from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.percent import percent, ranged
from analysis.results import Results
from analysis.table import GROUPS, Row, baseline, groups, metric, published, rows

QUESTION = "Can a model answer questions about people it has read about but was never asked about?"


@dataclass(frozen=True)
class Finding:
    """A headline and what has to be known to read it rightly."""

    headlines: tuple[str, ...]
    """One per column group; never empty."""
    remarks: tuple[str, ...]

    @property
    def headline(self) -> str:
        """All headlines in one line."""
        return "; ".join(self.headlines)


def find(results: Results, paper: pd.DataFrame | None = None) -> Finding:
    """The plainest setting against the best one, in each column group, and what is not there yet."""
    table = rows(results)
    headlines, remarks = [], []
    for name in groups(table):
        pair = _contrast(table, name)
        if not pair:
            continue
        spoken = " vs ".join(f"{row.name} {percent(row.value(name, 'mean'))} %" for row in pair)
        headlines.append(f"{GROUPS[name]}: {spoken} on held-out people")
        if said := _remarks(pair, name, paper):
            remarks.append(f"{GROUPS[name]}: {' '.join(said)}")
    if (guess := baseline(table, "mean")) is not None:
        remarks.append(f"Always answering with the commonest value would score {percent(guess)} %.")
    if unfinished := [cell for cell in results.cells if not cell.done]:
        kinds = Counter(cell.state.partition(":")[0] for cell in unfinished)
        reasons = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        remarks.append(f"{len(unfinished)} of {len(results.cells)} cells have no final number: {reasons}.")
    return Finding(tuple(headlines) or ("No result yet",), tuple(remarks))


def _contrast(table: Sequence[Row], name: str) -> tuple[Row, ...]:
    """The row without any augmentation (else the lowest) and the highest; one row where there is only one."""
    measured = [(value, k) for k, row in enumerate(table) if (value := row.value(name, "mean")) is not None]
    if len(measured) < 2:
        return tuple(table[k] for _, k in measured)
    plain = [(value, k) for value, k in measured if table[k].setting.endswith(" single")]
    low = min(plain or measured)
    high = max(pair for pair in measured if pair != low)
    return table[low[1]], table[high[1]]


def _remarks(pair: Sequence[Row], name: str, paper: pd.DataFrame | None) -> list[str]:
    """Intervals and the paper's numbers of the settings in the headline."""
    said = []
    bounds = [row.interval(name, "mean") for row in pair]
    known = [interval for interval in bounds if interval is not None]
    if len(known) == 2:
        apart = known[0][1] < known[1][0] or known[1][1] < known[0][0]
        both = " and ".join(
            ranged(row.value(name, "mean"), interval) for row, interval in zip(pair, bounds, strict=True)
        )
        said.append(f"{both}; the 95 % intervals {'do not ' if apart else ''}overlap.")
    theirs = [published(paper, row.setting, metric(name, "mean")) for row in pair]
    if None not in theirs:
        spoken = " and ".join(f"{percent(value)} %" for value in theirs)
        said.append(f"The paper, at its own scale, reports {spoken}.")
    return said
