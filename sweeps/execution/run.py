"""Runs a plan: Ray Tune runs its trials, and each trial is a Ray Train job around a DeepSpeed engine."""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ktrain import readout_registry
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.errors import WrongRequest
from ktrain.store.open import store_at
from ktrain.system.launchers import device_faults
from ktrain.system.process import Process, ended
from ktrain.system.retry import PATIENCE
from ktrain.training.progress import DIVERGED
from sweeps.execution.cluster_address import LOCAL
from sweeps.execution.ray_session import Interrupted, RayEnded, connected, settings_for_cluster, silent

if TYPE_CHECKING:
    from sweeps.execution.scheduler import BackfillScheduler, PendingTrial

    # The processes of a trial import this module too, and importing a plan takes them seconds.
    from sweeps.planning.plan import Plan

MOST_WORKERS, MOST_THREADS = 100_000, 1_024


def check(
    workers: int,
    threads: int,
    checkpoint_seconds: float,
    gpus_max: int | None = None,
    gpu_memory: float | None = None,
) -> None:
    """Raises `WrongRequest` for settings that no machine could run with."""
    if gpus_max is not None and gpus_max < 0:
        raise WrongRequest(f"gpus-max={gpus_max}: must be at least 0")
    if gpu_memory is not None and not 0 < gpu_memory < float("inf"):
        raise WrongRequest(f"gpu-memory={gpu_memory:g}: must be above 0")
    if workers < 1 or threads < 1:
        raise WrongRequest(f"workers={workers}, threads={threads}: must be at least 1")
    if workers > MOST_WORKERS or threads > MOST_THREADS:
        most = f"workers at most {MOST_WORKERS:,} and threads at most {MOST_THREADS:,}"
        raise WrongRequest(f"workers={workers}, threads={threads}: must be {most}")
    if not 0 < checkpoint_seconds < float("inf"):
        raise WrongRequest(f"checkpoint-seconds={checkpoint_seconds:g}: must be above 0")


def run(
    plan: "Plan",
    runtime: RuntimeConfig,
    console: Console,
    begin: Callable[[], Sequence[Any]],
    *,
    address: str = LOCAL,
    gpus_most: int | None = None,
    gpu_gib: float | None = None,
) -> list[str]:
    """Runs what is missing, and returns the lines to print about failures; none if all trials succeeded.

    `begin` is called once nothing can be refused any more, and returns callbacks of Ray Tune; until then, nothing is
    written. `address` is that of `chosen_address`; `gpus_most` and `gpu_gib` are those of `measure_capacity`. Raises
    `WrongRequest` if the machine or cluster can never hold one of the trials, `Interrupted` on Ctrl-C, and `RayEnded`.
    """
    _remove_records_of_killed(plan.store.scratch / "ray")
    if not plan.trials():
        begin()
        return []
    import ray

    from sweeps.execution.capacity import DRIVER, measure_capacity
    from sweeps.execution.placement import Placement
    from sweeps.execution.scheduler import BackfillScheduler

    own: dict[str, Any] = {"runtime_env": {"env_vars": settings_for_cluster()}}
    if address == LOCAL:
        for line, fix in device_faults(os.environ):
            raise WrongRequest(f"{line}; {fix}")
        own = {"include_dashboard": False, "resources": {DRIVER: 1000}}
    console.print("starting Ray", style="dim", highlight=False)
    with _ray_records(plan.store.scratch / "ray") as records, connected(address, **own):
        if runtime.compile:
            console.print("compiling, which takes about a minute the first time", style="dim", highlight=False)
        capacity, driver = measure_capacity(gpus_most, gpu_gib)
        placement = Placement(plan, capacity, runtime)
        placement.check()
        callbacks = begin()
        trials = pending_trials(plan, placement.need)
        scheduler = BackfillScheduler(trials, capacity, placement.need, built=plan.store.exists, ended=placement.ended)
        # In Ray's object store, so that a trial's process fetches its own cells and not those of all trials.
        cells = {
            name: ray.put([(planned.cell.model_dump(mode="json"), planned.stages.readout.key) for planned in served])
            for name, served in plan.trials().items()
        }
        trainable = functools.partial(
            _trial,
            cells=cells,
            runtime={**runtime.model_dump(mode="json"), "readout_kinds": readout_registry.sources()},
            records=str(records),
            # A machine of one's own gives no notice before it goes.
            watched=address != LOCAL,
            pauses={name: plan.pause_at(name) for name in plan.trials()},
            compared=frozenset(name for name in plan.trials() if plan.compared(name)),
        )
        return drive(plan, scheduler, trainable, driver, records, console, callbacks)


def drive(
    plan: "Plan",
    scheduler: "BackfillScheduler",
    trainable: Callable[[dict[str, Any]], None],
    driver: dict[str, float],
    records: Path,
    console: Console,
    callbacks: Sequence[Any] = (),
    *,
    reuse: bool = False,
) -> list[str]:
    """Lets Ray Tune run the trials of a scheduler, and returns the lines to print about failures.

    `driver` is what a trial's process holds while `trainable` runs in it; with `reuse`, one process serves several
    trials in turn. If the first trials to end all fail with one error, no other starts (`failures.CircuitBreaker`).
    Raises `Interrupted` on Ctrl-C, and `RayEnded`.
    """
    from ray import tune

    from sweeps.execution.failures import CircuitBreaker
    from sweeps.execution.progress import ProgressView
    from sweeps.execution.restart_log import DRIVER_RESTARTS, RestartLog
    from sweeps.execution.user_callbacks import guarded

    count = len(plan.trials())
    view, breaker = ProgressView(plan, console, scheduler.wall), CircuitBreaker(plan)
    restarts = RestartLog(plan.store.reports / plan.sweep.name / "setbacks.jsonl")
    tuner = tune.Tuner(
        tune.with_resources(_named(trainable), driver),
        tune_config=tune.TuneConfig(
            search_alg=scheduler,
            num_samples=count,
            max_concurrent_trials=count,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(records),
            callbacks=[view, breaker, restarts, *callbacks, *guarded(plan.sweep.callbacks, plan)],
            failure_config=tune.FailureConfig(max_failures=DRIVER_RESTARTS),
            stop=breaker,
            verbose=0,
        ),
    )
    try:
        with view, silent():
            results = tuner.fit()
    except KeyboardInterrupt:
        raise Interrupted from None
    except RuntimeError as e:
        # Ray Tune raises one for any error of its processes but their death and their own errors.
        raise RayEnded(e) from e
    if line := restarts.summary():
        console.print(line, markup=False, highlight=False)
    all_ended = len(results) == count and all(line.ended for line in view.lines.values())
    if not all_ended and not breaker.stop_all():
        raise Interrupted
    return breaker.report()


def pending_trials(plan: "Plan", need: Callable[[str], Any]) -> "list[PendingTrial]":
    """Returns the trials of a plan for the scheduler; a trial's planned time is divided among its workers."""
    from sweeps.execution.scheduler import PendingTrial
    from sweeps.planning import summary

    seconds, varied = summary.by_trial(plan, to_pause=True), plan.varied()
    unbuilt = {p.stage.key for p in plan.stages if p.stage.kind == "corpus" and p.state == "to do"}
    trials = []
    for name, cells in plan.trials().items():
        corpus = cells[0].stages.corpus.key
        lines = tuple(" ".join([c.key, *(f"{axis}={c.axes[axis]}" for axis in varied)]) for c in cells)
        duration = seconds[name] / need(name).workers
        trials.append(PendingTrial(name, duration, corpus if corpus in unbuilt else None, lines))
    return trials


def _trial(
    config: dict[str, Any],
    *,
    cells: dict[str, Any],
    runtime: dict[str, Any],
    records: str,
    watched: bool,
    pauses: dict[str, int | None],
    compared: frozenset[str],
) -> None:
    """The function that Ray Tune runs: a Ray Train job for the cells of one trial. `pauses` has the step at which its
    pretraining pauses; if a search compares it with others (`compared`), a loss that diverges is no failure."""
    import ray
    from ray.tune.integration.ray_train import TuneReportCallback

    from ktrain import ray_job
    from ktrain.restart_policy import Interruption, Kind
    from sweeps.execution.restart_log import interruption_result

    trial = config["trial"]
    share, reports = trial["worker"].get("GPU", 1), TuneReportCallback()

    def report_interruption(interruption: Interruption) -> None:
        # Progress takes this way too. Ray Tune's own report would wait for its reader, which waits for this function.
        reports.after_report(None, [interruption_result(interruption)], None)

    own = {"workers": trial["workers"], "gpu_share": share, "pause_at": pauses[trial["name"]]}
    given = RuntimeConfig.model_validate(runtime | own)
    dumps, keys = zip(*ray.get(cells[trial["name"]]), strict=True)
    try:
        readout_registry.restore(given.readout_kinds)
        ray_job.fit(
            trial["name"],
            [CellConfig.model_validate(cell) for cell in dumps],
            keys,
            given,
            records,
            resources=trial["worker"],
            watch_preemption=watched,
            callbacks=[reports],
            on_interruption=report_interruption,
        )
    except Exception:
        # A trial has the name of its pretraining, whose line in the store the search reads.
        failure = store_at(given.store, patience=PATIENCE).failure(trial["name"]) if trial["name"] in compared else None
        if failure and failure.startswith(DIVERGED):
            return
        report_interruption(Interruption(Kind.GIVEN_UP, ""))
        raise


@contextlib.contextmanager
def _ray_records(folder: Path) -> Iterator[Path]:
    """Yields the folder for Ray's records of this run, which is removed at the end."""
    me = Process.current()
    mine = folder / f"{me.host}~{me.namespace}~{me.pid}~{me.started or 0}"
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _remove_records_of_killed(folder: Path) -> None:
    """Removes the folders that earlier drivers of this machine would have removed at their ends."""
    me = Process.current()
    for old in folder.glob("*~*~*~*"):
        host, namespace, pid, started = old.name.split("~")
        if (host, namespace) == (me.host, me.namespace) and ended(int(pid), int(started) or None):
            shutil.rmtree(old, ignore_errors=True)


def _named(trainable: Any) -> Any:
    # Ray Tune registers a trainable by its name, and a partial has none.
    trainable.__name__ = "trial"
    return trainable


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])
