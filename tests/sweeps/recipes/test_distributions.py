"""Ray Tune's distributions: every value at its share, as often as Ray Tune itself draws it."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from ray import tune

from sweeps.recipes.distributions import describe, draw

SHARES = np.linspace(0, 1, 4000, endpoint=False).tolist()


@pytest.mark.parametrize(
    ("distribution", "middle", "low", "high"),
    [
        (tune.uniform(2.0, 4.0), 3.0, 2.0, 4.0),
        (tune.uniform(-0.3, 0.3), 0.0, -0.3, 0.3),
        (tune.uniform(100.0, 101.0), 100.5, 100.0, 101.0),
        (tune.loguniform(1e-4, 1e-2), 1e-3, 1e-4, 1e-2),
        (tune.loguniform(1.0, 1.001), 1.0005, 1.0, 1.001),
        (tune.quniform(0.0, 1.0, 0.25), 0.5, 0.0, 1.25),
        (tune.randint(3, 7), 5, 3, 7),
        (tune.lograndint(1, 10_000), 100, 1, 10_000),
        (tune.qrandint(0, 100, 10), 50, 0, 110),
    ],
)
def test_draws_stay_within_the_limits_around_the_middle(
    distribution: Any, middle: float, low: float, high: float
) -> None:
    values = [draw(distribution, share) for share in SHARES]
    assert values == sorted(values) and values[0] == low and low <= max(values) < high
    assert draw(distribution, 0.5) == pytest.approx(middle)
    own = distribution.sample(size=4000, random_state=0)
    assert np.median(values) == pytest.approx(np.median(own), rel=0.1, abs=0.03), "Ray Tune's own draws are the oracle"


@pytest.mark.parametrize("distribution", [tune.randint(1, 5), tune.lograndint(1, 5), tune.choice([1, 2, 3, 4])])
def test_values_come_as_often_as_ray_draws_them(distribution: Any) -> None:
    ours = Counter(draw(distribution, share) for share in SHARES)
    rays = Counter(int(value) for value in distribution.sample(size=4000, random_state=0))
    assert set(ours) == {1, 2, 3, 4} and all(abs(ours[value] - rays[value]) < 200 for value in ours)


def test_numbers_are_short() -> None:
    assert max(len(f"{draw(tune.loguniform(1e-4, 1e-2), share) * 1e6:.10g}") for share in SHARES) <= 4
    assert draw(tune.uniform(0.0, 1.0), 0.123456) == 0.123
    assert len({draw(tune.uniform(100.0, 101.0), share) for share in SHARES}) == 1000


def test_distributions_are_described_as_they_were_called() -> None:
    assert describe(tune.qloguniform(1e-4, 1e-1, 5e-5)) == "tune.qloguniform(0.0001, 0.1, 5e-05)"
    assert describe(tune.choice(["a", 2])) == "tune.choice(['a', 2])"


def test_the_order_of_categories_changes_nothing() -> None:
    orders = [["x", "y", "z"], ["z", "x", "y"]]
    assert len({tuple(draw(tune.choice(order), share) for share in SHARES) for order in orders}) == 1
