"""The DeepSpeed engine around a network: the only module that imports DeepSpeed."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ktrain.config import ReadoutConfig, TrainConfig
from ktrain.system.device import multiplies_in_bf16, training_device
from ktrain.system.process_group import join_alone

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Lets imports inside find no module of this name; one that is imported already stays."""
    known = name in sys.modules
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if not known:
            del sys.modules[name]


# DeepSpeed's autotuner, which nothing here uses, imports MLflow if it is installed: a tenth of the start of a worker.
with _without("mlflow"):
    import deepspeed
    import deepspeed.comm.torch
    from deepspeed.utils import (
        safe_get_full_fp32_param,
        safe_get_full_optimizer_state,
        safe_set_full_optimizer_state,
    )

if not torch.cuda.is_available():
    # On a CPU, every start would compile a kernel that only inference collectives use. That takes a minute and a C++
    # compiler, and a killed build leaves a lock that hangs the next one.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]

MOMENTS = ("exp_avg", "exp_avg_sq")


OptimizerSetting = TrainConfig | ReadoutConfig


class Engine:
    """Trains `module`, whose forward takes this rank's batch and returns the weighted sum of its losses, or several."""

    def __init__(
        self,
        module: nn.Module,
        setting: OptimizerSetting,
        rows: int,
        *,
        compile: bool,
        clip: Callable[[float], Any] | None = None,
    ) -> None:
        """`rows` is the batch size of this rank; `module` holds the initial weights.

        `clip` replaces the clipping by the norm of all gradients together; it needs them whole, so ZeRO 0.
        """
        join_alone()
        assert clip is None or not setting.zero
        # DeepSpeed's own clipping of whole gradients takes them one by one.
        whole = partial(nn.utils.clip_grad_norm_, list(module.parameters()))
        self._clip, self._limit = clip or (None if setting.zero else whole), setting.clip
        self._zero = setting.zero
        self._module = module
        config = {
            "train_micro_batch_size_per_gpu": rows,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0 if self._clip else setting.clip,
            "zero_optimization": {"stage": setting.zero},
            "torch_autocast": {
                "enabled": multiplies_in_bf16(setting.precision, training_device()),
                "dtype": "bfloat16",
                # By default DeepSpeed reduces the gradients of linear layers in bf16 at ZeRO 1 to 3.
                "lower_precision_safe_modules": [],
            },
            "steps_per_print": sys.maxsize,
            # DeepSpeed's timer would wait for the device twice a step.
            "timers": {"throughput": {"enabled": False}},
        }
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=_adamw(module, setting), config=config)
        if dist.get_world_size() == 1 and not setting.zero:
            # DeepSpeed would copy all gradients into one buffer and back.
            self._engine.enable_backward_allreduce = False
        if compile:
            self._engine.compile()

    @property
    def device(self) -> torch.device:
        """The device that batches belong on."""
        return torch.device(self._engine.device)

    def step(self, *batch: Tensor, learning_rate: float) -> Tensor:
        """Takes one optimizer step on the sum of the losses; returns this rank's losses, detached, without a sync."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._engine(*batch)
        self._engine.backward(loss.sum())
        if self._clip:
            self._clip(self._limit)
        self._engine.step()
        detached: Tensor = loss.detach()
        return detached

    def state(self) -> dict[str, Tensor]:
        """Returns full fp32 weights and moments by name, on the CPU, at any ZeRO stage. Every rank must call.

        Buffers of the module's state are included, such as the running statistics of batch norm.
        """
        tensors = {name: _cpu_copy(buffer) for name, buffer in state_buffers(self._module).items()}
        for name, parameter in self._trainable():
            tensors[name] = _cpu_copy(safe_get_full_fp32_param(parameter) if self._sharded else parameter)
            for moment in MOMENTS:
                tensors[f"{name}/{moment}"] = _cpu_copy(
                    safe_get_full_optimizer_state(parameter, moment)
                    if self._sharded
                    else self._engine.optimizer.state[parameter][moment]
                )
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int, *batch: Tensor) -> None:
        """Restores the moments of `state()` after `steps` steps; the module must already hold the weights.

        The optimizer's states exist only after a step, so one at learning rate zero on any `batch` creates them and
        leaves the weights as they are. Buffers that it changes are reset.
        """
        before = {name: buffer.clone() for name, buffer in state_buffers(self._module).items()}
        self.step(*batch, learning_rate=0.0)
        for name, buffer in state_buffers(self._module).items():
            buffer.copy_(before[name])
        for name, parameter in self._trainable():
            for moment in MOMENTS:
                value = tensors[f"{name}/{moment}"].to(self.device)
                if self._sharded:
                    safe_set_full_optimizer_state(parameter, value, moment)
                else:
                    self._engine.optimizer.state[parameter][moment].copy_(value)
        inner = self._engine.optimizer.optimizer if self._sharded else self._engine.optimizer
        for state in inner.state.values():
            if "step" in state:
                state["step"] = torch.full_like(torch.as_tensor(state["step"]), steps)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gathers the module's weights, which ZeRO 3 shards, while inside. Every rank must enter."""
        with deepspeed.zero.GatheredParameters(list(self._module.parameters()), enabled=self._zero == 3):
            yield

    def close(self) -> None:
        """Frees the engine's memory; the module stays, with whole weights. Every rank must call.

        Also drops compiled code: the compiler counts each engine as one more version of the same functions, and after
        eight versions it silently runs the rest uncompiled.
        """
        if self._zero == 3:
            # DeepSpeed leaves large parameters sharded.
            parameters = list(self._module.parameters())
            parameters[0].all_gather(param_list=parameters)  # type: ignore[attr-defined]
        self._engine.destroy()
        torch.compiler.reset()

    @property
    def _sharded(self) -> bool:
        return self._zero > 0

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]


def state_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers of a module that belong to its state."""
    names = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in names}


def _adamw(module: nn.Module, setting: OptimizerSetting) -> torch.optim.AdamW:
    """Returns AdamW with one group: it decays every parameter, as plain AdamW does (the paper names no exception).

    DeepSpeed 0.19 also needs one group to find the moments again at ZeRO 1 and 2.
    """
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=setting.learning_rate,
        betas=(setting.beta1, setting.beta2),
        eps=setting.epsilon,
        weight_decay=setting.weight_decay,
        fused=True,
    )


def _cpu_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone().contiguous()
