"""A Ray Train job around a trial: the only module of this package that imports Ray."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError
from ray.train import ControllerError, FailureConfig, PreemptionError, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ktrain.config import Cell, Runtime
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.patience import PATIENCE
from ktrain.setbacks import DIED, ERROR, LOST, MEMORY, PREEMPTED, ROOM, TAKEN, Patience, Setback
from ktrain.stages import chain
from ktrain.store import Store

if TYPE_CHECKING:
    from ktrain.training import Progress

APART = 1.0
"""Seconds between two reports. Ray holds one at a time and looks for it twice a second; the next waits for that, and
training with it."""
FOR_OTHERS = timedelta(minutes=30)
"""How long a rank waits for the others."""
SETTLE = 60.0
"""Seconds in which a cluster finds out that a node is gone, whose loss other workers may have noticed before."""
LEFT = "left"
"""What workers return that had to leave their place."""


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
    name: str,
    cells: list[Cell],
    runtime: Runtime,
    folder: str,
    *,
    worker: dict[str, float],
    watched: bool,
    callbacks: list[Any],
    told: Callable[[Setback], None],
) -> None:
    """Runs a trial in workers of its own, each of which holds `worker`, and returns when all its stages are done.

    `name` and `folder` identify the job to Ray; nothing is kept there but Ray's own records. Workers that end before
    are begun again as often as `Patience` has it, on whatever nodes there are then, and `told` hears why; with
    `watched` they leave a node that is about to go. Raises what a worker raised or died of; a request that is wrong or
    a guard that speaks is not tried again.
    """
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = str(int(watched))
    patience, last = Patience(), ""
    while True:
        workers = _fewer(cells, runtime, worker) if patience.crowded else runtime.workers
        if workers < runtime.workers:
            told(Setback(ROOM, f"it goes on with {workers} of {runtime.workers} workers"))
        given = runtime.model_copy(update={"workers": workers, "between_losses": patience.between_losses})
        began, there, error = time.monotonic(), _nodes(), None
        try:
            if _trainer(name, cells, given, folder, worker, watched, callbacks).fit().return_value != LEFT:
                break
            setback = Setback(PREEMPTED, "its node is about to go; it left with a resume point")
        except (ray.train.TrainingFailedError, RayError) as e:
            setback, error = _setback(e, there), e
        if not patience.bears(setback, time.monotonic() - began):
            raise error if error and setback.kind == ERROR else RuntimeError(setback.text) from error
        # It is still the same wait.
        if not setback.kind == last == ROOM:
            told(setback)
        last = setback.kind
        time.sleep(patience.pause if setback.storage else 0.0)
    store = Store.at(runtime.store, patience=PATIENCE)
    for line in filter(None, (store.failure(stage.key) for cell in cells for stage in chain(cell))):
        raise RuntimeError(line)


def _trainer(
    name: str,
    cells: list[Cell],
    runtime: Runtime,
    folder: str,
    worker: dict[str, float],
    watched: bool,
    callbacks: list[Any],
) -> Trainer:
    """One start of the workers. Ray counts no failures: it has one count for nodes that vanish and for our errors."""
    return Trainer(
        _work,
        train_loop_config={
            "cells": [cell.model_dump(mode="json") for cell in cells],
            "runtime": runtime.model_dump(mode="json"),
            "watched": watched,
        },
        backend_config=_Group(),
        scaling_config=ScalingConfig(
            num_workers=runtime.workers, use_gpu="GPU" in worker, resources_per_worker=dict(worker)
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
            callbacks=callbacks,
        ),
    )


def _work(config: dict[str, Any]) -> str | None:
    ready()
    # Here and not above: Ray reads this module in two more processes of a job, which would wait seconds for nothing.
    from ktrain import trial
    from ktrain.training import Diverged, Leaving

    join()
    cells = [Cell.model_validate(cell) for cell in config["cells"]]
    try:
        trial.run(cells, Runtime.model_validate(config["runtime"]), _reporter(config["watched"]))
    except Leaving:
        return LEFT
    except (WrongRequest, GuardFailure, Diverged):
        # The same would happen again: the line that the trial has left says what, and nothing is begun anew.
        pass
    return None


def ready() -> None:
    """Makes this machine ready for a worker: caches in one place, and no lock of a build that has died."""
    from ktrain import build_locks, node

    # Before any library asks; a machine of a cluster has not heard what the driver's has.
    node.keep_caches()
    build_locks.remove_stale_locks()


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


def _reporter(watched: bool) -> Callable[[str, "Progress"], bool]:
    """Reports lines of a curve to Ray, not each: those `APART` seconds apart, and the last of a stage; and says then
    whether a node of the job is about to go."""
    from ktrain.training import agree

    last = -math.inf

    def report(key: str, progress: "Progress") -> bool:
        nonlocal last
        # A report is collective, so no rank may decide by its own clock.
        if progress.step < progress.steps and not agree(time.monotonic() - last >= APART)[0]:
            return False
        ray.train.report({"stage": key, **asdict(progress), "tokens_per_second": progress.tokens_per_second})
        last = time.monotonic()
        return watched and ray.train.get_preemption_info() is not None

    return report


def _setback(error: Exception, there: set[str]) -> Setback:
    """What an error of a job comes from; `there` are the nodes that there were when it began."""
    if isinstance(error, PreemptionError):
        return Setback(PREEMPTED, "its node went before it could leave")
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        if type(cause).__name__ == "WorkerGroupStartupTimeoutError":
            return Setback(ROOM, "no node has room for its workers; it waits")
        return _lost(there) or Setback(DIED, f"at the start: {_last_line(cause)}")
    failures = list(error.worker_failures.values()) if isinstance(error, WorkerGroupError) else [error]
    # What a worker died of is wrapped in an error of Ray's health check.
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures]
    deaths = [cause for cause in causes if isinstance(cause, RayError)]
    # That a node has died is in no field of the error, only in its text.
    for death in deaths:
        if isinstance(death, RayActorError) and death.preempted:
            return Setback(PREEMPTED, _last_line(death))
        if "node has died" in str(death):
            return Setback(LOST, _last_line(death))
    if any(type(cause).__name__ == "LeaseLost" for cause in causes):
        return Setback(TAKEN, "another driver does the stage now; it waits for that")
    for death in deaths:
        if isinstance(death, OutOfMemoryError) or "running low on memory" in str(death):
            return Setback(MEMORY, next(line for line in str(death).splitlines() if "memory" in line)[:200])
    # A worker that cannot be reached, or that is left alone, tells of it before the end of a node is known.
    doubtful = any(isinstance(cause, ActorUnavailableError) or _collective(cause) for cause in causes)
    if doubtful and (lost := _lost(there, SETTLE)):
        return lost
    if deaths:
        return Setback(DIED, _last_line(deaths[0]))
    cause = causes[0]
    line = f"{type(cause).__name__}: {(str(cause).splitlines() or ['no message'])[0]}"
    return Setback(ERROR, line, storage=isinstance(cause, OSError))


def _collective(error: Exception) -> bool:
    """Whether an error may be that of a connection between workers."""
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "nccl", "connection", "peer"))


def _lost(there: set[str], patience: float = 0.0) -> Setback | None:
    """Whether nodes have gone since, or go within `patience` seconds."""
    end = time.monotonic() + patience
    while not (gone := there - _nodes()):
        if time.monotonic() >= end:
            return None
        time.sleep(0.5)
    return Setback(LOST, f"{len(gone)} gone since it began")


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _fewer(cells: list[Cell], runtime: Runtime, worker: dict[str, float]) -> int:
    """The most workers that the cluster as it is has room for and that divide every batch; as asked where none does."""
    there = ray.cluster_resources()
    room = min(int(there.get(name, 0.0) / amount) for name, amount in worker.items() if amount)
    batch = math.gcd(*(cell.train.batch for cell in cells), *(cell.readout.batch for cell in cells))
    fitting = [count for count in range(1, min(room, runtime.workers) + 1) if batch % count == 0]
    return max(fitting, default=runtime.workers)


def _last_line(error: object) -> str:
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"])[-1][:200]
