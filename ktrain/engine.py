"""The DeepSpeed engine around a network: the only module that imports DeepSpeed."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)

import deepspeed  # noqa: E402
import deepspeed.comm.torch  # noqa: E402
from deepspeed.utils import (  # noqa: E402
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
)

if not torch.cuda.is_available():
    # On a CPU every start would compile a kernel that only inference collectives use: a minute and a C++ compiler
    # for nothing, and a killed build leaves a lock that hangs the next one.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]

MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimization(Protocol):
    """What `config.Train` and `config.Readout` have in common."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def precision(self) -> str: ...
    @property
    def zero(self) -> int: ...


class Engine:
    """Trains `module`, whose forward takes a batch of this rank and returns the summed weighted loss, or several."""

    def __init__(
        self,
        module: nn.Module,
        setting: Optimization,
        rows: int,
        *,
        compile: bool,
        clip: Callable[[float], Any] | None = None,
    ) -> None:
        """`rows` is the batch of this rank; `module` holds the weights to start from.

        `clip` limits gradients in place of the norm of all of them together; it needs them whole, so ZeRO 0.
        """
        join_alone()
        assert clip is None or not setting.zero
        # DeepSpeed's own way to clip whole gradients runs over them one after another.
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
                "enabled": setting.precision == "bf16",
                "dtype": "bfloat16",
                # By default DeepSpeed reduces the gradients of linear layers in bf16 at ZeRO 1 to 3.
                "lower_precision_safe_modules": [],
            },
            "steps_per_print": sys.maxsize,
            # It would wait for the device twice a step.
            "timers": {"throughput": {"enabled": False}},
        }
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=_adamw(module, setting), config=config)
        if dist.get_world_size() == 1 and not setting.zero:
            # It would copy all gradients into one buffer and back.
            self._engine.enable_backward_allreduce = False
        if compile:
            self._engine.compile()

    @property
    def device(self) -> torch.device:
        """Where batches belong."""
        return torch.device(self._engine.device)

    def step(self, *batch: Tensor, learning_rate: float) -> Tensor:
        """One optimizer step on the sum of the losses; returns this rank's losses, detached and not synchronised."""
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
        """Full fp32 weights and moments by name, on the CPU, whatever the ZeRO stage. Every rank must call.

        Statistics that a module keeps beside its weights (of batch norm) are there too.
        """
        tensors = {name: _own(buffer) for name, buffer in kept(self._module).items()}
        for name, parameter in self._trained():
            tensors[name] = _own(safe_get_full_fp32_param(parameter) if self._sharded else parameter)
            for moment in MOMENTS:
                tensors[f"{name}/{moment}"] = _own(
                    safe_get_full_optimizer_state(parameter, moment)
                    if self._sharded
                    else self._engine.optimizer.state[parameter][moment]
                )
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int, *batch: Tensor) -> None:
        """Continues from `state()` after `steps` steps; the module must already hold the weights.

        The optimizer's states exist only after a step: one at learning rate zero on any `batch` makes them and leaves
        the weights as they are. What a norm keeps is put back.
        """
        before = {name: buffer.clone() for name, buffer in kept(self._module).items()}
        self.step(*batch, learning_rate=0.0)
        for name, buffer in kept(self._module).items():
            buffer.copy_(before[name])
        for name, parameter in self._trained():
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
        """The module's weights are whole inside, also where ZeRO 3 shards them. Every rank must enter."""
        with deepspeed.zero.GatheredParameters(list(self._module.parameters()), enabled=self._zero == 3):
            yield

    def close(self) -> None:
        """Frees what the engine holds; the module stays, whole. Every rank must call.

        Compiled code goes too: the compiler counts every engine as one more version of the same functions, and after
        eight of them it silently runs the rest uncompiled.
        """
        if self._zero == 3:
            # DeepSpeed leaves large parameters as it last sharded them.
            parameters = list(self._module.parameters())
            parameters[0].all_gather(param_list=parameters)  # type: ignore[attr-defined]
        self._engine.destroy()
        torch.compiler.reset()

    @property
    def _sharded(self) -> bool:
        return self._zero > 0

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]


def kept(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of a module that belong to its state."""
    names = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in names}


def join_alone() -> None:
    """Makes a process group of one where no launcher has made one."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)


def _adamw(module: nn.Module, setting: Optimization) -> torch.optim.AdamW:
    """AdamW in one group: it decays every parameter, as a plain AdamW does (the paper names no exception).

    One group is also what DeepSpeed 0.19 needs to find the moments again at ZeRO 1 and 2.
    """
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=setting.learning_rate,
        betas=(setting.beta1, setting.beta2),
        eps=setting.epsilon,
        weight_decay=setting.weight_decay,
        fused=True,
    )


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone().contiguous()
