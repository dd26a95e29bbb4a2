"""Order: how far the rows of a column come in the paper's order, where values cannot be compared."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from analysis.matching import Match
from analysis.percent import MINUS, percent

NOISE = 0.011
"""Rows of the paper no further apart have no order: the runs that it made twice (Figures 3 and 12 against 10, ratio
0.8) differ by up to so much."""
SHOWN = 3
"""So many columns, and reversed pairs of each, are told in words."""


@dataclass(frozen=True)
class Order:
    """How the rows of one column are ordered here and in the paper."""

    panel: str
    column: str
    metric: str
    tau: float | None
    """Kendall's tau-b of the rows, 1 for the same order and -1 for the opposite; `None` where all are equal."""
    n: int
    """How many rows have both numbers."""
    turned: tuple[str, ...]
    """Pairs that the paper has the other way round by more than `NOISE`, and whose 95 % intervals here are apart."""


def order(panel: str, column: str, metric: str, rows: Sequence[tuple[str, Match]]) -> Order:
    """Kendall's tau-b: (concordant - discordant pairs) / sqrt(pairs not tied here * pairs not tied in the paper)."""
    agreeing, here, there = 0, 0, 0
    turned = []
    for (one, a), (two, b) in combinations(rows, 2):
        ours, theirs = _sign(a.ours, b.ours), _sign(a.number.value, b.number.value)
        agreeing, here, there = agreeing + ours * theirs, here + abs(ours), there + abs(theirs)
        if ours * theirs < 0 and abs(a.number.value - b.number.value) > NOISE and _apart(a, b):
            low, high = ((one, a), (two, b)) if ours < 0 else ((two, b), (one, a))
            turned.append(
                f"{low[0]} {percent(low[1].ours)} < {high[0]} {percent(high[1].ours)} "
                f"(paper {percent(low[1].number.value)} > {percent(high[1].number.value)})"
            )
    tau = agreeing / math.sqrt(here * there) if here and there else None
    return Order(panel, column, metric, tau, len(rows), tuple(turned))


def spoken(orders: Sequence[Order]) -> Iterator[str]:
    """The columns that are means, one by one; where these are none or many, how the orders of all columns spread."""
    means = [one for one in orders if one.metric.endswith("/mean")]
    for one in means if len(means) <= SHOWN else ():
        listed = "; ".join(one.turned[:SHOWN]) + ("; …" if len(one.turned) > SHOWN else "")
        said = f"reversed beyond the 95 % intervals: {listed}" if listed else "no pair is reversed beyond the intervals"
        yield f"{one.column}: Kendall's tau {signed(one.tau)} over {one.n} rows; {said}."
    taus = [one.tau for one in orders if one.tau is not None]
    if taus and not 0 < len(means) <= SHOWN:
        most, pairs = max(one.n for one in orders), sum(len(one.turned) for one in orders)
        of, each = ("columns", "rows") if any(one.column for one in orders) else ("grids", "cells")
        yield (
            f"Kendall's tau of {len(taus)} {of}, up to {most} {each} each: median {signed(median(taus))}, from "
            f"{signed(min(taus))} to {signed(max(taus))}; {pairs} pairs of {each} are reversed beyond the intervals."
        )


def signed(tau: float | None) -> str:
    """Two digits, with a true minus sign."""
    return percent(None) if tau is None else f"{tau:.2f}".replace("-", MINUS)


def _sign(a: float | None, b: float | None) -> int:
    return 0 if a is None or b is None or a == b else 1 if a > b else -1


def _apart(a: Match, b: Match) -> bool:
    if a.interval is None or b.interval is None:
        return False
    return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
