"""What the store and the scheduler of a search say of a cell; `test_plan.py` has the other states."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from ray import tune

from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.planning import summary
from sweeps.planning.cell_states import observer
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


def states(plan: Plan) -> list[str]:
    return [cell.state for cell in plan.cells]


def halved(tiny: Callable[..., Sweep], samples: int = 4) -> Sweep:
    """Of 60 steps, with rungs at 6 and 20."""
    drawn = tiny({"train.learning_rate": tune.loguniform(1e-4, 1e-2)})
    return replace(drawn, samples=samples, scheduler="asha", metric="train/loss")


def pretrains(plan: Plan) -> list[str]:
    return [cell.stages.pretrain.key for cell in plan.cells]


def test_a_search_trains_to_its_rungs_and_stops_what_is_not_among_the_best(
    planned: Planner, tiny: Callable[..., Sweep], store: Store, publish: Callable[..., None]
) -> None:
    first = planned(halved(tiny))
    one, two, three, four = pretrains(first)
    assert {first.pause_at(name) for name in first.trials()} == {6} and first.unfolding
    assert states(first) == ["planned"] * 4 and all(map(first.compared, first.trials()))
    for key, loss in ((two, 4.0), (three, 4.5)):
        store.note_pause(key, {6: loss})
    paused = "paused: at step 6 of 60, until asha knows the samples before it"
    second = planned(halved(tiny))
    assert states(second) == ["planned", paused, paused, "planned"] and list(second.trials()) == [one, four]
    for key, loss in ((one, 5.0), (four, 4.2)):
        store.note_pause(key, {6: loss})
    third = planned(halved(tiny))
    out = "stopped early: at step 6 of 60 by asha"
    assert states(third) == ["planned", "planned", out, "planned"]
    assert {third.pause_at(name) for name in third.trials()} == {20} and third.unfolding
    kept = {p.stage.key: p.state for p in third.stages}
    assert (kept[three], kept[four]) == ("stopped early", "to do")
    assert summary.totals(third)["pretrainings_to_do"] == 3
    # One has diverged meanwhile: it is no failure.
    store.note_pause(one, {6: 5.0, 20: 2.0})
    store.note_pause(two, {6: 4.0, 20: 1.0})
    store.note_failure(four, "Diverged: the loss is nan at step 9")
    fourth = planned(halved(tiny))
    assert states(fourth) == ["planned", "planned", out, "stopped early: the loss is nan at step 9"]
    assert {fourth.pause_at(name) for name in fourth.trials()} == {None} and not fourth.unfolding
    for cell in fourth.cells[:2]:
        for stage in cell.stages:
            if not store.exists(stage.key):
                publish(stage)
    last = planned(halved(tiny))
    assert states(last) == ["done", "done", *states(fourth)[2:]] and not last.trials() and not last.unfolding
    # Twice as many samples leave these as they are.
    more = planned(halved(tiny, samples=8))
    assert states(more)[:4] == states(last) and len(more.trials()) == 4
    # The same trainings without a scheduler are cells like any other: one was stopped, the other has failed.
    plain = planned(replace(halved(tiny), scheduler=""))
    assert states(plain) == ["done", "done", "planned", "failed: Diverged: the loss is nan at step 9"]
    assert list(plain.trials()) == [three, four] and plain.pause_at(three) is None and not plain.compared(three)


def test_a_training_that_another_sweep_needs_goes_to_its_end(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    search = halved(tiny)
    rate = planned(search).cells[1].axes["train.learning_rate"]
    both = Sweep("both", parts=(search, tiny({"train.learning_rate": rate}, name="plain")))
    plan = planned(both)
    assert [plan.pause_at(name) for name in plan.trials()] == [6, None, 6, 6]
    assert [plan.compared(name) for name in plan.trials()] == [True, False, True, True]
    assert not planned(search, train__learning_rate=[1e-3]).unfolding, "nothing is drawn any more"


def test_the_loss_at_a_step_is_that_of_a_finished_curve_of_a_pause_or_infinite(
    planned: Planner, store: Store, publish: Callable[..., None]
) -> None:
    one, two = planned().cells

    def loss(step: int) -> float | None:
        observed = observer(store)(one.cell, f"train/loss@{step}")
        assert observed.final is (observed.value is not None)
        return observed.value  # type: ignore[return-value]

    assert loss(6) is None
    store.note_pause(one.stages.pretrain.key, {6: 4.5})
    assert (loss(6), loss(20)) == (4.5, None)
    store.note_failure(one.stages.pretrain.key, "OSError: disk full")
    assert loss(20) is None, "it may go better next time"
    store.note_failure(one.stages.pretrain.key, "Diverged: the loss is nan at step 9")
    assert (loss(6), loss(20)) == (4.5, math.inf)
    publish(one.stages.pretrain)
    # Its lines are those after 1 to 4 steps.
    assert loss(2) == 1.5 and loss(20) == loss(4) == pytest.approx(0.75)
    assert observer(store)(two.cell, "train/loss@6").value is None
