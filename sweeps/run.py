"""Running a plan: Ray Tune runs its trials, each a Ray Train job around a DeepSpeed engine."""

import contextlib
import functools
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ktrain.config import Cell, Runtime
from ktrain.errors import WrongRequest
from ktrain.lease import Process, ended

if TYPE_CHECKING:
    # The processes of a trial read this module too, and a plan takes them seconds.
    from sweeps.plan import Plan

DRIVER = "driver_slot"
"""The resource of a trial's driver, which only waits for its workers. A driver that held any share of a CPU would take
from the last one what a worker needs whole, and the trial would wait for ever."""


class Interrupted(Exception):
    """The user asked to stop; what is done is kept, and the next run continues."""


CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton-home",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
}
SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def cache(root: Path) -> None:
    """Keeps every cache of every library inside `root`, for this process and the workers that it starts."""
    caches = {name: str(root / folder) for name, folder in CACHES.items()}
    here = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    for name, value in {**caches, **SETTINGS, **here}.items():
        os.environ.setdefault(name, value)


def _carried() -> dict[str, str]:
    """What of this environment the processes of a cluster need, which do not descend from this one.

    Addresses and secrets are not among it: they stand in the environment of each node.
    """
    return {name: os.environ[name] for name in (*CACHES, *SETTINGS) if name in os.environ}


def check(workers: int, threads: int, checkpoint_seconds: float) -> None:
    """Raises `WrongRequest` for settings of a run that no machine could have."""
    if workers < 1 or threads < 1:
        raise WrongRequest(f"workers={workers}, threads={threads}: must be at least 1")
    if not checkpoint_seconds > 0:
        raise WrongRequest(f"checkpoint-seconds={checkpoint_seconds:g}: must be above 0")


def run(plan: "Plan", runtime: Runtime, console: Console) -> list[str]:
    """Runs what is missing; returns what is to be told of failures, line by line, empty where all is well.

    Where the first trials to end die of one error, no other is started (`failures.Breaker`). Raises `WrongRequest`
    where the machine or cluster cannot hold one trial, `Interrupted` on Ctrl-C.
    """
    trials = plan.trials()
    if not trials:
        return []
    import ray
    from ray import tune

    from sweeps.failures import Breaker
    from sweeps.live import LiveView

    # Without an address, Ray would join whatever was last started on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    alone: dict[str, Any] = {"include_dashboard": False, "resources": {DRIVER: 1000}}
    own = alone if address == "local" else {"runtime_env": {"env_vars": _carried()}}
    try:
        # Ray's own start-up lines say nothing about the sweep.
        ray.init(address=address, **own, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as e:
        raise WrongRequest(f"RAY_ADDRESS={address}: does not answer: {e}") from e
    records = _records(plan.store.root / "ray")
    try:
        resources = ray.cluster_resources()
        width, gpu = _width(resources, runtime)
        driver = {DRIVER: 1} if DRIVER in resources else {"CPU": 0.01}
        view, breaker = LiveView(plan, console), Breaker(plan)
        served = {
            name: {
                "name": name,
                "cells": [{"key": c.key, **c.axes} for c in plan.cells if c.cell in cells],
            }
            for name, cells in trials.items()
        }
        trainable = functools.partial(
            _trial,
            cells={name: [c.model_dump(mode="json") for c in cells] for name, cells in trials.items()},
            runtime=runtime.model_dump(mode="json"),
            records=str(records),
            gpu=gpu,
        )
        tuner = tune.Tuner(
            tune.with_resources(_named(trainable), driver),
            param_space={"trial": tune.grid_search(list(served.values()))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=width, trial_name_creator=_name, trial_dirname_creator=_name
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(records), callbacks=[view, breaker], stop=breaker, verbose=0
            ),
        )
        with view, _silent():
            results = tuner.fit()
        ended = len(results) == len(trials) and all(line.state in ("done", "failed") for line in view.lines.values())
        if not ended and not breaker.stop_all():
            raise Interrupted
        return breaker.told()
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        ray.shutdown()
        shutil.rmtree(records, ignore_errors=True)


def _trial(
    config: dict[str, Any], *, cells: dict[str, list[dict[str, Any]]], runtime: dict[str, Any], records: str, gpu: bool
) -> None:
    """What Ray Tune runs: a Ray Train job for the cells of one trial."""
    from ray.tune.integration.ray_train import TuneReportCallback

    from ktrain import job

    name = config["trial"]["name"]
    job.fit(
        name,
        [Cell.model_validate(cell) for cell in cells[name]],
        Runtime.model_validate(runtime),
        records,
        gpu=gpu,
        callbacks=[TuneReportCallback()],
    )


def _records(folder: Path) -> Path:
    """Where Ray keeps its records of this run, which end with it; those of drivers that were killed are removed."""
    me = Process.current()
    for old in folder.glob("*~*~*~*"):
        host, namespace, pid, started = old.name.split("~")
        if (host, namespace) == (me.host, me.namespace) and ended(int(pid), int(started) or None):
            shutil.rmtree(old, ignore_errors=True)
    return folder / f"{me.host}~{me.namespace}~{me.pid}~{me.started or 0}"


def _named(trainable: Any) -> Any:
    # Ray Tune registers a trainable by its name, and a partial has none.
    trainable.__name__ = "trial"
    return trainable


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


def _width(resources: dict[str, float], runtime: Runtime) -> tuple[int, bool]:
    """How many trials fit at once, and whether their workers have a GPU each."""
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    if gpus:
        if gpus < runtime.workers:
            raise WrongRequest(f"workers={runtime.workers}: there are {gpus:.0f} GPUs")
        return int(gpus // runtime.workers), True
    need = runtime.workers * runtime.threads
    if DRIVER not in resources:
        cpus -= 1
    if cpus < need:
        raise WrongRequest(f"workers={runtime.workers}, threads={runtime.threads}: there are {cpus:.0f} CPUs")
    return max(1, int(cpus // need)), False


@contextlib.contextmanager
def _silent() -> Any:
    """Ray Tune's tables and hints; ours say what the user asked for."""
    loggers = [logging.getLogger(n) for n in ("ray.tune", "ray.train", "ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
