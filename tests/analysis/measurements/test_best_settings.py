"""Best of several readouts, as the paper shows it."""

from collections.abc import Callable

import pytest

from analysis.measurements.best_settings import keep_best
from analysis.measurements.cells import Cell, ReplicateGroup, Results, group_replicates

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
