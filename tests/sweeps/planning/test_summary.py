from collections.abc import Callable
from dataclasses import replace

import pytest
from ray import tune

from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.planning import cost, measured_cost, summary
from sweeps.planning.grid import load
from sweeps.planning.plan import Plan, make
from sweeps.planning.summary import wall_clock

Planner = Callable[..., Plan]


def test_sharing_is_told_against_cells_that_would_share_nothing(planned: Planner) -> None:
    plan = planned(readout__steps=[20, 30, 40])
    totals = summary.totals(plan)
    by_key = {p.stage.key: p for p in plan.stages}
    every = [by_key[stage.key] for cell in plan.cells for stage in cell.stages]
    assert (totals["stages"], totals["stages_without_sharing"]) == (10, 18)
    assert (totals["pretrainings"], totals["pretrainings_without_sharing"]) == (2, 6)
    assert totals["flops_without_sharing"] == sum(p.flops for p in every) > totals["flops"]


@pytest.mark.parametrize("gpus", [1, 2, 3, 9])
def test_trials_are_done_side_by_side(planned: Planner, tiny: Callable[..., Sweep], gpus: int) -> None:
    plan = planned(tiny({"train.steps": tune.grid_search([100, 400, 200, 300])}))
    trials = [sum(p.seconds for p in plan.stages if p.stage.key in keys) for keys in _keys(plan)]
    assert wall_clock(plan) == pytest.approx(sum(p.seconds for p in plan.stages))
    # By hand: whoever is free first takes the longest that is left.
    free = [0.0] * gpus
    for seconds in sorted(trials, reverse=True):
        free[free.index(min(free))] += seconds
    assert wall_clock(replace(plan, gpus=gpus)) == pytest.approx(max(free))


def _keys(plan: Plan) -> list[set[str]]:
    """The stages of each trial, what is shared in the first of them alone."""
    seen: set[str] = set()
    found = []
    for cell in plan.cells:
        keys = {stage.key for stage in cell.stages} - seen
        seen |= keys
        found.append(keys)
    return found


def test_what_is_done_or_blocked_takes_no_time(planned: Planner, publish: Callable[..., None]) -> None:
    first, second = planned().cells
    for stage in first.stages:
        publish(stage)
    publish(second.stages.corpus)
    publish(second.stages.pretrain, recalled=0.1)
    plan = planned()
    assert wall_clock(plan) == 0.0 == summary.totals(plan)["seconds_to_do"]
    assert summary.totals(plan)["stages_blocked"] == 1


def test_times_are_for_a_core_an_h100_or_what_is_named(store: Store) -> None:
    mini, full = make(load("demo"), "mini", {}, store), make(load("demo"), "full", {}, store)
    assert (summary.totals(mini)["device"], summary.totals(full)["device"]) == ("core", "H100")
    larger = make(load("demo"), "mini", {"model.size": ["124m"]}, store)
    assert summary.totals(larger)["device"] == "core"
    named = replace(full, chosen=cost.gpu("a100"), gpus=2)
    totals = summary.totals(named)
    assert (totals["device"], totals["gpus"], totals["flops_per_second"]) == ("A100", 2, 0.4 * 312e12)
    trained = [p for p in named.stages if p.flops]
    assert trained and all(p.seconds == p.flops / totals["flops_per_second"] for p in trained)
    assert totals["wall_seconds_to_do"] == pytest.approx(totals["seconds_to_do"] / 2, rel=0.01)


def test_how_much_is_read_without_its_name_is_told(store: Store) -> None:
    """By hand: L / 2T, and L / 8T where each sentence has the name."""
    for sweep, scale, wanted in (
        ("demo", "full", {"cut": [0.071, 0.071]}),
        ("fig3", "full", {"cut": [0.022, 0.071]}),
        ("demo", "mini", {"whole": [0.0, 0.0]}),
    ):
        assert summary.totals(make(load(sweep), scale, {}, store))["nameless_attribute_tokens"] == wanted
    both = make(load("demo"), "mini", {"train.windows": ["cut", "whole"]}, store)
    assert summary.totals(both)["nameless_attribute_tokens"] == {"cut": [0.224, 0.224], "whole": [0.0, 0.0]}


def test_the_parameters_of_each_network_are_told(store: Store) -> None:
    plan = make(load("fig2"), "full", {}, store)
    networks = summary.totals(plan)["networks"]
    found = {name: network["parameters"] for name, network in networks.items()}
    assert list(found) == [f"gpt2 {size}, tokenizer gpt2" for size in ("124m", "302m", "682m")]
    # The names of sizes are the paper's, which are not all parameter counts.
    assert 707e6 < found["gpt2 682m, tokenizer gpt2"] < 715e6
    assert f"gpt2 682m, tokenizer gpt2: {found['gpt2 682m, tokenizer gpt2']:,} parameters." in measured_cost.note(plan)


def test_a_speed_that_was_measured_here_is_used_unless_another_is_named(
    planned: Planner, publish: Callable[..., None]
) -> None:
    cell = planned().cells[0]
    publish(cell.stages.corpus)
    publish(cell.stages.pretrain)
    plan = planned()
    (network, speed), *others = summary.totals(plan)["flops_per_second_measured"].items()
    assert not others and network == "gpt2 mini"
    # The fixture says 400 tokens a second.
    (other,) = [p for p in plan.stages if p.stage.kind == "pretrain" and p.state == "to do"]
    assert other.seconds == pytest.approx(60 * 4 * 64 / 400) == pytest.approx(other.flops / speed)
    named = replace(plan, chosen=cost.gpu("h100"))
    (other,) = [p for p in named.stages if p.stage.kind == "pretrain" and p.state == "to do"]
    assert other.seconds == other.flops / (0.4 * 989e12) and not summary.totals(named)["flops_per_second_measured"]


def test_a_trial_that_pauses_takes_its_share_of_the_time(planned: Planner, tiny: Callable[..., Sweep]) -> None:
    drawn = tiny({"train.learning_rate": tune.loguniform(1e-4, 1e-2)})
    plan = planned(replace(drawn, samples=4, scheduler="asha", metric="train/loss"))
    whole, share = summary.by_trial(plan), summary.by_trial(plan, to_pause=True)
    pretrain = {p.stage.key: p.seconds for p in plan.stages}
    assert share == pytest.approx({name: pretrain[name] * 6 / 60 for name in plan.trials()})
    assert all(share[name] < whole[name] for name in whole)
