"""A Ray Train job around a trial: the only module of this package that imports Ray."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ktrain.config import Cell, Runtime
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.locks import remove_stale_locks
from ktrain.patience import PATIENCE
from ktrain.stages import chain
from ktrain.store import Store

if TYPE_CHECKING:
    from ktrain.training import Progress

FAILURES = 3
"""How often the workers of a job are started again; each start continues from the latest resume points."""
APART = 1.0
"""Seconds between two reports. Ray holds one at a time and looks for it twice a second; the next waits for that, and
training with it."""
FOR_OTHERS = timedelta(minutes=30)
"""How long a rank waits for the others."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """What Ray's `TorchTrainer` is, without PyTorch in the two processes of a job that train nothing, 140 MB each on
    the head of a cluster: workers make their process group themselves. And without the process that would hand out
    Ray's datasets, another 110 MB."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, DatasetsCallback)]


class _Neighbours(Backend):  # type: ignore[misc]
    """Workers on one machine see each other's GPUs, or they could not reach them directly."""

    share_cuda_visible_devices = True


class _Group(BackendConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[Backend]:
        return _Neighbours


def fit(
    name: str, cells: list[Cell], runtime: Runtime, folder: str, *, worker: dict[str, float], callbacks: list[Any]
) -> None:
    """Runs a trial in workers of its own, each of which holds `worker`, and returns when all its stages are done.

    `name` and `folder` identify the job to Ray; nothing is kept there but Ray's own records. Raises what a worker
    raised, after `FAILURES` restarts; a request that is wrong or a guard that speaks is not tried again.
    """
    trainer = Trainer(
        _work,
        train_loop_config={
            "cells": [cell.model_dump(mode="json") for cell in cells],
            "runtime": runtime.model_dump(mode="json"),
        },
        backend_config=_Group(),
        scaling_config=ScalingConfig(
            num_workers=runtime.workers, use_gpu="GPU" in worker, resources_per_worker=dict(worker)
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=FAILURES, controller_failure_limit=3),
            callbacks=callbacks,
        ),
    )
    trainer.fit()
    store = Store.at(runtime.store, patience=PATIENCE)
    for line in filter(None, (store.failure(stage.key) for cell in cells for stage in chain(cell))):
        raise RuntimeError(line)


def _work(config: dict[str, Any]) -> None:
    ready()
    # Here and not above: Ray reads this module in two more processes of a job, which would wait seconds for nothing.
    from ktrain import trial
    from ktrain.training import Diverged

    join()
    cells = [Cell.model_validate(cell) for cell in config["cells"]]
    try:
        trial.run(cells, Runtime.model_validate(config["runtime"]), _reporter())
    except (WrongRequest, GuardFailure, Diverged):
        # The same would happen again: the line that the trial has left says what, and Ray starts no worker anew.
        return


def ready() -> None:
    """Makes this machine ready for a worker: caches in one place, and no lock of a build that has died."""
    from ktrain import node

    # Before any library asks; a machine of a cluster has not heard what the driver's has.
    node.keep_caches()
    remove_stale_locks(Path(os.environ["TORCH_EXTENSIONS_DIR"]))


def join() -> None:
    """Makes one process group of all workers; called by each of them.

    Rank 0 listens at a port that it keeps: one that was free a moment ago may be another trial's by now.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    places = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": context.get_local_rank()}
    places |= {"LOCAL_WORLD_SIZE": context.get_local_world_size(), "NODE_RANK": context.get_node_rank()}
    os.environ.update({name: str(place) for name, place in places.items()})
    if torch.cuda.is_available():
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    if world == 1:
        return  # The trial makes a group of one.
    host, store = ray.util.get_node_ip_address(), None
    if rank == 0:
        store = TCPStore(host, 0, world, is_master=True, wait_for_workers=False, timeout=FOR_OTHERS)
    host, port = broadcast_from_rank_zero((host, store.port) if store else None)
    store = store or TCPStore(host, port, world, is_master=False, timeout=FOR_OTHERS)
    os.environ.update({"MASTER_ADDR": host, "MASTER_PORT": str(port)})
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=FOR_OTHERS)


def _reporter() -> Callable[[str, "Progress"], None]:
    """Reports lines of a curve to Ray, not each: those `APART` seconds apart, and the last of a stage."""
    from ktrain.training import agree

    last = -math.inf

    def report(key: str, progress: "Progress") -> None:
        nonlocal last
        # A report is collective, so no rank may decide by its own clock.
        if progress.step < progress.steps and not agree(time.monotonic() - last >= APART):
            return
        ray.train.report({"stage": key, **asdict(progress), "tokens_per_second": progress.tokens_per_second})
        last = time.monotonic()

    return report
