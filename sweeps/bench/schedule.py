"""A sweep of the paper's size on declared GPUs: the real plan, scheduler, Ray Tune and live view, with sleeping trials.

A trial reserves its workers' resources, sleeps for its planned time, scaled, and reports as a real one. The benchmark
measures the rest: the makespan over its lower bound, the driver's CPU time, and whether memory grows.
"""

import functools
import os
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from ktrain.errors import WrongRequest
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.open import open_store, store_at
from ktrain.training.progress import Progress, as_result

GPU_GIB = 79.0
"""GiB of a declared GPU: an H100's."""
SLEEPER = 130e6
"""Bytes (PSS) of a sleeping trial, as measured. A real one takes `capacity.DRIVER_BYTES`."""
LINES = 10
"""Reports of a pretraining."""
POINTS = 10
"""How often memory is sampled."""
SECONDS = 500.0
"""Default of the makespan's lower bound, scaled."""
LONGEST = 600.0
"""Seconds that Ray may take to place workers that fit."""

Step = tuple[str, float, float]
"""A stage's key, its seconds, and its tokens in a second."""
Course = tuple[Stage, Step, list[Step]]
"""The corpus of a trial, as a stage and as a step, and its other steps."""


def schedule(
    sweep: str, scale: str, *, gpus: int, trials: int | None, seconds: float, console: Console | None = None
) -> dict[str, Any]:
    """Runs a sweep in a Ray of its own, with time scaled so that the makespan's lower bound is `seconds`.

    Returns wall time over that bound as `ratios`, CPU seconds of the driver and of Ray, memory (PSS, MB) at `POINTS`
    points by trials done, the longest wait of workers for their placement, and the failures. Raises `WrongRequest`
    unless all numbers are above 0.
    """
    from ktrain.config import RuntimeConfig
    from sweeps.execution import ray_session, run
    from sweeps.execution.capacity import DRIVER, measure_capacity
    from sweeps.execution.placement import Placement
    from sweeps.execution.scheduler import BackfillScheduler

    for name, value in {"gpus": gpus, "trials": trials or 1, "seconds": seconds}.items():
        if not value > 0:
            raise WrongRequest(f"{name}={value:g}: must be above 0")
    ray_session.prepare()
    # Ray declares no more GPUs than are visible.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    with tempfile.TemporaryDirectory(prefix="ktrain-bench-") as folder:
        plan = _plan(sweep, scale, trials, open_store(Path(folder) / "results"))
        own = {"num_gpus": gpus, "resources": {DRIVER: gpus + 100}, "object_store_memory": 100 * 2**20}
        with ray_session.connected("local", include_dashboard=False, **own):
            capacity, driver = measure_capacity(gpu_gib=GPU_GIB, driver_bytes=SLEEPER)
            placement = Placement(plan, capacity, RuntimeConfig(store=plan.store.address))
            placement.check()
            pending = run.pending_trials(plan, placement.need)
            needs = {trial.name: placement.need(trial.name) for trial in pending}
            # The two lower bounds of a makespan: one trial's time, and all work spread over all GPUs.
            longest = max(trial.seconds for trial in pending)
            work = sum(trial.seconds * capacity.share(needs[trial.name]) for trial in pending)
            pace = seconds / max(longest, work)
            watch = Watch(len(pending))
            queue = BackfillScheduler(
                [replace(trial, seconds=trial.seconds * pace) for trial in pending],
                capacity,
                placement.need,
                built=plan.store.exists,
                ended=lambda name: watch.ended(),
            )
            (Path(folder) / "waits").mkdir()
            trainable = functools.partial(_sleep, courses=_courses(plan, needs, pace), folder=folder)
            screen = console or Console(quiet=True)
            watch.begin()
            failed = run.drive(plan, queue, trainable, driver, Path(folder) / "ray", screen, reuse=True)
            measured = watch.end()
        waits = [float(file.read_text()) for file in (Path(folder) / "waits").iterdir()]
    return {
        "ratios": {"makespan": measured["wall_seconds"] / seconds},
        "bound_seconds": seconds,
        "bound": "longest trial" if longest >= work else "total work",
        "hours": {"longest trial": longest / 3600, "total work": work / 3600, "bound": max(longest, work) / 3600},
        "trials": len(pending),
        "gpus": gpus,
        "trials_by_gpus": _by_workers(needs),
        "placed_within_seconds": max(waits, default=0.0),
        "failed": failed,
        **measured,
    }


def _by_workers(needs: dict[str, Any]) -> dict[str, int]:
    counts = Counter(need.workers for need in needs.values())
    return {str(workers): counts[workers] for workers in sorted(counts)}


def text(result: dict[str, Any]) -> str:
    """Formats a result as a few lines."""
    hours, memory, ratio = result["hours"], result["memory"], result["ratios"]["makespan"]
    lines = [
        f"{result['trials']:,} trials on {result['gpus']} declared GPUs, {hours['bound']:,.1f} hours in "
        f"{result['bound_seconds']:,.0f} s (longest trial {hours['longest trial']:,.1f} h, all work on all GPUs "
        f"{hours['total work']:,.1f} h):",
        *(f"  {line}" for line in result["failed"]),
        f"  makespan     {result['wall_seconds']:,.1f} s, {ratio:.3f} of the bound ({result['bound']})",
        f"  driver       {result['driver_cpu_seconds']:,.1f} s of CPU, {result['driver_cpu_per_trial']:.3f} a trial",
        f"  Ray          {result['ray_cpu_seconds']:,.1f} s of CPU in all its processes",
        "  memory (PSS) trials done: driver, Ray's processes (how many)",
    ]
    lines += [f"{p['trials']:>18,}: {p['driver_mb']:,.0f} MB, {p['ray_mb']:,.0f} MB ({p['processes']})" for p in memory]
    return "\n".join(lines)


@dataclass
class Watch:
    """Measures a run: wall time, CPU time of the driver and of Ray, memory after each tenth of the trials."""

    trials: int
    done: int = 0
    points: list[dict[str, float]] = field(default_factory=list)

    def begin(self) -> None:
        """Starts the clocks."""
        self._wall, self._cpu, self._ray = time.monotonic(), time.process_time(), _cpu(_family())

    def ended(self) -> None:
        """Counts a trial that has ended, and samples memory after each tenth."""
        self.done += 1
        if self.done * POINTS // self.trials > (self.done - 1) * POINTS // self.trials:
            family = _family()
            ray = sum(map(_pss, family)) / 1e6
            driver = _pss(psutil.Process()) / 1e6
            self.points.append({"trials": self.done, "driver_mb": driver, "ray_mb": ray, "processes": len(family)})

    def end(self) -> dict[str, Any]:
        """Returns the measurements."""
        cpu = time.process_time() - self._cpu
        return {
            "wall_seconds": time.monotonic() - self._wall,
            "driver_cpu_seconds": cpu,
            "driver_cpu_per_trial": cpu / self.trials,
            "ray_cpu_seconds": _cpu(_family()) - self._ray,
            "memory": self.points,
        }


def _plan(sweep: str, scale: str, trials: int | None, store: Store) -> Any:
    """Returns the sweep's plan with enough seeds for `trials`, with blocked cells made runnable."""
    from sweeps.planning.grid import load
    from sweeps.planning.plan import make

    def of(seeds: int) -> Any:
        made = make(load(sweep), scale, {"seed": list(range(seeds))}, store)
        return replace(made, cells=tuple(replace(cell, state="planned") for cell in made.cells))

    plan = of(1)
    if trials is None:
        return plan
    if len(plan.trials()) < trials:
        plan = of(-(-trials // len(plan.trials())))
    wanted = set(list(plan.trials())[:trials])
    return replace(plan, cells=tuple(cell for cell in plan.cells if cell.stages.pretrain.key in wanted))


def _courses(plan: Any, needs: dict[str, Any], pace: float) -> dict[str, Course]:
    """Returns, by trial, its corpus and its other stages, in scaled seconds."""
    stages = {planned.stage.key: planned for planned in plan.stages}

    def step(key: str, workers: int) -> Step:
        seconds = max(stages[key].seconds * pace / workers, 1e-3)
        return key, seconds, stages[key].tokens / seconds

    courses = {}
    for name, cells in plan.trials().items():
        keys = list(dict.fromkeys(stage.key for cell in cells for stage in cell.stages))
        workers = needs[name].workers
        corpus, *steps = (step(key, workers) for key in keys)
        courses[name] = stages[keys[0]].stage, corpus, steps
    return courses


def _sleep(config: dict[str, Any], *, courses: dict[str, Course], folder: str) -> None:
    """Stands in for a trial in Ray Tune: the same placement, times and reports."""
    from ray import tune
    from ray.util import placement_group, remove_placement_group

    trial = config["trial"]
    stage, corpus, steps = courses[trial["name"]]
    begin = time.monotonic()
    group = placement_group([trial["worker"]] * trial["workers"])
    try:
        if not group.wait(LONGEST):
            raise RuntimeError(f"no place for {trial['workers']} x {trial['worker']} after {LONGEST:.0f} s")
        (Path(folder) / "waits" / trial["name"]).write_text(str(time.monotonic() - begin))
        results = store_at(Path(folder) / "results")
        if not results.exists(stage.key):
            time.sleep(corpus[1])
            results.publish_files(stage, {"metrics.json": {}})
        for key, seconds, speed in steps:
            lines = LINES if key.startswith("pretrain") else 1
            for line in range(lines):
                time.sleep(seconds / lines)
                tune.report(as_result(key, Progress(line + 1, lines, 1.0, 0.0, tokens=round(speed), seconds=1.0)))
    finally:
        remove_placement_group(group)


def _family() -> list[psutil.Process]:
    """Returns all descendants of this process."""
    family: list[psutil.Process] = psutil.Process().children(recursive=True)
    return family


def _pss(process: psutil.Process) -> int:
    """Returns the PSS of a process in bytes (shared pages count by share); 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        return int(pss[1]) * 1024 if pss else 0
    except OSError:
        return 0


def _cpu(processes: list[psutil.Process]) -> float:
    spent = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += float(times.user + times.system)
    return spent
