"""Random search: the same settings on every expansion, within their distributions, and wrong requests in one line."""

import math
import statistics
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from ray import tune

from ktrain.config import CellConfig
from ktrain.errors import WrongRequest
from ktrain.stages import axes, cell_key
from sweeps import Sweep
from sweeps.planning.grid import expand, searches
from sweeps.planning.sampling import METRICS, Observation, Observe, Search, proposed_samples
from sweeps.recipes.optuna_proposals import StoppedEarly, propose

RATE = "train.learning_rate"
FIRST = [(0.000174, 1.0), (0.00153, 1.0), (0.000215, 1.0), (0.0041, 0.5), (0.00101, 1.0)]
"""The samples of `sweep()`, written down when they were first drawn: every machine must draw the same."""


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
    assert searches(searched, "mini", {}) == (Search("s", 5, (RATE, "train.clip"), "train/loss", cells=5),)
    assert searches(searched, "mini", {RATE: [1e-3]}) == (Search("s", 5, ("train.clip",), "train/loss", cells=5),)
    assert searches(searched, "mini", {RATE: [1e-3], "train.clip": [1]}) == ()
    joined = Sweep("joined", parts=(Sweep("plain", {"seed": 1}), Sweep("inner", parts=(searched,))))
    assert [search.part for search in searches(joined, "mini", {})] == ["inner"]
    assert str(searches(searched, "mini", {})[0]) == (
        "5 random samples of train.learning_rate, train.clip; "
        "the best by train/loss (lowest), on what pretraining reads, is reported"
    )


# What is refused.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"samples": 2.5}, "samples=2.5: must be a whole number from 0 to 100,000"),
        ({"samples": True}, "samples=True: must be a whole number"),
        ({"samples": -1}, "samples=-1: must be a whole number"),
        ({"samples": 0, "metric": "train/loss"}, "it needs samples=N too"),
        ({"searcher": "optun", "metric": "train/loss"}, "searcher=optun: must be one of random, optuna; did you mean"),
        ({"searcher": "optuna"}, "searcher=optuna: learns from a metric, which is one of train/loss, "),
        ({"samples": 0, "searcher": "optuna"}, "it needs samples=N too"),
        ({"scheduler": "ash", "metric": "train/loss"}, "scheduler=ash: must be a text, asha; did you mean asha?"),
        ({"scheduler": object(), "metric": "train/loss"}, "must be a text, asha"),
        ({"samples": 0, "scheduler": "asha"}, "it needs samples=N too"),
        ({"scheduler": "asha"}, "it compares samples by a metric; a training that runs reports metric=train/loss"),
        (
            {"scheduler": "asha", "metric": "qa/exact_match/train/mean"},
            "scheduler=asha: qa/exact_match/train/mean is measured after the training; a training that runs reports ",
        ),
        (
            {"scheduler": "asha", "metric": "train/loss", "grid": {"train.steps": tune.randint(100, 200)}},
            "scheduler=asha: train.steps is drawn, and losses are compared after equally many steps",
        ),
        (
            {"scheduler": "asha", "metric": "train/loss", "grid": {"corpus.multi": tune.choice([1, 5])}},
            "scheduler=asha: corpus.multi is drawn, and losses are compared on the same text",
        ),
        (
            {"scheduler": "asha", "metric": "train/loss", "grid": {"readout.learning_rate": tune.uniform(0.1, 1)}},
            "no axis that is drawn (readout.learning_rate) changes the pretraining, which it would stop",
        ),
        (
            {
                "scheduler": "asha",
                "metric": "train/loss",
                "grid": {RATE: tune.uniform(0.1, 1), "train.steps": 2, "train.warmup": 0},
            },
            "train.steps=2: too few to compare after a third of them",
        ),
        (
            {"metric": "train/loss", "grid": {"model.family": tune.choice(["gpt2", "gbert"])}},
            "metric=train/loss: model.family is drawn, and the loss of gbert is of masked words alone",
        ),
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


def test_what_is_drawn_is_not_set_by_a_row_too() -> None:
    rows = tune.grid_search([{"train.clip": 0.5}, {RATE: 1e-3}])
    told = refusal(sweep({RATE: tune.loguniform(1e-4, 1e-2), "row": rows}))
    assert told == "sweep s: train.learning_rate: is drawn, and a row of the grid sets it too"


@pytest.mark.parametrize(
    ("axis", "distribution", "told"),
    [
        ("seed", tune.randint(0, 9), "seed is no setting to draw; seed=A,B gives every sample each value"),
        ("readout.kind", tune.choice(["q_probe", "p_probe"]), "readout.kind is no setting to draw"),
        ("corpus.validation_share", tune.uniform(0, 0.5), "corpus.validation_share is no setting to draw"),
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


def test_people_who_are_set_aside_may_decide_where_there_are_some() -> None:
    metric = "qa/exact_match/validation/mean"
    line = refusal(sweep(metric=metric))
    assert f"metric={metric}: nobody is set aside to choose by; corpus.validation_share=0.2 would set" in line
    searched = sweep({**sweep().grid, "corpus.validation_share": 0.2}, metric=metric)  # type: ignore[dict-item]
    assert len(expand(searched, "mini", {})) == 5
    (found,) = searches(searched, "mini", {})
    assert not found.lowest and str(found).endswith(
        f"; the best by {metric} (highest), on people set aside for that, is reported"
    )


def test_losses_of_different_texts_are_not_compared() -> None:
    line = refusal(sweep({"train.qa_ratio": tune.uniform(0.2, 0.8)}, metric="train/loss"))
    assert "metric=train/loss: train.qa_ratio is drawn, which changes what the loss is of" in line


# What learns from results.


@pytest.fixture
def optuna() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -c constraints.txt -e '.[optuna]'")


def loss_of(cell: CellConfig) -> float:
    """A loss whose lowest is at a learning rate of 0.001."""
    return abs(math.log10(cell.train.learning_rate) + 3)


def results(done: int) -> Observe:
    """What a store knows in which the first so many cells that were ever looked up are done."""
    known: dict[CellConfig, None] = {}

    def observe(cell: CellConfig, metric: str) -> Observation:
        if cell not in known and len(known) < done:
            known[cell] = None
        return Observation(True, loss_of(cell)) if cell in known else Observation(False)

    return observe


def adaptive(grid: dict[str, Any] | None = None, samples: int = 20) -> Sweep:
    drawn = {RATE: tune.loguniform(1e-5, 1e-1), "train.clip": tune.choice([0.5, 1.0])}
    return Sweep("s", drawn if grid is None else grid, samples=samples, searcher="optuna", metric="train/loss")


def test_proposals_come_in_rounds_as_results_become_known(optuna: None) -> None:
    sizes = [len(expand(adaptive(), "mini", {}, observe=results(done))) for done in (0, 7, 8, 11, 12, 19, 20)]
    assert sizes == [8, 8, 12, 12, 16, 20, 20]
    first = expand(Sweep("s", adaptive().grid, samples=8), "mini", {})
    assert expand(adaptive(), "mini", {}) == first, "the first ones are those of a random search"


def test_a_rerun_proposes_the_same_and_more_samples_leave_the_first_ones(optuna: None) -> None:
    known = results(100)
    found = expand(adaptive(), "mini", {}, observe=known)
    assert found == expand(adaptive(), "mini", {}, observe=known)
    assert expand(adaptive(samples=30), "mini", {}, observe=known)[:20] == found
    assert expand(adaptive(samples=10), "mini", {}, observe=known) == found[:10]


def test_proposals_follow_the_metric(optuna: None) -> None:
    chance = statistics.median(map(loss_of, expand(Sweep("s", adaptive().grid, samples=200), "mini", {})))
    nearer = expand(adaptive(samples=40), "mini", {}, observe=results(100))
    away = expand(adaptive(samples=40), "mini", {}, observe=lambda cell, metric: Observation(True, -loss_of(cell)))
    assert statistics.median(map(loss_of, nearer[8:])) < 0.7 * chance, "towards a planted valley"
    assert statistics.median(map(loss_of, away[8:])) > 1.2 * chance, "away from a planted hill"


def test_each_point_of_the_grid_learns_from_its_own_results_over_all_seeds(optuna: None) -> None:
    grid = {**adaptive().grid, "corpus.multi": tune.grid_search([1, 5])}  # type: ignore[dict-item]
    searched = adaptive(grid, samples=12)

    def observe(cell: CellConfig, metric: str) -> Observation:
        # All is known of one point, and of the other only the first seed.
        known = cell.corpus.multi == 1 or cell.seed == 0
        return Observation(known, loss_of(cell) if known else None)

    counts = Counter(
        (cell.corpus.multi, cell.seed) for cell in expand(searched, "mini", {"seed": [0, 1]}, observe=observe)
    )
    assert counts == {(1, 0): 12, (1, 1): 12, (5, 0): 8, (5, 1): 8}


def test_proposals_go_on_from_samples_that_were_stopped(optuna: None, monkeypatch: pytest.MonkeyPatch) -> None:
    searched, told = replace(adaptive(samples=12), scheduler="asha"), list[Any]()

    def observe(cell: CellConfig, metric: str) -> Observation:
        return Observation(True, loss_of(cell))

    def noted(drawn: Any, known: list[Any], count: int, **options: Any) -> list[dict[str, Any]]:
        told[:] = known
        return propose(drawn, known, count, **options)

    monkeypatch.setattr("sweeps.planning.sampling.propose", noted)
    found = expand(searched, "mini", {}, observe=observe)
    assert len(found) == 12 and found == expand(searched, "mini", {}, observe=observe)
    stopped = [value for _, value in told if isinstance(value, StoppedEarly)]
    assert 0 < len(stopped) < len(told) == 8 and {value.step for value in stopped} <= {594, 1782}
    waiting = expand(searched, "mini", {}, observe=lambda cell, metric: Observation(False))
    assert len(waiting) == 8


def test_samples_without_a_number_do_not_stop_a_search(optuna: None) -> None:
    assert len(expand(adaptive(), "mini", {}, observe=lambda cell, metric: Observation(True))) == 20


def test_a_proposal_that_no_cell_can_have_is_left_out(optuna: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def impossible(drawn: Any, known: list[Any], count: int, **options: Any) -> list[dict[str, Any]]:
        told[:] = known
        return [{"train.warmup": 10**6, RATE: 1e-3}] * count

    monkeypatch.setattr("sweeps.planning.sampling.propose", impossible)
    found = expand(adaptive(samples=16), "mini", {}, observe=lambda cell, metric: Observation(True, loss_of(cell)))
    assert len(found) == 8 and [value for _, value in told[8:]] == [None] * 4


def test_optuna_proposes_within_every_distribution(optuna: None) -> None:
    drawn = {
        "a": tune.uniform(0, 1),
        "b": tune.quniform(0, 1, 0.25),
        "c": tune.qloguniform(1e-4, 1e-2, 1e-4),
        "d": tune.randint(3, 7),
        "e": tune.lograndint(1, 100),
        "f": tune.qrandint(0, 100, 10),
        "g": tune.choice(["x", True, None]),
        "h": tune.qrandint(5, 95, 10),
    }
    found = proposed_samples(
        drawn, lambda sample: Observation(True, sample["a"]), sweep="s", search_seed=0, count=30, lowest=False, point=""
    )
    assert len(found) == 30
    for sample in found:
        assert 0 <= sample["a"] < 1 and sample["b"] in (0, 0.25, 0.5, 0.75, 1)
        assert 1e-4 <= sample["c"] <= 1e-2 and sample["c"] * 1e4 == pytest.approx(round(sample["c"] * 1e4))
        assert sample["d"] in range(3, 7) and 1 <= sample["e"] < 100 and sample["f"] in range(0, 101, 10)
        assert sample["g"] in ("x", True, None)
        assert sample["h"] in (5, *range(10, 100, 10), 95), "Ray Tune's multiples are those of 10, and its limits"


def test_where_optuna_is_not_installed_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "searcher=optuna: optuna is not installed: pip install" in refusal(adaptive)
