"""Running a plan: Ray Tune runs its trials, each a Ray Train job around a DeepSpeed engine."""

import contextlib
import functools
import gc
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ktrain.config import Cell, Runtime
from ktrain.errors import WrongRequest
from ktrain.node import keep_caches
from ktrain.process import Process, ended

if TYPE_CHECKING:
    # The processes of a trial read this module too, and a plan takes them seconds.
    from sweeps.plan import Plan
    from sweeps.queue import Queue, Waiting

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # Ray starts workers at 15, and then whatever else runs on the machine comes before training.
    "RAY_worker_niceness": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # What Ray Tune could restore a run from stands in the store.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
}
ALONE = {"RAY_AUTH_MODE": "disabled"}
"""On this machine alone, where nobody else listens."""


class Interrupted(Exception):
    """The user asked to stop; what is done is kept, and the next run continues."""


def prepare() -> None:
    """Settings of Ray and the caches of libraries, for this process and those of a Ray that it starts; what the user
    has set stays. Processes of a cluster get the settings with the job, and where caches are from their machine."""
    keep_caches(Path(".cache"))
    for name, value in (SETTINGS if os.environ.get("RAY_ADDRESS") else SETTINGS | ALONE).items():
        os.environ.setdefault(name, value)


def check(workers: int, threads: int, checkpoint_seconds: float) -> None:
    """Raises `WrongRequest` for settings of a run that no machine could have."""
    if workers < 1 or threads < 1:
        raise WrongRequest(f"workers={workers}, threads={threads}: must be at least 1")
    if not checkpoint_seconds > 0:
        raise WrongRequest(f"checkpoint-seconds={checkpoint_seconds:g}: must be above 0")


def run(
    plan: "Plan",
    runtime: Runtime,
    console: Console,
    callbacks: Sequence[Any] = (),
    *,
    gpus_most: int | None = None,
    gpu_gib: float | None = None,
) -> list[str]:
    """Runs what is missing; returns what is to be told of failures, line by line, empty where all is well.

    `callbacks` are Ray Tune's, which hear of trials; `gpus_most` and `gpu_gib` as in `room.found`. Raises
    `WrongRequest` where the machine or cluster can never hold some trial, before any is started, and `Interrupted` on
    Ctrl-C.
    """
    if not plan.trials():
        return []
    import ray

    from sweeps.placement import Placement
    from sweeps.queue import Queue
    from sweeps.room import DRIVER, found

    # Without an address, Ray would join whatever was last started on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    alone: dict[str, Any] = {"include_dashboard": False, "resources": {DRIVER: 1000}}
    own = alone if address == "local" else {"runtime_env": {"env_vars": _carried()}}
    with _records(plan.store.scratch / "ray") as records, connected(address, **own):
        room, driver = found(gpus_most, gpu_gib)
        placement = Placement(plan, room, runtime)
        placement.check()
        trials = waiting(plan, placement.need)
        queue = Queue(trials, room, placement.need, built=plan.store.exists, ended=placement.ended)
        # A trial's process fetches its own cells, not those of all.
        cells = {
            name: ray.put([planned.cell.model_dump(mode="json") for planned in served])
            for name, served in plan.trials().items()
        }
        trainable = functools.partial(
            _trial,
            cells=cells,
            runtime=runtime.model_dump(mode="json"),
            records=str(records),
            # A machine of one's own tells nobody when it goes.
            watched=address != "local",
        )
        return drive(plan, queue, trainable, driver, records, console, callbacks)


def _carried() -> dict[str, str]:
    """What of this environment the processes of a cluster need, which do not descend from this one.

    Addresses and secrets are not among it: they stand in the environment of each node.
    """
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def drive(
    plan: "Plan",
    queue: "Queue",
    trainable: Callable[[dict[str, Any]], None],
    driver: dict[str, float],
    records: Path,
    console: Console,
    callbacks: Sequence[Any] = (),
    *,
    reuse: bool = False,
) -> list[str]:
    """Lets Ray Tune run the trials of a queue; returns what is to be told of failures.

    `driver` is what a trial's process holds while `trainable` runs in it; with `reuse` it serves one trial after the
    other. Where the first trials to end die of one error, no other is started (`failures.Breaker`). Raises
    `Interrupted` on Ctrl-C.
    """
    from ray import tune

    from sweeps.failures import Breaker
    from sweeps.live import LiveView
    from sweeps.setbacks import DRIVERS, Setbacks

    count = len(plan.trials())
    view, breaker = LiveView(plan, console, queue.wall), Breaker(plan)
    setbacks = Setbacks(plan.store.reports / plan.sweep.name / "setbacks.jsonl")
    tuner = tune.Tuner(
        tune.with_resources(_named(trainable), driver),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            num_samples=count,
            max_concurrent_trials=count,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(records),
            callbacks=[view, breaker, setbacks, *callbacks],
            failure_config=tune.FailureConfig(max_failures=DRIVERS),
            stop=breaker,
            verbose=0,
        ),
    )
    try:
        with view, _silent():
            results = tuner.fit()
    except KeyboardInterrupt:
        raise Interrupted from None
    if line := setbacks.told():
        console.print(line, markup=False, highlight=False)
    over = len(results) == count and all(line.state in ("done", "failed") for line in view.lines.values())
    if not over and not breaker.stop_all():
        raise Interrupted
    return breaker.told()


@contextlib.contextmanager
def connected(address: str, **own: Any) -> Iterator[None]:
    """Ray at an address, or a Ray of our own at `local`, which gets `own`. Raises `WrongRequest` where none answers."""
    import ray

    try:
        # Ray's own start-up lines say nothing about the sweep.
        ray.init(address=address, **own, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as e:
        raise WrongRequest(f"RAY_ADDRESS={address}: does not answer: {e}") from e
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        # Where another thread collects garbage with references to Ray while it shuts down, Ray ends the process.
        gc.disable()
        gc.collect()
        try:
            ray.shutdown()
        finally:
            gc.enable()


def waiting(plan: "Plan", need: Callable[[str], Any]) -> "list[Waiting]":
    """The trials of a plan for the queue; workers divide the time that they take."""
    from sweeps import bill
    from sweeps.queue import Waiting

    seconds, varied = bill.by_trial(plan), plan.varied()
    missing = {p.stage.key for p in plan.stages if p.stage.kind == "corpus" and p.state == "to do"}
    found = []
    for name, cells in plan.trials().items():
        corpus = cells[0].stages[0].key
        about = (" ".join([c.key, *(f"{axis}={c.axes[axis]}" for axis in varied)]) for c in cells)
        duration = seconds[name] / need(name).workers
        found.append(Waiting(name, duration, corpus if corpus in missing else None, tuple(about)))
    return found


def _trial(
    config: dict[str, Any],
    *,
    cells: dict[str, Any],
    runtime: dict[str, Any],
    records: str,
    watched: bool,
) -> None:
    """What Ray Tune runs: a Ray Train job for the cells of one trial."""
    import ray
    from ray.tune.integration.ray_train import TuneReportCallback

    from ktrain import job
    from ktrain.setbacks import Setback
    from sweeps.setbacks import OVER, result

    told = config["trial"]
    share, reports = told["worker"].get("GPU", 1), TuneReportCallback()

    def tell(setback: Setback) -> None:
        # The way that progress takes: Ray Tune's own report would wait for its reader, which waits for this one.
        reports.after_report(None, [result(setback)], None)

    try:
        job.fit(
            told["name"],
            [Cell.model_validate(cell) for cell in ray.get(cells[told["name"]])],
            Runtime.model_validate(runtime | {"workers": told["workers"], "gpu_share": share}),
            records,
            worker=told["worker"],
            watched=watched,
            callbacks=[reports],
            told=tell,
        )
    except Exception:
        tell(Setback(OVER, ""))
        raise


@contextlib.contextmanager
def _records(folder: Path) -> Iterator[Path]:
    """Where Ray keeps its records of this run, which end with it; those of drivers that were killed are removed."""
    me = Process.current()
    for old in folder.glob("*~*~*~*"):
        host, namespace, pid, started = old.name.split("~")
        if (host, namespace) == (me.host, me.namespace) and ended(int(pid), int(started) or None):
            shutil.rmtree(old, ignore_errors=True)
    mine = folder / f"{me.host}~{me.namespace}~{me.pid}~{me.started or 0}"
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _named(trainable: Any) -> Any:
    # Ray Tune registers a trainable by its name, and a partial has none.
    trainable.__name__ = "trial"
    return trainable


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Without what Ray's libraries say of themselves."""
    loggers = [logging.getLogger(n) for n in ("ray.tune", "ray.train", "ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without Ray Tune's tables and hints, and what Ray says of how many processes it has started."""
    with muted(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
