"""Rank order: how far our rows have the paper's order, where values cannot be compared."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from analysis.paper.matching import MatchedValue
from analysis.presentation.number_format import MINUS, percent

NOISE = 0.011
"""Largest difference between the two runs of one setting in the paper (Figures 3 and 12 against 10, ratio 0.8). Rows of
the paper that are no further apart have no order."""
SHOWN = 3
"""Largest number of columns, and of reversed pairs in each, that are listed in words."""


@dataclass(frozen=True)
class RankAgreement:
    """How far the rows of one column have the paper's order."""

    panel: str
    column: str
    metric: str
    tau: float | None
    """Kendall's tau-b of the rows: 1 for the same order, -1 for the opposite, `None` if either side is constant."""
    n: int
    """Number of rows with both values."""
    reversed_pairs: tuple[str, ...]
    """Pairs that the paper has the other way round by more than `NOISE` and whose 95 % intervals here are disjoint."""


def rank_agreement(panel: str, column: str, metric: str, rows: Sequence[tuple[str, MatchedValue]]) -> RankAgreement:
    """Compares the order of `rows` (label and match, each with a value of ours) to the paper's."""
    # It takes most of a second to import, and most reports have no order of rows.
    from scipy.stats import kendalltau

    ours = [match.ours for _, match in rows]
    tau = float(kendalltau(ours, [match.paper.value for _, match in rows]).statistic)
    reversed_pairs = tuple(filter(None, (_reversal(one, other) for one, other in combinations(rows, 2))))
    return RankAgreement(panel, column, metric, None if math.isnan(tau) else tau, len(rows), reversed_pairs)


def _reversal(one: tuple[str, MatchedValue], other: tuple[str, MatchedValue]) -> str | None:
    """Describes a pair whose order differs from the paper's beyond noise and intervals; `None` for any other pair."""
    low, high = (one, other) if (one[1].ours or 0.0) < (other[1].ours or 0.0) else (other, one)
    (low_name, low_match), (high_name, high_match) = low, high
    if low_match.paper.value - high_match.paper.value <= NOISE or not _disjoint(low_match, high_match):
        return None
    return (
        f"{low_name} {percent(low_match.ours)} < {high_name} {percent(high_match.ours)} "
        f"(paper {percent(low_match.paper.value)} > {percent(high_match.paper.value)})"
    )


def describe_orders(orders: Sequence[RankAgreement]) -> Iterator[str]:
    """Yields a sentence per column that is a mean; if there are none or many, one on the distribution of all taus."""
    means = [order for order in orders if order.metric.endswith("/mean")]
    for order in means if len(means) <= SHOWN else ():
        pairs = "; ".join(order.reversed_pairs[:SHOWN]) + ("; …" if len(order.reversed_pairs) > SHOWN else "")
        remark = f"reversed beyond the 95 % intervals: {pairs}" if pairs else "no pair is reversed beyond the intervals"
        yield f"{order.column}: Kendall's tau {signed(order.tau)} over {order.n} rows; {remark}."
    taus = [order.tau for order in orders if order.tau is not None]
    if taus and not 0 < len(means) <= SHOWN:
        most = max(order.n for order in orders)
        reversed_count = sum(len(order.reversed_pairs) for order in orders)
        columns, rows = ("columns", "rows") if any(order.column for order in orders) else ("grids", "cells")
        yield (
            f"Kendall's tau of {len(taus)} {columns}, up to {most} {rows} each: median {signed(median(taus))}, from "
            f"{signed(min(taus))} to {signed(max(taus))}; {reversed_count} pairs of {rows} are reversed beyond the "
            "intervals."
        )


def signed(tau: float | None) -> str:
    """Formats tau with two digits and a true minus sign."""
    return percent(None) if tau is None else f"{tau:.2f}".replace("-", MINUS)


def _disjoint(a: MatchedValue, b: MatchedValue) -> bool:
    """Whether both intervals are known and do not overlap."""
    if a.interval is None or b.interval is None:
        return False
    return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
