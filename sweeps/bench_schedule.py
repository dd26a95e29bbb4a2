"""A sweep of the paper's size on declared GPUs: the real plan, queue, Ray Tune and live view, and trials that sleep.

A trial reserves what its workers would hold, sleeps as long as planned, scaled, and reports as it would. What is
measured is everything else: how far the end is from the earliest possible one, what the driver computes meanwhile, and
whether memory grows.
"""

import argparse
import functools
import json
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
from ktrain.store import Store

GPU_GIB = 79.0
"""Memory of the GPUs that are declared, in GiB: an H100's."""
SLEEPER = 130e6
"""Bytes that a trial that sleeps takes, measured as PSS; a real one takes `room.LEAD`."""
LINES = 10
"""Reports of a pretraining."""
POINTS = 10
"""How often memory is looked at."""
SECONDS = 500.0
"""Of the earliest end that is possible, unless told otherwise."""
LONGEST = 600.0
"""Seconds that Ray may take to place workers for whom there is room."""

Step = tuple[str, float, float]
"""A stage's key, its seconds, and its tokens in a second."""


def add(bench: argparse.ArgumentParser) -> None:
    """The options of `ktrain bench schedule`."""
    bench.add_argument("--gpus", type=int, default=64, help="schedule: GPUs to declare (default: 64)")
    bench.add_argument(
        "--trials", type=int, help="schedule: trials, of as many seeds as that takes (default: one seed)"
    )


def schedule(
    sweep: str, scale: str, *, gpus: int, trials: int | None, seconds: float, console: Console | None = None
) -> dict[str, Any]:
    """Runs a sweep in a Ray of its own; `seconds` is the scaled time of the earliest possible end.

    Returns wall time over that bound as `ratios`, CPU seconds of the driver and of Ray, memory as PSS in MB at `POINTS`
    points, by how many trials were done, the longest that workers waited for their place, and what `failed`. Raises
    `WrongRequest` for numbers that cannot be.
    """
    from ktrain.config import Runtime
    from sweeps import run
    from sweeps.placement import Placement
    from sweeps.queue import Queue
    from sweeps.room import DRIVER, found

    for name, value in {"gpus": gpus, "trials": trials or 1, "seconds": seconds}.items():
        if not value > 0:
            raise WrongRequest(f"{name}={value:g}: must be above 0")
    run.prepare()
    # Ray declares no more GPUs than are visible.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    with tempfile.TemporaryDirectory(prefix="ktrain-bench-") as folder:
        plan = _plan(sweep, scale, trials, Store.open(Path(folder) / "results"))
        own = {"num_gpus": gpus, "resources": {DRIVER: gpus + 100}, "object_store_memory": 100 * 2**20}
        with run.connected("local", include_dashboard=False, **own):
            room, driver = found(gpu_gib=GPU_GIB, lead=SLEEPER)
            placement = Placement(plan, room, Runtime(store=plan.store.address))
            placement.check()
            waiting = run.waiting(plan, placement.need)
            needs = {trial.name: placement.need(trial.name) for trial in waiting}
            work = sum(trial.seconds * room.share(needs[trial.name]) for trial in waiting)
            longest = max(trial.seconds for trial in waiting)
            pace = seconds / max(longest, work)
            watch = Watch(len(waiting))
            queue = Queue(
                [replace(trial, seconds=trial.seconds * pace) for trial in waiting],
                room,
                placement.need,
                built=plan.store.exists,
                ended=lambda name: watch.ended(),
            )
            (Path(folder) / "waits").mkdir()
            trainable = functools.partial(_sleep, courses=_courses(plan, needs, pace), folder=folder)
            watch.begin()
            told = console or Console(quiet=True)
            failed = run.drive(plan, queue, trainable, driver, Path(folder) / "ray", told, reuse=True)
            measured = watch.end()
        waits = [float(file.read_text()) for file in (Path(folder) / "waits").iterdir()]
    sizes = Counter(need.workers for need in needs.values())
    return {
        "ratios": {"makespan": measured["wall_seconds"] / seconds},
        "bound_seconds": seconds,
        "bound": "longest trial" if longest >= work else "total work",
        "hours": {"longest trial": longest / 3600, "total work": work / 3600, "bound": max(longest, work) / 3600},
        "trials": len(waiting),
        "gpus": gpus,
        "trials_by_gpus": {str(workers): sizes[workers] for workers in sorted(sizes)},
        "placed_within_seconds": max(waits, default=0.0),
        "failed": failed,
        **measured,
    }


def text(found: dict[str, Any]) -> str:
    """The result as a few lines."""
    hours, memory, ratio = found["hours"], found["memory"], found["ratios"]["makespan"]
    lines = [
        f"{found['trials']:,} trials on {found['gpus']} declared GPUs, {hours['bound']:,.1f} hours in "
        f"{found['bound_seconds']:,.0f} s (longest trial {hours['longest trial']:,.1f} h, all work on all GPUs "
        f"{hours['total work']:,.1f} h):",
        *(f"  {line}" for line in found["failed"]),
        f"  makespan     {found['wall_seconds']:,.1f} s, {ratio:.3f} of the bound ({found['bound']})",
        f"  driver       {found['driver_cpu_seconds']:,.1f} s of CPU, {found['driver_cpu_per_trial']:.3f} a trial",
        f"  Ray          {found['ray_cpu_seconds']:,.1f} s of CPU in all its processes",
        "  memory (PSS) trials done: driver, Ray's processes (how many)",
    ]
    lines += [f"{p['trials']:>18,}: {p['driver_mb']:,.0f} MB, {p['ray_mb']:,.0f} MB ({p['processes']})" for p in memory]
    return "\n".join(lines)


@dataclass
class Watch:
    """What a run costs: time, the driver's and Ray's CPU, memory whenever another tenth of the trials is done."""

    trials: int
    done: int = 0
    points: list[dict[str, float]] = field(default_factory=list)

    def begin(self) -> None:
        """Starts the clocks."""
        self._wall, self._cpu, self._ray = time.monotonic(), time.process_time(), _cpu(_family())

    def ended(self) -> None:
        """One more trial is over."""
        self.done += 1
        if self.done * POINTS // self.trials > (self.done - 1) * POINTS // self.trials:
            family = _family()
            ray = sum(map(_pss, family)) / 1e6
            driver = _pss(psutil.Process()) / 1e6
            self.points.append({"trials": self.done, "driver_mb": driver, "ray_mb": ray, "processes": len(family)})

    def end(self) -> dict[str, Any]:
        """What was found."""
        cpu = time.process_time() - self._cpu
        return {
            "wall_seconds": time.monotonic() - self._wall,
            "driver_cpu_seconds": cpu,
            "driver_cpu_per_trial": cpu / self.trials,
            "ray_cpu_seconds": _cpu(_family()) - self._ray,
            "memory": self.points,
        }


def _plan(sweep: str, scale: str, trials: int | None, store: Store) -> Any:
    """The sweep's plan with as many seeds as so many trials take, and with what is still blocked."""
    from sweeps.plan import make
    from sweeps.sweep import load

    def of(seeds: int) -> Any:
        made = make(load(sweep), scale, {"seed": list(range(seeds))}, store)
        return replace(made, cells=tuple(replace(cell, state="planned") for cell in made.cells))

    plan = of(1)
    if trials is None:
        return plan
    if len(plan.trials()) < trials:
        plan = of(-(-trials // len(plan.trials())))
    wanted = set(list(plan.trials())[:trials])
    return replace(plan, cells=tuple(cell for cell in plan.cells if cell.stages[1].key in wanted))


def _courses(plan: Any, needs: dict[str, Any], pace: float) -> dict[str, tuple[Step, list[Step]]]:
    """By trial its corpus and its other stages, in scaled seconds."""
    stages = {planned.stage.key: planned for planned in plan.stages}

    def step(key: str, workers: int) -> Step:
        seconds = max(stages[key].seconds * pace / workers, 1e-3)
        return key, seconds, stages[key].tokens / seconds

    courses = {}
    for name, cells in plan.trials().items():
        keys = list(dict.fromkeys(stage.key for cell in cells for stage in cell.stages))
        workers = needs[name].workers
        courses[name] = step(keys[0], workers), [step(key, workers) for key in keys[1:]]
    return courses


def _sleep(config: dict[str, Any], *, courses: dict[str, tuple[Step, list[Step]]], folder: str) -> None:
    """What Ray Tune runs in place of a job: the same places, times and reports."""
    from ray import tune
    from ray.util import placement_group, remove_placement_group

    told = config["trial"]
    corpus, steps = courses[told["name"]]
    begin = time.monotonic()
    group = placement_group([told["worker"]] * told["workers"])
    try:
        if not group.wait(LONGEST):
            raise RuntimeError(f"no place for {told['workers']} x {told['worker']} after {LONGEST:.0f} s")
        (Path(folder) / "waits" / told["name"]).write_text(str(time.monotonic() - begin))
        results = Store.at(Path(folder) / "results")
        if not results.exists(corpus[0]):
            time.sleep(corpus[1])
            with results.publish(corpus[0], {}, "corpus") as published:
                (published / "metrics.json").write_text("{}")
        for key, seconds, speed in steps:
            lines = LINES if key.startswith("pretrain") else 1
            for line in range(lines):
                time.sleep(seconds / lines)
                tune.report({"stage": key, "step": line + 1, "steps": lines, "loss": 1.0, "tokens_per_second": speed})
    finally:
        remove_placement_group(group)


def _family() -> list[psutil.Process]:
    """Every process that this one has started."""
    family: list[psutil.Process] = psutil.Process().children(recursive=True)
    return family


def _pss(process: psutil.Process) -> int:
    """Bytes of a process, those that it shares divided by who shares them; 0 for one that has ended."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
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


def command(arguments: argparse.Namespace) -> int:
    """`ktrain bench schedule`."""
    found = schedule(
        "paper",
        arguments.scale or "full",
        gpus=arguments.gpus,
        trials=arguments.trials,
        seconds=SECONDS if arguments.seconds is None else arguments.seconds,
        console=None if arguments.json else Console(stderr=True),
    )
    print(json.dumps(found, indent=1) if arguments.json else text(found))
    return 1 if found["failed"] else 0
