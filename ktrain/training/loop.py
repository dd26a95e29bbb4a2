"""The training loop, the same for pretraining, mixed training, finetuning and adapters."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ktrain.store.checkpoints import Checkpoint, Checkpoints
from ktrain.system.collectives import broadcast_ints, gather_objects, mean_over_ranks
from ktrain.system.device import to_device
from ktrain.training.deepspeed_engine import Engine
from ktrain.training.learning_rate import LearningRateSchedule
from ktrain.training.pacing import CheckpointPolicy, StepTimer
from ktrain.training.progress import CurveLog, Progress, Reporter, curve_of, evaluation_steps

Batches = Callable[[int], tuple[Tensor, ...]]
"""Returns this rank's batch of a step: token ids, whatever else the loss takes, and target weights, on any device."""


class Diverged(RuntimeError):
    """The loss is no longer finite; of stacked adapters, that of none is."""


class Preempted(Exception):
    """This worker had to stop after `step` steps, with this `curve`; a checkpoint is there to go on from elsewhere."""

    def __init__(self, step: int, curve: Sequence[Progress]) -> None:
        super().__init__(f"at step {step}")
        self.step, self.curve = step, curve


def train(
    engine: Engine,
    batches: Batches,
    schedule: LearningRateSchedule,
    tokens_per_step: int,
    checkpoints: Checkpoints,
    reporter: Reporter,
    *,
    resumed: Checkpoint | None,
    every: int,
    interval: Callable[[float | None], float],
    evaluate: Callable[[int], None] | None = None,
) -> list[Progress]:
    """Runs the steps that `resumed` has not done and returns the whole curve, one line every `every` steps.

    The engine's module already holds the weights of `resumed`. Between two syncs no rank waits for its device.
    `interval` is that of `CheckpointPolicy`; a checkpoint follows the last step too, because the evaluation after it
    may take long. `evaluate` gets each of the `evaluation_steps` and may read the weights. Raises `Diverged`, and
    `Preempted` if the reporter says that this worker must stop.
    """
    record: dict[str, Any] = resumed.record if resumed else {"curve": [], "seconds": 0.0, "timed": 0}
    curve = CurveLog(schedule.steps, every, curve_of(record))
    timer = StepTimer(tokens_per_step, float(record["seconds"]), int(record["timed"]))
    policy = CheckpointPolicy(interval)
    evaluated = evaluation_steps(schedule.steps) if evaluate else frozenset[int]()
    first = resumed.step if resumed else 0
    next_sync = first
    for step in range(first, schedule.steps):
        loss = _step(engine, batches(step), schedule.rate(step), resumed if step == first else None)
        done = step + 1
        if step == first:
            # The first step compiles, so the clocks start after it.
            loss.sum().item()
            timer.start(done)
            policy.start()
            next_sync = step + timer.steps_to_sync
        if done < next_sync and not curve.takes(done) and done not in evaluated:
            continue

        losses = _sync(loss, done)
        timer.sync(done)
        save_due = policy.due or done == schedule.steps

        progress = Progress(
            done,
            schedule.steps,
            loss=_mean_of_finite(losses),
            learning_rate=schedule.rate(step),
            tokens=timer.tokens,
            seconds=timer.seconds,
            members=tuple(losses) if loss.dim() else (),
            apart=policy.seconds_apart,
        )
        curve.add(progress)
        must_stop = reporter.report(progress)
        if evaluate and done in evaluated:
            with engine.whole():
                evaluate(done)
            timer.start(done)

        # Saving is collective and the clocks of two ranks differ, so rank 0 decides.
        steps_to_sync, stops, saves = broadcast_ints(timer.steps_to_sync, must_stop, must_stop or save_due)
        next_sync = done + steps_to_sync
        if saves:
            with policy.saving():
                _save(checkpoints, engine, done, curve, timer)
            timer.start(done)
        if stops:
            raise Preempted(done, curve.lines)
    return curve.lines


def _step(engine: Engine, batch: tuple[Tensor, ...], learning_rate: float, resumed: Checkpoint | None) -> Tensor:
    """Runs one step, from `resumed` if it is the first after a start; returns this rank's losses, not yet synced."""
    batch = tuple(to_device(tensor, engine.device) for tensor in batch)
    if resumed:
        engine.restore(resumed.tensors, resumed.step, *batch)
        # Restoring takes a step, and with it draws of dropout.
        _restore_generator(resumed.record)
    return engine.step(*batch, learning_rate=learning_rate)


def _sync(loss: Tensor, step: int) -> list[float]:
    """Waits for the device and returns the losses of the whole batch: one, or that of each stacked adapter.

    Each rank's weights are scaled so that the mean over ranks is right. Raises `Diverged` where none is finite.
    """
    losses = [float(value) for value in mean_over_ranks(loss).flatten().tolist()]
    if not any(map(math.isfinite, losses)):
        raise Diverged(f"the loss is {losses[0]} at step {step}")
    return losses


def _mean_of_finite(losses: list[float]) -> float:
    finite = [loss for loss in losses if math.isfinite(loss)]
    return sum(finite) / len(finite)


def _save(checkpoints: Checkpoints, engine: Engine, step: int, curve: CurveLog, timer: StepTimer) -> None:
    """Saves a checkpoint on rank 0; every rank must call, because each holds a part of the state."""
    record = {
        "curve": [vars(line) for line in curve.lines],
        "seconds": timer.seconds,
        "timed": timer.tokens,
        "generators": _generator_states(),
    }
    state = engine.state()
    if not dist.get_rank():
        checkpoints.save(Checkpoint(step, state, record))


def _generator_states() -> list[dict[str, Any]]:
    """Returns the states of the generators from which dropout draws, by rank."""
    states = {"cpu": torch.get_rng_state().tolist()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state().tolist()
    return gather_objects(states)


def _restore_generator(record: dict[str, Any]) -> None:
    """Restores this rank's generators; a rank that the saved run did not have keeps the stream that it began with."""
    states = record["generators"]
    if dist.get_rank() >= len(states):
        return
    mine = states[dist.get_rank()]
    torch.set_rng_state(torch.tensor(mine["cpu"], dtype=torch.uint8))
    if "cuda" in mine and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(mine["cuda"], dtype=torch.uint8))
