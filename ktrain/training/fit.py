"""Fitting one stage: training from its latest checkpoint to its end."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ktrain.config import ReadoutConfig, RuntimeConfig, TrainConfig
from ktrain.store.base import WorkDir
from ktrain.store.checkpoints import Checkpoint, Checkpoints, UploadedCheckpoints, checkpoint_interval
from ktrain.system.collectives import broadcast_from_rank0
from ktrain.training.deepspeed_engine import Engine, state_buffers
from ktrain.training.learning_rate import schedule_of
from ktrain.training.loop import Batches, train
from ktrain.training.progress import Progress, Reporter, curve_of, lines_apart


def fit(
    module: nn.Module,
    setting: TrainConfig | ReadoutConfig,
    batches: Batches,
    tokens_per_step: int,
    work: WorkDir,
    runtime: RuntimeConfig,
    reporter: Reporter,
    *,
    clip: Callable[[float], None] | None = None,
    evaluate: Callable[[int], None] | None = None,
) -> list[Progress]:
    """Trains `module` in place, from the latest checkpoint in `work` if there is one; returns its curve.

    `clip` as in `Engine`, `evaluate` as in `train`. Raises `Diverged`, `Preempted`.
    """
    checkpoints = UploadedCheckpoints(work.folder, work.upload_async)
    resumed = _latest_of_rank0(checkpoints)
    if resumed:
        load_weights(module, resumed.tensors)
        if resumed.step == setting.steps:
            return curve_of(resumed.record)
    module.train()
    # Dropout draws from torch's own generator: each stage and rank seeds a stream of its own.
    torch.manual_seed(int(work.folder.name[-8:], 16) + dist.get_rank())
    engine = Engine(module, setting, setting.batch // dist.get_world_size(), compile=runtime.compile, clip=clip)
    curve = train(
        engine,
        batches,
        schedule_of(setting),
        tokens_per_step,
        checkpoints,
        reporter,
        resumed=resumed,
        every=lines_apart(setting.steps),
        interval=partial(
            checkpoint_interval, between_losses=runtime.between_losses, longest=runtime.checkpoint_seconds
        ),
        evaluate=evaluate,
    )
    final = engine.state()
    engine.close()
    load_weights(module, final)
    return curve


def _latest_of_rank0(checkpoints: Checkpoints) -> Checkpoint | None:
    """Returns the latest checkpoint that rank 0 sees; another rank's machine may see an older one, or none.

    Raises `RuntimeError` where this rank cannot read that checkpoint.
    """
    latest = checkpoints.latest() if not dist.get_rank() else None
    step = broadcast_from_rank0(latest.step if latest else None)
    if not dist.get_rank() or step is None:
        return latest
    if (same := checkpoints.at(step)) is None:
        raise RuntimeError(f"checkpoint of step {step}: rank {dist.get_rank()} cannot read it, rank 0 can")
    return same


def load_weights(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads the weights and buffers of `Engine.state` into a module. Raises `ValueError` if they are another's."""
    weights = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    if odd := (trained | set(state_buffers(module))) ^ set(weights):
        raise ValueError(f"weights of another network: {sorted(odd)[:3]}")
    module.load_state_dict(weights, strict=False)
