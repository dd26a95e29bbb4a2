"""What becomes of the samples of a search follows from their losses alone, and is what a slow count gives."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrain.config import CellConfig, CorpusConfig, TrainConfig
from ktrain.training.progress import on_curve
from sweeps.recipes.halving import TO_THE_END, Bracket, Fate, fates, rungs
from sweeps.recipes.optuna_proposals import StoppedEarly

STEPS = 90
FIRST, SECOND = 10, 30
RATE = "train.learning_rate"
Losses = dict[tuple[int, int], float]
"""Losses by number of the sample and step."""


def cell(sample: int, *, seed: int = 0, people: int = 8, steps: int = STEPS) -> CellConfig:
    train = TrainConfig(steps=steps, warmup=1, learning_rate=(sample + 1) / 1000)
    return CellConfig(corpus=CorpusConfig(people=people), train=train, seed=seed)


def number(of: CellConfig) -> int:
    return round(of.train.learning_rate * 1000) - 1


def decided(count: int, losses: Losses) -> list[Fate]:
    """What becomes of so many samples, without what they are told of besides."""
    bracket = Bracket(lambda of, step: losses.get((number(of), step)))
    return [bracket.add([cell(sample)]) for sample in range(count)]


def at(*losses: float, step: int = FIRST) -> Losses:
    return {(sample, step): loss for sample, loss in enumerate(losses)}


@pytest.mark.parametrize("steps", [3, 8, 9, 60, 90, 100, 360, 1200, 5400, 80_000])
def test_rungs_are_lines_of_the_curve_near_a_ninth_and_a_third(steps: int) -> None:
    found = rungs(steps)
    assert found and list(found) == sorted(set(found)) and all(on_curve(rung, steps) for rung in found)
    assert 0.25 * steps <= found[-1] <= steps / 3 and found[0] <= max(steps / 9, 2)
    assert rungs(2) == ()


def test_a_sample_goes_on_among_the_best_third_of_those_before_it() -> None:
    found = decided(6, at(5.0, 4.0, 4.5, 3.0, 3.5, 6.0))
    assert [fate.stopped for fate in found] == [False, False, True, False, False, True]
    assert found[2] == Fate(FIRST, stopped=True, loss=4.5) and found[2].told == StoppedEarly(FIRST, 4.5)
    assert found[0] == Fate(SECOND), "it trains to the next rung"
    ended = at(5.0, 4.0) | at(1.0, 2.0, step=SECOND)
    assert decided(2, ended) == [TO_THE_END, Fate(SECOND, stopped=True, loss=2.0)]


def test_equal_losses_go_on_together() -> None:
    assert not any(fate.stopped for fate in decided(5, at(*[2.0] * 5)))


def test_nobody_is_ranked_before_all_samples_before_it_are_there() -> None:
    losses = at(5.0, 4.0, 9.0)
    del losses[0, FIRST]
    assert decided(3, losses) == [Fate(FIRST), Fate(FIRST, waits=True), Fate(FIRST, waits=True)]
    # At the second rung too: the first sample may still come there.
    waiting = at(5.0, 4.0) | {(1, SECOND): 3.0}
    assert decided(2, waiting) == [Fate(SECOND), Fate(SECOND, waits=True)]


def test_a_loss_that_diverges_is_the_worst_wherever_it_does() -> None:
    found = decided(3, at(math.inf, 4.0, 3.0))
    assert found[0].stopped and found[0].told is None and not found[1].stopped
    late = at(4.0) | at(3.0, step=SECOND) | at(math.inf, step=STEPS)
    assert decided(1, late) == [Fate(STEPS, stopped=True, loss=math.inf)]


def test_a_sample_counts_with_the_mean_over_its_seeds_and_waits_for_all() -> None:
    losses = {(0, 0): 2.0, (0, 1): 4.0, (1, 0): 1.0, (1, 1): 4.5}
    cells = [cell(sample, seed=seed) for sample in (0, 1) for seed in (0, 1)]

    def known(of: CellConfig, step: int) -> float | None:
        return losses.get((number(of), of.seed)) if step == FIRST else None

    assert {fate.stopped for fate in fates(cells, [RATE], known).values()} == {False}
    losses[1, 1] = 5.5
    found = fates(cells, [RATE], known)
    assert [found[one].stopped for one in cells] == [False, False, True, True]
    assert found[cells[2]].loss == pytest.approx(3.25)
    del losses[1, 1]
    waiting = fates(cells, [RATE], known)
    assert [waiting[one].waits for one in cells] == [False, False, True, False]


def test_points_of_the_grid_are_compared_each_by_itself() -> None:
    cells = [cell(sample, people=people) for people in (8, 12) for sample in (0, 1)]
    losses = dict(zip(cells, (2.0, 1.0, 9.0, 8.0), strict=True))
    found = fates(cells, [RATE], lambda of, step: losses[of] if step == FIRST else None)
    assert not any(fate.stopped for fate in found.values())
    assert {fate.scheduler for fate in found.values()} == {"asha"}


def test_a_sample_that_is_drawn_twice_counts_once() -> None:
    bracket = Bracket(lambda of, step: float(number(of)) if step == FIRST else None)
    assert [bracket.add([cell(sample)]).stopped for sample in (5, 4, 4, 4, 3)] == [False] * 5


def oracle(losses: Sequence[tuple[float, float]]) -> list[int]:
    """The step at which each sample ends, by the rule as it is written down."""
    ends, second = [], list[float]()
    for k, (early, late) in enumerate(losses):
        better = sum(other < early for other, _ in losses[:k])
        if better >= math.ceil((k + 1) / 3):
            ends.append(FIRST)
            continue
        second.append(late)
        ends.append(STEPS if sum(other < late for other in second) < math.ceil(len(second) / 3) else SECOND)
    return ends


values = st.floats(0.0, 9.0, allow_nan=False)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_outcome_is_the_same_in_whatever_order_trials_run(losses: list[tuple[float, float]], order: object) -> None:
    known: Losses = {}
    while True:
        found = decided(len(losses), known)
        behind = [(k, fate.step) for k, fate in enumerate(found) if fate.step and not (fate.stopped or fate.waits)]
        if not behind:
            break
        # As if the others were interrupted.
        for k, step in order.sample(behind, order.randint(1, len(behind))):  # type: ignore[attr-defined]
            known[k, step] = losses[k][0 if step == FIRST else 1]
    assert [fate.step or STEPS for fate in found] == oracle(losses)
    assert not any(fate.waits for fate in found)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=12))
def test_more_samples_leave_the_first_ones_as_they_were(losses: list[tuple[float, float]]) -> None:
    known = {(k, step): loss for k, pair in enumerate(losses) for step, loss in zip((FIRST, SECOND), pair, strict=True)}
    assert decided(len(losses) - 1, known) == decided(len(losses), known)[:-1]
