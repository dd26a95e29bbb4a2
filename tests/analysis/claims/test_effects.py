"""Effects: MOVER's differences, careful means, correlations by bootstrap, leads of curves."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.claims import effects
from analysis.claims.effects import Effect

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
    assert found.low <= found.value <= found.high <= 1.0
    assert found == effects.correlation(list(zip(around(*x), around(*y), strict=True)))
    unsure = effects.correlation(list(zip(around(*x, half=0.3), around(*y, half=0.3), strict=True)))
    assert unsure and unsure.low < found.low and unsure.value == found.value
    straight = effects.correlation(list(zip(around(*x, half=0.1), around(*x, half=0.1), strict=True)))
    assert straight and straight.value == pytest.approx(straight.high), "noise never shows the 1 that it lowers"
    sure = effects.correlation(list(zip(around(*x, half=0), around(*x, half=0), strict=True)))
    assert sure and (sure.low, sure.value, sure.high) == pytest.approx((1, 1, 1))


def test_without_noise_of_people_the_interval_is_fishers_over_settings() -> None:
    x, y = (0.05, 0.3, 0.5, 0.6, 0.9, 0.4), (0.1, 0.2, 0.55, 0.7, 0.8, 0.3)
    found = effects.correlation(list(zip(around(*x, half=0), around(*y, half=0), strict=True)))
    fisher = stats.pearsonr(x, y).confidence_interval(0.95)
    assert found and (found.low, found.high) == pytest.approx((fisher.low, fisher.high), abs=1e-4)


def test_six_settings_at_096_do_not_exclude_080() -> None:
    """The case of the audit: Fisher's interval over six settings at 0.96 is 0.69 to 0.996."""
    x = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    noise = np.array([1.0, -1.0, 0.0, 0.0, -1.0, 1.0])  # uncorrelated with x
    scale = x.std() * math.sqrt(1 / 0.9604**2 - 1) / noise.std()
    found = effects.correlation(
        list(zip(around(*x, half=0.001), around(*(x + scale * noise), half=0.001), strict=True))
    )
    assert found and found.value == pytest.approx(0.9604, abs=1e-3)
    assert found.low == pytest.approx(0.69, abs=0.02) and found.high == pytest.approx(0.996, abs=0.001)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert effects.correlation(list(zip(around(0.1, 0.2, 0.3), around(0.5, 0.5, 0.5), strict=True))) is None
    assert effects.correlation([]) is None
    assert effects.correlation(list(zip(around(0.1, 0.2, 0.3), around(0.1, 0.2, 0.4), strict=True))) is None, "three"


def curves(key: str, ahead: dict[int, float], behind: dict[int, float], half: float = 0.03) -> pd.DataFrame:
    lines = [("ahead", ahead), ("behind", behind)]
    return pd.DataFrame(
        [
            {"key": key, "step": step, "metric": name, "value": v, "n": 250, "low": v - half, "high": v + half}
            for name, points in lines
            for step, v in points.items()
        ]
    )


def lead(table: pd.DataFrame, keys: list[str], level: float = 0.9) -> Effect | None:
    return effects.lead(table, keys, "ahead", "behind", level)


def line(passes: float, steps: range = range(0, 201, 10)) -> dict[int, float]:
    """A curve that rises in a line from 0 and passes 90 % at a step."""
    return {step: min(1.0, 0.9 * step / passes) for step in steps}


def test_a_lead_is_the_share_of_steps_by_which_a_level_is_passed_earlier() -> None:
    table = curves("a", line(60), line(100), half=0.03)
    found = lead(table, ["a"])
    assert found and found.value == pytest.approx(0.4)
    back = effects.lead(table, ["a"], "behind", "ahead", 0.9)
    assert back and (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    longer = curves("a", line(600, range(0, 2001, 100)), line(1000, range(0, 2001, 100)), half=0.03)
    scaled = lead(longer, ["a"])
    assert scaled and scaled.value == pytest.approx(0.4), "it does not depend on the length of training"
    alike = lead(curves("a", line(80), line(80)), ["a"])
    assert alike and alike.value == 0.0 and alike.low < 0 < alike.high


@given(st.floats(20, 150), st.floats(20, 150), st.integers(1, 20))
def test_the_interval_of_a_lead_contains_the_true_one_whatever_the_points(a: float, b: float, apart: int) -> None:
    points = range(0, 401, apart)
    found = lead(curves("a", line(a, points), line(b, points), half=0.0), ["a"])
    true = 1 - a / b if a <= b else b / a - 1
    assert found and found.low - 1e-9 <= true <= found.high + 1e-9


def test_people_and_the_distance_of_points_widen_a_lead() -> None:
    exact, unsure = (lead(curves("a", line(60), line(100), half=half), ["a"]) for half in (0.001, 0.2))
    assert exact and unsure and unsure.low < exact.low < 0.4 < exact.high <= unsure.high
    assert (unsure.low, unsure.value, unsure.high) == (-1.0, exact.value, 1.0), "no lower bound ever passes"
    sparse = range(0, 201, 50)
    coarse = lead(curves("a", line(60, sparse), line(100, sparse), half=0.001), ["a"])
    assert coarse and coarse.low < exact.low and coarse.high > exact.high


def test_a_curve_that_never_passes_is_a_bound() -> None:
    found = lead(curves("a", line(60), {step: 0.5 for step in range(0, 201, 10)}), ["a"])
    assert found and found.high == 1.0 and 0.6 < found.low <= found.value
    back = lead(curves("a", {step: 0.5 for step in range(0, 201, 10)}, line(60)), ["a"])
    assert back and back.low == -1.0 and back.value <= back.high < -0.6
    from_the_start = lead(curves("a", {0: 0.95, 10: 1.0}, line(60)), ["a"])
    assert from_the_start and from_the_start.high == 1.0


def test_seeds_of_a_lead_go_by_students_t_on_the_scale_of_ratios() -> None:
    ends = (80.0, 100.0, 120.0)
    table = pd.concat([curves(str(k), line(60), line(end)) for k, end in enumerate(ends)])
    found = lead(table, ["0", "1", "2"])
    logs = [math.log(end / 60) for end in ends]
    half = stats.t.ppf(0.975, 2) * np.std(logs, ddof=1) / math.sqrt(3)
    low = np.mean(logs) - half
    assert found and found.value == pytest.approx(1 - math.exp(-np.mean(logs)))
    assert found.high == pytest.approx(1 - math.exp(-np.mean(logs) - half))
    assert found.low == pytest.approx(1 - math.exp(-low) if low >= 0 else math.exp(low) - 1)
    never = pd.concat([table, curves("3", line(60), {step: 0.5 for step in range(0, 201, 10)})])
    bound = lead(never, ["0", "1", "2", "3"])
    assert bound and bound.high == 1.0, "a bound has no spread, so the hull stands in"


def test_no_lead_without_two_curves_of_which_one_passes() -> None:
    assert lead(curves("a", {0: 0.1, 10: 0.6}, {}), ["a"]) is None
    assert lead(curves("a", {0: 0.1, 10: 0.6}, {0: 0.1, 10: 0.5}), ["a"]) is None
    unsure = curves("a", line(60), line(100)).assign(low=float("nan"))
    assert lead(unsure, ["a"]) is None
    assert lead(curves("a", {5: 0.95}, {5: 0.1}), ["a"]) is not None
