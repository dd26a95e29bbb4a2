"""What a trial needs: the formula against saved tensors that are counted, and what follows from it for GPUs."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from ray import tune
from torch._subclasses.fake_tensor import FakeTensorMode

from ktrain.config import CellConfig, ModelConfig, RuntimeConfig, TrainConfig
from ktrain.errors import WrongRequest
from ktrain.model import networks, sizes
from ktrain.model.forward import LanguageModelLoss
from ktrain.stages import stages_of
from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.execution.capacity import GIB, ClusterCapacity, NodeCapacity, ResourceRequest
from sweeps.execution.placement import Placement, estimate, states
from sweeps.planning import cost
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


# The formula.


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_formula_holds_what_a_step_saves_and_not_much_more(family: str, precision: str) -> None:
    """Of the forward as it runs on a processor, uncompiled, without computing it."""
    cell = CellConfig(model=ModelConfig(family=family), train=TrainConfig(batch=4, precision=precision))
    parameters, saved = _saved(cell)
    told = estimate(stages_of(cell).pretrain, cell, 1, gpu=False, compiled=False)
    # Logits are copied for a moment while their loss is taken, which nothing that is saved shows.
    passing = 4 * 512 * 50_257 * 8
    counted = saved + states(parameters, 0, 1) + passing
    assert 0.95 * counted < told < 1.35 * counted


def _saved(cell: CellConfig) -> tuple[int, int]:
    """Parameters of a cell's network, and bytes that one forward of a batch keeps for the backward pass."""
    held: dict[int, int] = {}
    rows, context = cell.train.batch, cell.train.context
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = LanguageModelLoss(networks.build_network(cell.model, cost.vocabulary(cell), context, 0, 0).train())
        weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        ids, wanted = torch.zeros(rows, context, dtype=torch.long), torch.zeros(rows, context)

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                held[storage._cdata] = storage.nbytes()
            return tensor

        with (
            torch.autocast("cpu", torch.bfloat16, enabled=cell.train.precision == "bf16"),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            loss = module(ids, wanted)
        assert loss.requires_grad
        return sum(parameter.numel() for parameter in module.parameters()), sum(held.values())


def test_large_logits_take_what_a_chunk_of_them_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(batch: int) -> float:
        cell = CellConfig(train=TrainConfig(batch=batch))
        return estimate(stages_of(cell).pretrain, cell, 1, gpu=True)

    chunk = sizes.LOGITS["cuda"]
    rows = chunk // (4 * 512 * 50_257)
    # A window more costs what its layers keep and the gradients of chunks, then nothing for its logits.
    window = 12 * 512 * 40 * 768
    gradients = 50_257 * 768
    assert of(rows) - of(rows - 1) == pytest.approx(window + 512 * 50_257 * 8)
    step = of(rows + 1) - of(rows)
    assert step == pytest.approx(window + 2 * chunk - rows * 512 * 50_257 * 8 + (4 + 2 * 2) * gradients)
    assert of(2 * rows) - of(rows + 1) == pytest.approx((rows - 1) * window)
    monkeypatch.setitem(sizes.LOGITS, "cuda", 2**60)
    assert of(4 * rows) > of(rows) + 3 * rows * (window + 512 * 50_257 * 7)


def test_zero_divides_what_it_says_among_the_workers() -> None:
    bucket = 4 * 5e8
    assert states(1e9, 0, 1) == 16e9 and states(1e9, 0, 4) == 16e9 + bucket
    assert states(1e9, 1, 4) == 8e9 + 12e9 / 4 + bucket
    assert states(1e9, 2, 4) == 4e9 + 16e9 / 4 + bucket
    assert states(1e9, 3, 4) == 20e9 / 4 + bucket


def test_more_of_anything_is_never_less_memory() -> None:
    def of(workers: int = 1, size: str = "124m", **train: Any) -> float:
        cell = CellConfig(model=ModelConfig(size=size), train=TrainConfig(**train))
        return estimate(stages_of(cell).pretrain, cell, workers, gpu=True)

    assert of(size="682m") > of(size="302m") > of() > of(batch=48) and of() > of(context=256)
    assert of(precision="fp32") > of() > of(workers=2) > of(workers=4)
    assert of(workers=2) > of(workers=2, zero=1) > of(workers=2, zero=2) > of(workers=2, zero=3)


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
