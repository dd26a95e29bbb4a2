"""Effects: a number with its 95 % interval, and what differences, means, correlations and leads come to."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cells import over_seeds

NORMAL = 1.96
"""Half the width of a normal 95 % interval, in standard deviations."""
DRAWS, SEED = 10_000, 0


@dataclass(frozen=True)
class Effect:
    """A number and its 95 % interval: a fraction of 1, a difference of fractions, or a correlation."""

    value: float
    low: float
    high: float

    def __sub__(self, other: "Effect") -> "Effect":
        """The difference of two numbers that were measured on their own: MOVER, the square-and-add rule of Newcombe
        (Statistics in Medicine 17, 1998, method 10).

        Where the same people answer both, their answers go together and the difference varies less than this says, so
        the interval is on the safe side. A constant (an interval of no width) moves the interval and leaves its width.
        """
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Effect(value, value - below, value + above)

    @classmethod
    def of(cls, value: float, interval: tuple[float, float]) -> "Effect":
        """A recorded metric; rounding may have put its value a digit outside its interval."""
        return cls(value, min(interval[0], value), max(interval[1], value))

    @classmethod
    def constant(cls, value: float) -> "Effect":
        """A number that is known and not measured, such as a baseline of the data."""
        return cls(value, value, value)


def mean(effects: Sequence[Effect], weights: Sequence[float] | None = None) -> Effect:
    """The mean of the values, with the mean of the half-widths: right for parts that rise and fall together, and on
    the safe side for all others."""
    shares = np.asarray([1.0] * len(effects) if weights is None else weights, float)
    bounds = np.array([(effect.value, effect.low, effect.high) for effect in effects])
    value, low, high = (shares / shares.sum()) @ bounds
    return Effect(float(value), float(low), float(high))


def correlation(pairs: Sequence[tuple[Effect, Effect]]) -> Effect | None:
    """Pearson's correlation over `pairs`, one of each setting; `None` where one side does not vary.

    Its interval is a parametric bootstrap: both numbers of each setting are drawn from normals with the deviations that
    their intervals imply. So it knows of the people, not of other settings that might have been chosen. Noise lowers
    a correlation, and so do the draws; the interval is widened to hold the value itself.
    """
    values = np.array([[effect.value for effect in pair] for pair in pairs]).reshape(-1, 2)
    if len(values) < 2 or (np.ptp(values, axis=0) < 1e-12).any():
        return None
    spread = np.array([[(effect.high - effect.low) / 2 / NORMAL for effect in pair] for pair in pairs])
    drawn = values + spread * np.random.default_rng(SEED).standard_normal((DRAWS, *values.shape))
    drawn -= drawn.mean(axis=1, keepdims=True)
    x, y = drawn[..., 0], drawn[..., 1]
    low, high = np.quantile((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), (0.025, 0.975))
    value = float(np.corrcoef(values.T)[0, 1])
    return Effect(value, min(float(low), value), max(float(high), value))


def lead(curves: pd.DataFrame, keys: Iterable[str], ahead: str, behind: str) -> Effect | None:
    """By how much the curve `ahead` lies above `behind` over all of training, for the seeds `keys` of one setting.

    `curves` has a row per point: key, step, metric, value, n, low, high. The mean is over steps that have both, each
    with the share of training that it stands for (trapezoids), of the values and, as in `mean`, of the half-widths;
    several seeds go by Student's t. `None` where no cell has both curves.
    """
    found = [_lead(curves[curves["key"] == key], ahead, behind) for key in keys]
    leads = [effect for effect in found if effect is not None]
    if not leads:
        return None
    values = [effect.value for effect in leads]
    bounds = over_seeds(values, [(effect.low, effect.high) for effect in leads])
    return Effect.of(math.fsum(values) / len(values), bounds) if bounds else None


def _lead(curves: pd.DataFrame, ahead: str, behind: str) -> Effect | None:
    one, other = (_points(curves[curves["metric"] == name]) for name in (ahead, behind))
    steps = sorted(one.keys() & other.keys())
    if not steps:
        return None
    # Half of the distance to each neighbour, which is all of training in the end.
    edges = np.array([steps[0], *(np.array(steps[1:]) + steps[:-1]) / 2, steps[-1]])
    weights = np.diff(edges) if len(steps) > 1 else [1.0]
    return mean([one[step] - other[step] for step in steps], list(weights))


def _points(curve: pd.DataFrame) -> dict[int, Effect]:
    known = curve.dropna(subset=["value", "low", "high"])
    columns = (known[name] for name in ("step", "value", "low", "high"))
    return {int(step): Effect.of(value, (low, high)) for step, value, low, high in zip(*columns, strict=True)}
