"""Formats of fractions of 1 and of counts, the same everywhere."""

import math
from collections.abc import Sequence

MISSING = "–"  # noqa: RUF001 (an en dash is intended)
MINUS = "−"  # noqa: RUF001 (so that signs align with digits)


def percent(value: float | None) -> str:
    """`70.1` for 0.701; an en dash for a missing value."""
    return MISSING if value is None or math.isnan(value) else f"{100 * value:.1f}"


def ranged(value: float | None, interval: tuple[float, float] | None) -> str:
    """`70.1 [66.8, 73.3]`; without an interval the value alone."""
    if value is None or math.isnan(value) or interval is None:
        return percent(value)
    return f"{percent(value)} [{percent(interval[0])}, {percent(interval[1])}]"


def points(value: float | None) -> str:
    """`+3.2` or, with a true minus sign, `-7.6`: a difference in percentage points."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def span(counts: Sequence[int]) -> str:
    """`250`, or `250 to 1,500` if they differ; empty for no counts."""
    low, high = min(counts, default=0), max(counts, default=0)
    return (f"{low:,}" if low == high else f"{low:,} to {high:,}") if counts else ""
