"""Random search: the same settings on every expansion, within their distributions, and wrong requests in one line."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from ray import tune

from ktrain.errors import WrongRequest
from ktrain.stages import axes, cell_key
from sweeps import Sweep
from sweeps.planning.grid import expand, searches
from sweeps.planning.sampling import METRICS, Search, describe, draw

RATE = "train.learning_rate"
FIRST = [(0.000174, 1.0), (0.00153, 1.0), (0.000215, 1.0), (0.0041, 0.5), (0.00101, 1.0)]
"""The samples of `sweep()`, written down when they were first drawn: every machine must draw the same."""
SHARES = np.linspace(0, 1, 4000, endpoint=False).tolist()


def sweep(grid: dict[str, Any] | None = None, **fields: Any) -> Sweep:
    """A random search of learning rate and clipping."""
    drawn = {RATE: tune.loguniform(1e-4, 1e-2), "train.clip": tune.choice([0.5, 1.0])}
    return Sweep("s", drawn if grid is None else grid, **{"samples": 5, **fields})


def drawn(searched: Sweep, *names: str, **overrides: list[Any]) -> list[tuple[Any, ...]]:
    cells = expand(searched, "mini", {name.replace("__", "."): values for name, values in overrides.items()})
    return [tuple(axes(cell)[name] for name in names or (RATE, "train.clip")) for cell in cells]


def refusal(searched: Any) -> str:
    """The one line with which a sweep is refused, when it is made or when it is expanded."""
    with pytest.raises(WrongRequest) as caught:
        expand(searched() if callable(searched) else searched, "mini", {})
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.startswith("sweep s: ")
    return message


# The same cells every time.


def test_a_sweep_has_the_same_cells_on_every_expansion() -> None:
    assert drawn(sweep()) == drawn(sweep()) == FIRST
    assert len({cell_key(cell) for cell in expand(sweep(), "mini", {})}) == 5


def test_more_samples_and_another_axis_leave_the_first_ones_as_they_were() -> None:
    assert drawn(sweep(samples=8))[:5] == drawn(sweep())
    more = {RATE: tune.loguniform(1e-4, 1e-2), "train.batch": tune.randint(8, 64)}
    assert drawn(sweep(more), RATE) == drawn(sweep(), RATE)


def test_another_name_or_seed_draws_others() -> None:
    others = [drawn(sweep(search_seed=1)), drawn(Sweep("t", sweep().grid, samples=5))]
    assert all(not set(other) & set(drawn(sweep())) for other in others) and others[0] != others[1]


def test_every_point_of_the_grid_and_every_seed_has_the_same_samples() -> None:
    grid = {**sweep().grid, "corpus.multi": tune.grid_search([1, 5])}  # type: ignore[dict-item]
    found = drawn(sweep(grid), RATE, "corpus.multi", "seed", seed=[0, 1])
    assert len(found) == len(set(found)) == 5 * 2 * 2
    assert set(Counter(rate for rate, *_ in found).values()) == {4}


def test_an_axis_that_is_set_on_the_command_line_is_not_drawn() -> None:
    assert {rate for rate, _ in drawn(sweep(), train__learning_rate=[1e-3])} == {1e-3}
    both = {"train__learning_rate": [1e-3, 2e-3], "train__clip": [1.0]}
    assert drawn(sweep(), **both) == [(1e-3, 1.0), (2e-3, 1.0)]


def test_a_plan_knows_its_searches() -> None:
    searched = sweep(metric="train/loss")
    assert searches(searched, "mini", {}) == (Search("s", 5, (RATE, "train.clip"), "train/loss"),)
    assert searches(searched, "mini", {RATE: [1e-3]}) == (Search("s", 5, ("train.clip",), "train/loss"),)
    assert searches(searched, "mini", {RATE: [1e-3], "train.clip": [1]}) == ()
    joined = Sweep("joined", parts=(Sweep("plain", {"seed": 1}), Sweep("inner", parts=(searched,))))
    assert [search.part for search in searches(joined, "mini", {})] == ["inner"]
    assert str(searches(searched, "mini", {})[0]) == (
        "5 random samples of train.learning_rate, train.clip; the best by train/loss (lowest) is reported"
    )


# What is drawn follows the distribution.


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


# What is refused.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"samples": 2.5}, "samples=2.5: must be a whole number from 0 to 100,000"),
        ({"samples": True}, "samples=True: must be a whole number"),
        ({"samples": -1}, "samples=-1: must be a whole number"),
        ({"samples": 0, "metric": "train/loss"}, "it needs samples=N too"),
        ({"search_seed": -1}, "search_seed=-1: must be a whole number from 0"),
        ({"metric": 3}, "metric=3: must be one of train/loss, "),
        ({"metric": "train/los"}, "did you mean train/loss?"),
        ({"metric": "qa/exact_match/test/mean"}, "is measured on the people that are reported; must be one of"),
        ({"grid": {}, "parts": (Sweep("p", {}),)}, "has parts, so it has no grid of its own, nor samples"),
        ({"samples": 0}, f"{RATE}=tune.loguniform(0.0001, 0.01): drawing it needs Sweep(samples=N)"),
        ({"grid": {"seed": 1}}, "samples=5: no axis of the grid is drawn"),
        ({"metric": "mixed/exact_match/train/mean"}, "cells of readout.kind=qa_finetune do not measure it"),
        ({"samples": 60_000, "grid": {RATE: tune.uniform(1, 2), "seed": tune.grid_search([0, 1])}}, "120,000 cells"),
    ],
)
def test_a_wrong_request_is_told_in_one_line(fields: dict[str, Any], told: str) -> None:
    assert told in refusal(lambda: sweep(**fields))


@pytest.mark.parametrize(
    ("axis", "distribution", "told"),
    [
        ("seed", tune.randint(0, 9), "seed is no setting to draw; seed=A,B gives every sample each value"),
        ("readout.kind", tune.choice(["q_probe", "p_probe"]), "readout.kind is no setting to draw"),
        ("train.lr", tune.uniform(1e-4, 1e-3), "did you mean train.learning_rate"),
        ("train.windows", tune.uniform(0, 1), "is no such number; tune.choice can draw train.windows"),
        ("train.steps", tune.uniform(100, 200), "tune.randint or tune.lograndint can draw train.steps"),
        ("corpus.fullname", tune.randint(0, 2), "tune.choice can draw corpus.fullname"),
        ("train.windows", tune.choice(["cut", "half"]), "draws half, and train.windows must be 'cut' or 'whole'"),
        (
            "train.qa_ratio",
            tune.uniform(-0.1, 0.5),
            "draws -0.1, and train.qa_ratio must be greater than or equal to 0",
        ),
        ("train.qa_ratio", tune.uniform(0, 1.5), "and train.qa_ratio must be less than 1"),
        ("train.qa_ratio", tune.quniform(0, 1, 0.5), "draws 1, and train.qa_ratio must be less than 1"),
        ("train.zero", tune.randint(0, 5), "draws 4, and train.zero must be less than or equal to 3"),
        ("train.clip", tune.uniform(2, 1), "tune.uniform(2, 1): has nothing to draw"),
        ("train.clip", tune.choice([]), "has nothing to draw"),
        ("train.zero", tune.randint(0, "3"), "tune.randint(0, 3): has nothing to draw"),
        ("train.clip", tune.uniform(1, 10**400), "has nothing to draw"),
        ("train.clip", tune.randn(1, 1), "tune.randn(...): it cannot be drawn from a sweep's own seed"),
        ("train.clip", tune.sample_from(lambda _: 1), "tune.sample_from(...): it cannot be drawn"),
    ],
)
def test_an_axis_is_drawn_within_its_own_limits(axis: str, distribution: Any, told: str) -> None:
    assert told in refusal(sweep({axis: distribution}))


def test_the_open_limit_of_a_distribution_may_be_that_of_the_axis() -> None:
    assert all(0 <= ratio < 1 for (ratio,) in drawn(sweep({"train.qa_ratio": tune.uniform(0, 1)}), "train.qa_ratio"))
    assert all(zero <= 3 for (zero,) in drawn(sweep({"train.zero": tune.randint(0, 4)}, samples=20), "train.zero"))


def test_no_metric_is_measured_on_the_people_that_are_reported() -> None:
    assert not [name for name in METRICS if "/test/" in name]


def test_distributions_are_described_as_they_were_called() -> None:
    assert describe(tune.qloguniform(1e-4, 1e-1, 5e-5)) == "tune.qloguniform(0.0001, 0.1, 5e-05)"
    assert describe(tune.choice(["a", 2])) == "tune.choice(['a', 2])"


def test_the_order_of_categories_changes_nothing() -> None:
    orders = [["x", "y", "z"], ["z", "x", "y"]]
    assert len({tuple(draw(tune.choice(order), share) for share in SHARES) for order in orders}) == 1
