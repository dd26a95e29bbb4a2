"""What a trial requests."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from ray import tune

from ktrain.config import RuntimeConfig
from ktrain.errors import WrongRequest
from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.execution.capacity import GIB, ClusterCapacity, NodeCapacity, ResourceRequest
from sweeps.execution.placement import Placement
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]
WHOLE = Fraction(1)


def placed(plan: Plan, room: ClusterCapacity, **runtime: Any) -> Placement:
    placement = Placement(plan, room, RuntimeConfig(**runtime))
    placement.check()
    return placement


def needs(plan: Plan, room: ClusterCapacity, **runtime: Any) -> list[ResourceRequest]:
    placement = placed(plan, room, **runtime)
    return [placement.need(name) for name in plan.trials()]


def gpus(count: int, gib: float | None = 80.0) -> ClusterCapacity:
    return ClusterCapacity((NodeCapacity(gpus=1, gpu_memory=gib and gib * GIB, count=count),))


@pytest.fixture
def full(tiny: Callable[..., Sweep], planned: Planner) -> Callable[..., Plan]:
    """One trial of the paper's batch and vocabulary: `full("682m")`."""

    def plan(size: str, **axes: Any) -> Plan:
        grid = {"corpus.tokenizer": "gpt2", "train.batch": 96, "train.context": 512, "readout.batch": 48}
        return planned(tiny({**grid, "model.size": size, **{k.replace("__", "."): v for k, v in axes.items()}}))

    return plan


# GPUs.


def test_each_size_of_the_paper_gets_the_gpus_that_it_needs(full: Callable[..., Plan]) -> None:
    sizes = ("124m", "302m", "682m")
    assert [needs(full(size), gpus(64, 80))[0].workers for size in sizes] == [1, 1, 2]
    assert [needs(full(size), gpus(64, 141))[0].workers for size in sizes] == [1, 1, 1]
    assert [needs(full(size), gpus(64, 24))[0].workers for size in sizes] == [2, 6, 24]
    # Weights and optimizer are most of it then, and ZeRO divides them.
    assert needs(full("682m", train__zero=2), gpus(64, 24))[0].workers <= 8
    assert all(needs(full(size), gpus(64, 80))[0].gpus == WHOLE for size in sizes)


def test_workers_divide_every_batch_of_a_trial(full: Callable[..., Plan]) -> None:
    (need,) = needs(full("302m", readout__batch=50), gpus(8, 48))
    assert need.workers == 2
    with pytest.raises(WrongRequest, match=r"model\.size=302m train\.zero=0: needs \d+ GiB on each of 2 GPUs"):
        needs(full("302m", readout__batch=50), gpus(8, 24))


def test_a_trial_that_never_fits_is_a_wrong_request(full: Callable[..., Plan]) -> None:
    message = r"model\.size=682m train\.zero=0: needs 24 GPUs of 24 GiB at once, there are 4; --gpus-max"
    with pytest.raises(WrongRequest, match=message):
        needs(full("682m"), gpus(4, 24))
    message = r"model\.size=682m train\.zero=0: needs 20 GiB on each of 48 GPUs, which have 10 each; train\.zero"
    with pytest.raises(WrongRequest, match=message):
        needs(full("682m"), gpus(64, 10))
    with pytest.raises(WrongRequest, match=r"model\.size=682m readout\.zero=0: .* readout\.zero up to 3 divides"):
        needs(full("682m", train__zero=3), gpus(64, 10))
    assert needs(full("682m", train__zero=3, readout__zero=3), gpus(64, 14))[0].workers > 8
    with pytest.raises(WrongRequest, match=r"workers=4: there are 2 GPUs"):
        needs(full("124m"), gpus(2), workers=4)


def test_small_trials_share_a_gpu_as_far_as_memory_goes(planned: Planner) -> None:
    plan = planned()
    assert {need.gpus for need in needs(plan, gpus(4))} == {Fraction(1, 8)}
    (one, two) = needs(plan, gpus(4, 5))
    assert one == two and 0 < one.gpus < WHOLE and one.memory * int(1 / one.gpus) < 5 * GIB
    # Unknown memory is not shared, and several workers have whole GPUs.
    assert {need.gpus for need in needs(plan, gpus(4, None))} == {WHOLE}
    assert {(need.workers, need.gpus) for need in needs(plan, gpus(4), workers=2)} == {(2, WHOLE)}


def test_a_trial_that_ran_out_of_memory_shares_no_more(planned: Planner, store: Store) -> None:
    plan = planned()
    one, two = plan.trials()
    store.note_failure(one, "OutOfMemoryError: CUDA out of memory")
    placement = placed(plan, gpus(4))
    assert placement.need(one).gpus == WHOLE > placement.need(two).gpus


# What has been measured.


def finish(store: Store, cell: Any, peak: float, gpus: int) -> None:
    """The stages of a planned cell, with the peak that they have measured on so many GPUs."""
    for stage in cell.stages:
        metrics = {"speed/peak_memory_bytes": peak, "speed/gpus": gpus, "recall/attribute_tokens": 1.0}
        store.publish_files(stage, {"metrics.json": metrics})


def test_a_trial_that_has_ended_tells_what_the_others_need(planned: Planner, store: Store) -> None:
    plan = planned(seed=[0, 1, 2])
    first, *others = plan.trials()
    placement = placed(plan, gpus(4, 8))
    before = placement.need(others[0])
    finish(store, plan.trials()[first][0], 2.5 * GIB, gpus=1)
    placement.ended(first)
    assert before.gpus < Fraction(1, 3)
    assert {placement.need(name).gpus for name in others} == {Fraction(1, 2)}
    # And a later run knows it from the store.
    assert {need.gpus for need in needs(planned(seed=[0, 1, 2]), gpus(4, 8))} == {Fraction(1, 2)}


def test_what_was_measured_elsewhere_says_nothing_here(planned: Planner, store: Store) -> None:
    """On processors, or on two GPUs, where this trial gets one."""
    one, two, *_ = planned(seed=[0, 1]).cells
    before = needs(planned(seed=[2]), gpus(4, 8))
    finish(store, one, 7 * GIB, gpus=0)
    finish(store, two, 7 * GIB, gpus=2)
    assert needs(planned(seed=[0, 1]), gpus(4, 8)) == before


def test_a_measured_peak_that_fits_nowhere_stops_nothing(planned: Planner, store: Store) -> None:
    plan = planned(seed=[0, 1], readout__batch=[7], train__batch=[5])
    first, *others = plan.trials()
    placement = placed(plan, gpus(4, 8))
    before = [placement.need(name) for name in others]
    finish(store, plan.trials()[first][0], 20 * GIB, gpus=1)
    placement.ended(first)
    assert [placement.need(name) for name in others] == before


# Processors.


def test_on_processors_a_worker_takes_its_threads_and_memory(planned: Planner) -> None:
    room = ClusterCapacity((NodeCapacity(cpus=8, memory=16 * GIB),))
    (one, _) = needs(planned(), room, threads=2)
    assert (one.workers, one.cpus, one.gpus) == (1, 2, 0) and GIB < one.memory < 2 * GIB
    assert room.workers(one) == 4
    # A machine with little memory does one at a time, and is not refused.
    tight = ClusterCapacity((NodeCapacity(cpus=8, memory=GIB),))
    assert tight.workers(needs(planned(), tight, threads=2)[0]) == 1
    assert needs(planned(), ClusterCapacity((NodeCapacity(cpus=8),)))[0].memory == 0


@pytest.mark.parametrize(
    ("nodes", "runtime", "message"),
    [
        ((NodeCapacity(cpus=2),), {"threads": 4}, r"workers=1, threads=4: there are 2 CPUs and no GPUs"),
        ((NodeCapacity(cpus=2, count=2),), {"workers": 2, "threads": 3}, r"workers=2, threads=3: there are 4 CPUs"),
        ((), {}, r"workers=1, threads=1: there are 0 CPUs and no GPUs; --gpus-max says"),
    ],
)
def test_too_few_processors_are_a_wrong_request(
    planned: Planner, nodes: tuple[NodeCapacity, ...], runtime: dict[str, int], message: str
) -> None:
    with pytest.raises(WrongRequest, match=message):
        needs(planned(), ClusterCapacity(nodes), **runtime)


def test_a_readout_alone_needs_less_than_its_pretraining(
    full: Callable[..., Plan], store: Store, publish: Callable[..., None]
) -> None:
    plan = full("124m")
    (before,) = needs(plan, gpus(8))
    for stage in plan.cells[0].stages[:2]:
        publish(stage)
    (after,) = needs(full("124m"), gpus(8))
    assert after.memory < before.memory / 3


def test_grids_of_two_sizes_are_placed_each_by_itself(tiny: Callable[..., Sweep], planned: Planner) -> None:
    grid = {"model.size": tune.grid_search(["mini", "682m"]), "train.context": 512, "train.batch": 96}
    small, large = needs(planned(tiny(grid)), gpus(8, 48))
    assert small.workers == 1 < large.workers
