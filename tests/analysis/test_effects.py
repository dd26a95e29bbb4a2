"""Effects: MOVER's differences, careful means, correlations by bootstrap, leads of curves."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis import effects
from analysis.effects import Effect

fractions = st.floats(0, 1)
measured = st.tuples(fractions, fractions, fractions).map(lambda x: Effect(sorted(x)[1], min(x), max(x)))


def wilson(right: int, n: int) -> Effect:
    low, high = stats.binomtest(right, n).proportion_ci(method="wilson")
    return Effect(right / n, low, high)


def test_mover_is_the_method_of_newcombe() -> None:
    found = wilson(56, 70) - wilson(48, 80)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(measured, measured)
def test_a_difference_lies_in_its_interval_and_has_no_side(a: Effect, b: Effect) -> None:
    ours, theirs = a - b, b - a
    assert ours.low <= ours.value <= ours.high
    assert (-theirs.value, -theirs.high, -theirs.low) == (ours.value, ours.low, ours.high)
    assert ours.high - ours.low >= max(a.high - a.low, b.high - b.low) - 1e-12
    assert ours.high - ours.low <= (a.high - a.low) + (b.high - b.low) + 1e-12


@given(measured, measured, fractions)
def test_a_difference_shrinks_with_the_intervals(a: Effect, b: Effect, share: float) -> None:
    tighter = Effect(a.value, a.value - share * (a.value - a.low), a.value + share * (a.high - a.value))
    wide, narrow = a - b, tighter - b
    assert wide.low <= narrow.low + 1e-12 and narrow.high <= wide.high + 1e-12


@given(measured, fractions)
def test_a_constant_only_moves_the_interval(a: Effect, baseline: float) -> None:
    found = a - Effect.constant(baseline)
    assert (found.low, found.high) == pytest.approx((a.low - baseline, a.high - baseline))


@given(st.lists(measured, min_size=1, max_size=5))
def test_a_mean_has_the_mean_of_the_widths(several: list[Effect]) -> None:
    found = effects.mean(several)
    assert found.value == pytest.approx(sum(e.value for e in several) / len(several))
    assert found.high - found.low == pytest.approx(sum(e.high - e.low for e in several) / len(several))


def test_a_value_is_never_outside_its_interval() -> None:
    assert Effect.of(1.0, (0.98, 0.9999999)) == Effect(1.0, 0.98, 1.0)


def around(*values: float, half: float = 0.02) -> list[Effect]:
    return [Effect(value, value - half, value + half) for value in values]


def test_a_correlation_is_pearsons_with_an_interval_that_holds_it() -> None:
    x, y = (0.05, 0.3, 0.5, 0.6, 0.9), (0.1, 0.2, 0.55, 0.7, 0.8)
    found = effects.correlation(list(zip(around(*x), around(*y), strict=True)))
    assert found and found.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.low <= found.value <= found.high <= 1.0 and found.low > 0.9
    assert found == effects.correlation(list(zip(around(*x), around(*y), strict=True)))
    unsure = effects.correlation(list(zip(around(*x, half=0.3), around(*y, half=0.3), strict=True)))
    assert unsure and unsure.low < found.low and unsure.value == found.value
    straight = effects.correlation(list(zip(around(*x, half=0.1), around(*x, half=0.1), strict=True)))
    assert straight and straight.value == pytest.approx(straight.high), "noise never shows the 1 that it lowers"
    sure = effects.correlation(list(zip(around(*x, half=0), around(*x, half=0), strict=True)))
    assert sure and (sure.low, sure.value, sure.high) == pytest.approx((1, 1, 1))


def test_what_does_not_vary_has_no_correlation() -> None:
    assert effects.correlation(list(zip(around(0.1, 0.2, 0.3), around(0.5, 0.5, 0.5), strict=True))) is None
    assert effects.correlation([]) is None


def curves(key: str, ahead: dict[int, float], behind: dict[int, float], half: float = 0.03) -> pd.DataFrame:
    lines = [("ahead", ahead), ("behind", behind)]
    return pd.DataFrame(
        [
            {"key": key, "step": step, "metric": name, "value": v, "n": 250, "low": v - half, "high": v + half}
            for name, points in lines
            for step, v in points.items()
        ]
    )


def test_a_lead_is_the_mean_over_training() -> None:
    table = curves("a", {0: 0.0, 10: 0.6, 20: 1.0}, {0: 0.0, 10: 0.2, 20: 1.0})
    found = effects.lead(table, ["a"], "ahead", "behind")
    assert found and found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(math.hypot(0.03, 0.03))
    back = effects.lead(table, ["a"], "behind", "ahead")
    assert back and back.value == pytest.approx(-0.2)
    # A further point between two says nothing new, where the mean of points would give it weight.
    more = curves("a", {0: 0.0, 5: 0.3, 10: 0.6, 20: 1.0}, {0: 0.0, 5: 0.1, 10: 0.2, 20: 1.0})
    again = effects.lead(more, ["a"], "ahead", "behind")
    assert again and again.value == pytest.approx(0.2)


def test_seeds_of_a_lead_go_by_students_t() -> None:
    leads = (0.20, 0.24, 0.31)
    table = pd.concat([curves(str(k), {0: d, 10: d}, {0: 0.0, 10: 0.0}) for k, d in enumerate(leads)])
    found = effects.lead(table, ["0", "1", "2"], "ahead", "behind")
    half = stats.t.ppf(0.975, 2) * np.std(leads, ddof=1) / math.sqrt(3)
    assert found and found.value == pytest.approx(0.25) and found.high - found.value == pytest.approx(half)


def test_no_lead_without_both_curves() -> None:
    table = curves("a", {0: 0.1, 10: 0.6}, {})
    assert effects.lead(table, ["a"], "ahead", "behind") is None
    assert effects.lead(curves("a", {0: 0.1}, {10: 0.6}), ["a"], "ahead", "behind") is None
    unsure = curves("a", {0: 0.1}, {0: 0.6}).assign(low=float("nan"))
    assert effects.lead(unsure, ["a"], "ahead", "behind") is None
    assert effects.lead(curves("a", {5: 0.3}, {5: 0.1}), ["a"], "ahead", "behind") is not None
