"""A Ray Train job around a trial: the only module of this package that imports Ray."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from ktrain.config import Cell, Runtime
from ktrain.errors import GuardFailure, WrongRequest
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

os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def fit(name: str, cells: list[Cell], runtime: Runtime, folder: str, *, gpu: bool, callbacks: list[Any]) -> None:
    """Runs a trial in workers of its own and returns when all its stages are done.

    `name` and `folder` identify the job to Ray; nothing is kept there but Ray's own records. Raises what a worker
    raised, after `FAILURES` restarts; a request that is wrong or a guard that speaks is not tried again.
    """
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "cells": [cell.model_dump(mode="json") for cell in cells],
            "runtime": runtime.model_dump(mode="json"),
        },
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=runtime.workers,
            use_gpu=gpu,
            resources_per_worker={"GPU": 1} if gpu else {"CPU": runtime.threads},
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
    # Here and not above: Ray reads this module in two more processes of a job, which would wait seconds for nothing.
    from ktrain import node

    # Before any library asks; a machine of a cluster has not heard what the driver's has.
    node.keep_caches()
    from ktrain import trial
    from ktrain.training import Diverged

    cells = [Cell.model_validate(cell) for cell in config["cells"]]
    try:
        trial.run(cells, Runtime.model_validate(config["runtime"]), _reporter())
    except (WrongRequest, GuardFailure, Diverged):
        # The same would happen again: the line that the trial has left says what, and Ray starts no worker anew.
        return


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
