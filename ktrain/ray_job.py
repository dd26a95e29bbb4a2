"""A Ray Train job around a trial: the only module of this package that imports Ray."""

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError
from ray.train import ControllerError, FailureConfig, PreemptionError, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.backend import Backend, BackendConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ktrain import readout_registry
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.fingerprint import freeze_contents
from ktrain.restart_policy import Interruption, Kind, RestartPolicy
from ktrain.stages import stages_of
from ktrain.store.open import store_at
from ktrain.system.retry import PATIENCE
from ktrain.system.worker_environment import ready
from ktrain.training.progress import Progress, as_result

REPORT_SECONDS = 1.0
"""Seconds between two reports: Ray polls for one twice a second, and the next, with training, waits for that."""
NODE_LOSS_SECONDS = 60.0
"""Seconds until a cluster notices that it has lost a node; other workers may notice before it does."""
STOPPED, CHANGED = "stopped", "changed"
"""What workers return that stopped because their node is about to go, and whose files give other keys."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray's `TorchTrainer` less 390 MB on the head of a cluster: PyTorch in the two processes of a job that train
    nothing (workers make their process group themselves), and the process that would serve Ray's datasets."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, DatasetsCallback)]


class _SharedDevices(Backend):  # type: ignore[misc]
    """Makes all GPUs of a machine visible to each of its workers, so that these reach each other's directly."""

    share_cuda_visible_devices = True


class _SharedDevicesConfig(BackendConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[Backend]:
        return _SharedDevices


def fit(
    name: str,
    cells: list[CellConfig],
    keys: Sequence[str],
    runtime: RuntimeConfig,
    folder: str,
    *,
    resources: dict[str, float],
    watch_preemption: bool,
    callbacks: list[Any],
    on_interruption: Callable[[Interruption], None],
) -> None:
    """Runs a trial in workers of its own, each of which holds `resources`; returns when all its stages are done.

    `name` and `folder` identify the job to Ray, which keeps only its own records there. `keys` are those of the planned
    readouts: if files have changed since, the trial is refused. Workers that end early are started again as often as
    `RestartPolicy` allows, on whatever nodes there are then, and `on_interruption` gets the reason. With
    `watch_preemption` they save and stop before their node goes. Raises the error of a worker, or `RuntimeError` with
    the reason why workers ended or the error that a stage noted; wrong requests, failed guards and diverged losses are
    not retried.
    """
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = str(int(watch_preemption))
    config: dict[str, Any] = {"keys": list(keys), "watch_preemption": watch_preemption}
    config["cells"] = [cell.model_dump(mode="json") for cell in cells]
    policy, last_kind = RestartPolicy(), ""
    while True:
        workers = _fitting_workers(cells, runtime, resources) if policy.starved else runtime.workers
        if workers < runtime.workers:
            on_interruption(Interruption(Kind.NO_CAPACITY, f"it goes on with {workers} of {runtime.workers} workers"))
        adapted = runtime.model_copy(update={"workers": workers, "between_losses": policy.between_losses})
        config["runtime"] = adapted.model_dump(mode="json")
        began, nodes, error = time.monotonic(), _nodes(), None
        try:
            result = _trainer(name, folder, workers, resources, config, callbacks).fit()
            if result.return_value == CHANGED:
                raise WrongRequest("a folder that it reads has changed since the sweep was planned; plan it anew")
            if result.return_value != STOPPED:
                break
            interruption = Interruption(Kind.PREEMPTED, "its node is about to go; it saved a checkpoint and stopped")
        except (ray.train.TrainingFailedError, RayError) as e:
            interruption, error = _interruption(e, nodes), e
        if not policy.should_restart(interruption, time.monotonic() - began):
            if error and interruption.kind == Kind.ERROR:
                raise error
            raise RuntimeError(interruption.text) from error
        # A wait for capacity that goes on is no news.
        if not interruption.kind == last_kind == Kind.NO_CAPACITY:
            on_interruption(interruption)
        last_kind = interruption.kind
        time.sleep(policy.pause if interruption.storage else 0.0)
    store = store_at(runtime.store, patience=PATIENCE)
    for stage in (stage for cell in cells for stage in stages_of(cell)):
        if line := store.failure(stage.key):
            raise RuntimeError(line)


def _trainer(
    name: str, folder: str, workers: int, resources: dict[str, float], config: dict[str, Any], callbacks: list[Any]
) -> Trainer:
    """Returns one start of the workers. Ray retries nothing: it has one count for lost nodes and for our errors."""
    return Trainer(
        _work,
        train_loop_config=config,
        backend_config=_SharedDevicesConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu="GPU" in resources, resources_per_worker=dict(resources)
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
            callbacks=callbacks,
        ),
    )


def _work(config: dict[str, Any]) -> str | None:
    """Runs a trial in one worker; returns `STOPPED` if it had to stop before the end."""
    ready()
    # Imported here: Ray reads this module in two more processes of a job, which would wait seconds for PyTorch.
    from ktrain import pipeline
    from ktrain.training.loop import Diverged, Preempted

    join()
    runtime = RuntimeConfig.model_validate(config["runtime"])
    readout_registry.restore(runtime.readout_kinds)
    cells = [CellConfig.received(cell) for cell in config["cells"]]
    freeze_contents()
    if [stages_of(cell).readout.key for cell in cells] != config["keys"]:
        return CHANGED
    try:
        pipeline.run(cells, runtime, RaySink(config["watch_preemption"]))
    except Preempted:
        return STOPPED
    except (WrongRequest, GuardFailure, Diverged):
        # Deterministic, so not retried: `fit` raises the line that the stage has noted in the store.
        pass
    return None


def join() -> None:
    """Makes one process group of all workers, on the GPUs that Ray gave them; each worker must call."""
    import torch

    from ktrain.system import process_group

    context = ray.train.get_context()
    ranks = {"RANK": context.get_world_rank(), "WORLD_SIZE": context.get_world_size()}
    ranks |= {"LOCAL_RANK": context.get_local_rank(), "LOCAL_WORLD_SIZE": context.get_local_world_size()}
    ranks |= {"NODE_RANK": context.get_node_rank()}
    if torch.cuda.is_available():
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    # Of a Ray that was started for one run, the folder is private.
    private = Path(os.environ["RAY_TMPDIR"]) if "RAY_TMPDIR" in os.environ else None
    process_group.join_group(ranks, ray.util.get_node_ip_address(), broadcast_from_rank_zero, private)


class RaySink:
    """Reports progress to Ray Train, at most every `REPORT_SECONDS` and after the last step of each stage.

    With `watch_preemption` it returns True once a node of the job is about to go.
    """

    def __init__(self, watch_preemption: bool) -> None:
        self._watch_preemption = watch_preemption
        self._last = -math.inf

    def __call__(self, stage: str, progress: Progress) -> bool:
        """Reports one line of a stage's curve, or skips it."""
        from ktrain.system.collectives import broadcast_ints

        # A report to Ray is collective, so no rank may decide by its own clock.
        if progress.step < progress.steps and not broadcast_ints(time.monotonic() - self._last >= REPORT_SECONDS)[0]:
            return False
        ray.train.report(as_result(stage, progress))
        self._last = time.monotonic()
        return self._watch_preemption and ray.train.get_preemption_info() is not None


@dataclass(frozen=True)
class _Failure:
    """The error of a job: `at_start` the one that kept its workers from starting, `causes` those of its workers, of
    which `deaths` ended them. `nodes` are those that there were when the job began."""

    error: Exception
    nodes: set[str]

    @property
    def at_start(self) -> Exception | None:
        return self.error.controller_failure if isinstance(self.error, ControllerError) else None

    @property
    def causes(self) -> list[Exception]:
        failures = self.error.worker_failures.values() if isinstance(self.error, WorkerGroupError) else [self.error]
        # Ray's health check wraps the error that a worker died of.
        return [getattr(failure, "health_check_failure", failure) for failure in failures]

    @property
    def deaths(self) -> list[RayError]:
        return [cause for cause in self.causes if isinstance(cause, RayError)]

    def of_node(self, *, preempted: bool) -> str | None:
        """The first death that came with that of a node that was `preempted`, or that was lost."""
        for death in self.deaths:
            was_preempted = isinstance(death, RayActorError) and death.preempted
            # That a node has died is in no field of the error, only in its text.
            if was_preempted or "node has died" in str(death):
                return _last_line(death) if was_preempted == preempted else None
        return None

    def of_memory(self) -> str | None:
        """The death for lack of memory."""
        for death in self.deaths:
            if isinstance(death, OutOfMemoryError) or "running low on memory" in str(death):
                return next(line for line in str(death).splitlines() if "memory" in line)[:200]
        return None

    def nodes_lost(self, within: float = 0.0) -> str | None:
        """How many nodes are gone, or go within `within` seconds; None if all stay."""
        end = time.monotonic() + within
        while not (gone := self.nodes - _nodes()):
            if time.monotonic() >= end:
                return None
            time.sleep(0.5)
        return f"{len(gone)} gone since it began"

    def lost_connection(self) -> bool:
        """Whether a worker could not be reached, which may be noticed before Ray knows that a node has died."""
        of_ranks = re.compile("gloo|nccl|connection|peer", re.IGNORECASE)
        between_ranks = [e for e in self.causes if isinstance(e, RuntimeError) and of_ranks.search(str(e))]
        return bool(between_ranks) or any(isinstance(cause, ActorUnavailableError) for cause in self.causes)

    def named(self, name: str) -> bool:
        """Whether an error is of the class `name`, which cannot be imported: Ray's is private, or derived by Ray."""
        return any(type(error).__name__ == name for error in (self.at_start, *self.causes))


_REASONS: tuple[tuple[Kind, Callable[[_Failure], object]], ...] = (
    (Kind.PREEMPTED, lambda f: isinstance(f.error, PreemptionError) and "its node went before it could stop"),
    (Kind.NO_CAPACITY, lambda f: f.named("WorkerGroupStartupTimeoutError") and "no node has room for it; it waits"),
    (Kind.LOST, lambda f: f.at_start and f.nodes_lost()),
    (Kind.DIED, lambda f: f.at_start and f"at the start: {_last_line(f.at_start)}"),
    (Kind.PREEMPTED, lambda f: f.of_node(preempted=True)),
    (Kind.LOST, lambda f: f.of_node(preempted=False)),
    (Kind.LEASE_LOST, lambda f: f.named("LeaseLost") and "another driver does the stage now; it waits for that"),
    (Kind.MEMORY, lambda f: f.of_memory()),
    (Kind.LOST, lambda f: f.lost_connection() and f.nodes_lost(NODE_LOSS_SECONDS)),
    (Kind.DIED, lambda f: f.deaths and _last_line(f.deaths[0])),
)
"""Kinds of interruptions, each with a predicate that returns one line if it applies and something false if not. The
first that applies counts; if none does, the error is the trial's own."""


def _interruption(error: Exception, nodes: set[str]) -> Interruption:
    """Returns why a job ended in `error`; `nodes` are those that there were when it began."""
    failure = _Failure(error, nodes)
    for kind, line_if in _REASONS:
        if line := line_if(failure):
            return Interruption(kind, str(line))
    cause = failure.causes[0]
    first_line = (str(cause).splitlines() or ["no message"])[0]
    return Interruption(Kind.ERROR, f"{type(cause).__name__}: {first_line}", storage=isinstance(cause, OSError))


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _fitting_workers(cells: list[CellConfig], runtime: RuntimeConfig, resources: dict[str, float]) -> int:
    """Returns the most workers that have room now and divide every batch, or else `runtime.workers`."""
    cluster = ray.cluster_resources()
    room = min(int(cluster.get(name, 0.0) / amount) for name, amount in resources.items() if amount)
    batch = math.gcd(*(cell.train.batch for cell in cells), *(cell.readout.batch for cell in cells))
    fitting = [count for count in range(1, min(room, runtime.workers) + 1) if batch % count == 0]
    return max(fitting, default=runtime.workers)


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no message"])[-1].strip()[:200]
