"""Effects: a number with its 95 % interval, and the intervals of differences, means, correlations and leads."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measurements.cells import seed_interval

NORMAL = 1.96
"""Half the width of a normal 95 % interval, in standard deviations."""
DRAWS, SEED = 10_000, 0
LARGEST = 1 - 1e-12
"""Largest correlation with a finite z."""


@dataclass(frozen=True)
class Effect:
    """A number and its 95 % interval: a fraction of 1, a difference of fractions, or a correlation."""

    value: float
    low: float
    high: float

    def __sub__(self, other: "Effect") -> "Effect":
        """The difference of two independent measurements, by MOVER, Newcombe's square-and-add rule (Statistics in
        Medicine 17, 1998, method 10).

        If the same people answer both, their answers are positively correlated and this interval is too wide, which is
        safe. A constant (an interval of no width) shifts the interval and keeps its width.
        """
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Effect(value, value - below, value + above)

    @classmethod
    def of(cls, value: float, interval: tuple[float, float]) -> "Effect":
        """A recorded metric, whose value rounding may have put just outside its interval."""
        return cls(value, min(interval[0], value), max(interval[1], value))

    @classmethod
    def constant(cls, value: float) -> "Effect":
        """A number without uncertainty, such as a baseline of the data."""
        return cls(value, value, value)


def mean(effects: Sequence[Effect]) -> Effect:
    """The mean of the values with the mean of the half-widths: exact for perfectly correlated parts, else too wide."""
    value, low, high = np.mean([(effect.value, effect.low, effect.high) for effect in effects], axis=0)
    return Effect(float(value), float(low), float(high))


def correlation(pairs: Sequence[tuple[Effect, Effect]]) -> Effect | None:
    """Pearson's correlation over `pairs`, one per setting; `None` for fewer than four or if one side is constant.

    The interval covers two sources of error, combined by square-and-add on Fisher's scale z = atanh(r). Other settings
    might have been chosen: z has the deviation 1 / sqrt(settings - 3) (Fisher, Metron 1, 1921). Other people might have
    been drawn: a parametric bootstrap draws both numbers of each setting from normals with the deviations that their
    intervals imply. Noise lowers a correlation, and so do the draws; their interval is widened to contain the value.
    """
    values = np.array([[effect.value for effect in pair] for pair in pairs]).reshape(-1, 2)
    if len(values) <= 3 or (np.ptp(values, axis=0) < 1e-12).any():
        return None
    deviations = np.array([[(effect.high - effect.low) / 2 / NORMAL for effect in pair] for pair in pairs])
    # (draws, settings, 2)
    drawn = values + deviations * np.random.default_rng(SEED).standard_normal((DRAWS, *values.shape))
    drawn -= drawn.mean(axis=1, keepdims=True)
    x, y = drawn[..., 0], drawn[..., 1]
    low, high = np.quantile((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), (0.025, 0.975))
    value = float(np.corrcoef(values.T)[0, 1])
    z, z_low, z_high = (math.atanh(min(max(r, -LARGEST), LARGEST)) for r in (value, min(low, value), max(high, value)))
    half = NORMAL / math.sqrt(len(values) - 3)
    return Effect.of(value, (math.tanh(z - math.hypot(half, z - z_low)), math.tanh(z + math.hypot(half, z_high - z))))


def lead(curves: pd.DataFrame, keys: Iterable[str], ahead: str, behind: str, level: float) -> Effect | None:
    """How much earlier the curve `ahead` passes `level` than `behind`, as a share of the later one's steps.

    For passing steps a and b this is 1 - a/b, or b/a - 1 if `behind` passes first: between -1 and 1, and independent of
    the length of training. `curves` has one row per point (key, step, metric, value, n, low, high); `keys` are the
    seeds of one setting, which are averaged as log(b/a) with Student's t. A seed in which one curve never passes counts
    as a bound: then the interval is the hull of the seeds' own. Returns `None` if no seed has both curves and one that
    passes.
    """
    log_ratios = []
    for key in keys:
        ours = curves[curves["key"] == key]
        first, second = (_points(ours[ours["metric"] == name]) for name in (ahead, behind))
        passed = any(point.value >= level for curve in (first, second) for point in curve.values())
        if first and second and passed:
            log_ratios.append(_log(_passing(second, level)) - _log(_passing(first, level)))
    if not log_ratios:
        return None
    values = [ratio.value for ratio in log_ratios]
    bounds = [(ratio.low, ratio.high) for ratio in log_ratios]
    hull = min(low for low, _ in bounds), max(high for _, high in bounds)
    low, high = (hull if any(map(math.isinf, hull)) else seed_interval(values, bounds)) or hull
    value = math.fsum(values) / len(values)
    return Effect(_share(value), _share(min(low, value)), _share(max(high, value)))


def _passing(curve: Mapping[int, Effect], level: float) -> Effect:
    """The step at which a curve first passes `level`, between two points by a line.

    The interval runs from the last point before the upper bounds pass to the first point whose lower bound has passed,
    so it covers both the people and the distance between points. A curve that never passes has its last step as value
    and no upper end.
    """
    steps = sorted(curve)
    reached = [step for step in steps if curve[step].value >= level]
    possibly = [step for step in steps if curve[step].high >= level]
    surely = [step for step in steps if curve[step].low >= level]
    low = max((step for step in steps if not possibly or step < possibly[0]), default=0)
    high = float(surely[0]) if surely else math.inf
    value = float(steps[-1])
    if reached:
        value = float(reached[0])
        before = max((step for step in steps if step < reached[0]), default=None)
        if before is not None:
            rise = curve[reached[0]].value - curve[before].value
            value = before + (level - curve[before].value) / rise * (reached[0] - before)
    return Effect(value, min(low, value), max(high, value))


def _log(step: Effect) -> Effect:
    """The logarithm of a step; step 0 is minus infinity."""
    value, low, high = (math.log(x) if x > 0 else -math.inf for x in (max(step.value, 1.0), step.low, step.high))
    return Effect(value, min(low, value), max(high, value))


def _share(log_ratio: float) -> float:
    """log(b/a) as 1 - a/b, or as b/a - 1 where b is smaller."""
    return -math.expm1(-log_ratio) if log_ratio >= 0 else math.expm1(log_ratio)


def _points(curve: pd.DataFrame) -> dict[int, Effect]:
    known = curve.dropna(subset=["value", "low", "high"])
    columns = (known[name] for name in ("step", "value", "low", "high"))
    return {int(step): Effect.of(value, (low, high)) for step, value, low, high in zip(*columns, strict=True)}
