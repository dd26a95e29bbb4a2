"""Best of several readouts, as the paper shows it, and of the samples of a random search."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from analysis.measurements.best_settings import keep_best, shown_groups
from analysis.measurements.cells import Axis, Cell, ReplicateGroup, Results, Search, group_replicates

RANK = ("readout.rank_embedding",)


def grouped(*cells: Cell) -> tuple[ReplicateGroup, ...]:
    return group_replicates(Results("s", cells))


def test_the_highest_on_held_out_people_is_kept_in_its_place(make: Callable[..., Cell]) -> None:
    cells = [make(v, rank_embedding=r, multi=m) for m in (5, 1) for r, v in ((0, 0.2), (16, 0.6), (64, 0.4))]
    found = keep_best(grouped(*cells), RANK)
    assert [replicates.axes["corpus.multi"] for replicates in found] == [5, 1]
    assert [replicates.axes[RANK[0]] for replicates in found] == [16, 16]
    assert {(replicates.compared, replicates.state) for replicates in found} == {(3, "best of 3")}
    assert found[0].metrics["qa/exact_match/test/mean"] == pytest.approx(0.6)


def test_without_axes_nothing_is_folded(make: Callable[..., Cell]) -> None:
    given = grouped(make(0.2, rank_embedding=0), make(0.6, rank_embedding=16))
    assert keep_best(given, ()) == given and {replicates.compared for replicates in given} == {1}


def test_what_is_not_done_is_named(make: Callable[..., Cell]) -> None:
    (found,) = keep_best(
        grouped(
            make(0.2, rank_embedding=0), make(0.6, rank_embedding=16), make(0.9, state="running", rank_embedding=64)
        ),
        RANK,
    )
    assert found.done and found.axes[RANK[0]] == 16 and found.compared == 2
    assert found.state == "best of 2 (of 3); running"
    (none,) = keep_best(
        grouped(make(state="blocked: a", rank_embedding=0), make(state="running", rank_embedding=16)), RANK
    )
    assert not none.done and none.state == "blocked: a; running"


def test_seeds_are_folded_before(make: Callable[..., Cell]) -> None:
    cells = [make(v, rank_embedding=r, seed=s) for r, s, v in ((0, 0, 0.9), (0, 1, 0.1), (16, 0, 0.6), (16, 1, 0.6))]
    (found,) = keep_best(grouped(*cells), RANK)
    assert found.axes[RANK[0]] == 16, "one lucky seed must not decide"
    assert found.compared == 2 and found.seeds == (0, 1)


def test_finetuning_and_mixed_training_are_not_compared(make: Callable[..., Cell]) -> None:
    cells = (make(0.2), make(0.8, readout="mixed"))
    assert len(keep_best(grouped(*cells), RANK)) == 2


# The best sample of a random search.

RATE, LOSS = "train.learning_rate", "train/loss"


def searched(
    cells: Sequence[Cell], *, metric: str = LOSS, lowest: bool = True, axes: Sequence[str] = (RATE,)
) -> Results:
    keys = frozenset(cell.key for cell in cells if RATE in cell.axes)
    return Results("s", tuple(cells), searches=(Search(tuple(axes), metric, lowest, keys),))


def sample(make: Callable[..., Cell], held_out: float, loss: float, **axes: Axis) -> Cell:
    """A sample of a search, with the loss of its pretraining."""
    cell = make(held_out, **{RATE: round(loss / 10, 6)} | axes)
    return replace(cell, metrics={**cell.metrics, LOSS: loss})


def test_the_best_sample_is_chosen_by_its_metric_and_not_by_what_is_shown(make: Callable[..., Cell]) -> None:
    cells = [sample(make, held, loss, multi=m) for m in (5, 1) for held, loss in ((0.9, 3.0), (0.4, 1.0), (0.6, 2.0))]
    found = shown_groups(searched(cells))
    assert [replicates.axes["corpus.multi"] for replicates in found] == [5, 1]
    assert [replicates.metrics["qa/exact_match/test/mean"] for replicates in found] == [pytest.approx(0.4)] * 2
    assert {(r.compared, r.state, r.final) for r in found} == {(3, "best of 3 by train/loss", True)}
    assert not any(RATE in replicates.axes for replicates in found), "rows are not named after what was drawn"
    (highest, _) = shown_groups(searched(cells, lowest=False))
    assert highest.metrics["qa/exact_match/test/mean"] == pytest.approx(0.9)


def test_what_no_search_has_drawn_stays(make: Callable[..., Cell]) -> None:
    plain = [make(0.1), make(0.2, multi=5)]
    found = shown_groups(searched([plain[0], sample(make, 0.4, 1.0), sample(make, 0.6, 2.0), plain[1]]))
    assert [replicates.compared for replicates in found] == [1, 2, 1]
    assert shown_groups(Results("s", tuple(plain))) == grouped(*plain)


def test_a_sample_is_as_good_as_the_mean_of_its_seeds(make: Callable[..., Cell]) -> None:
    lucky = [sample(make, 0.1, 1.0, seed=0, **{RATE: 0.1}), sample(make, 0.1, 9.0, seed=1, **{RATE: 0.1})]
    steady = [sample(make, 0.2, 4.0, seed=seed, **{RATE: 0.2}) for seed in (0, 1)]
    (found,) = shown_groups(searched([*lucky, *steady]))
    assert found.metrics[LOSS] == 4.0 and found.seeds == (0, 1)


def test_samples_that_are_not_done_are_named(make: Callable[..., Cell]) -> None:
    waiting = make(state="planned", **{RATE: 0.5})
    (found,) = shown_groups(searched([sample(make, 0.4, 1.0), sample(make, 0.6, 2.0), waiting]))
    assert found.state == "best of 2 (of 3) by train/loss; planned" and not found.final


def test_samples_that_a_search_has_stopped_are_compared_and_have_no_number(make: Callable[..., Cell]) -> None:
    at_nine, at_three = (
        make(state=f"stopped early: at step {step} of 90 by asha", **{RATE: step}) for step in (10, 30)
    )
    (found,) = shown_groups(searched([sample(make, 0.4, 1.0), at_nine, sample(make, 0.6, 2.0), at_three]))
    assert found.state == "best of 4 by train/loss, 2 of them stopped early" and found.compared == 4 and found.final
    assert found.metrics["qa/exact_match/test/mean"] == pytest.approx(0.4)
    # Nor does a seed count that was done before the others were stopped.
    half = [sample(make, 0.9, 0.1, seed=0, **{RATE: 0.7}), make(state=at_nine.state, seed=1, **{RATE: 0.7})]
    (found,) = shown_groups(searched([sample(make, 0.4, 1.0), *half]))
    assert found.metrics["qa/exact_match/test/mean"] == pytest.approx(0.4)
    (none,) = shown_groups(searched([at_nine, at_three]))
    assert not none.done and none.state == at_nine.state


def test_no_number_is_shown_of_samples_that_lack_the_metric(make: Callable[..., Cell]) -> None:
    (found,) = shown_groups(searched([make(0.4, **{RATE: 0.1}), make(0.9, **{RATE: 0.2})]))
    assert not found.done and not found.metrics and found.state == "no sample has train/loss"
