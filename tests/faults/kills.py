"""Ways in which a run on this machine ends, in each part of its work: the next run continues, and ends as undisturbed.

Seven ways (a worker, the driver, or everything is killed; SIGTERM; SIGHUP; Ctrl-C twice; stopped for a minute) at five
moments (as the corpus is made, in training, as a network is published, in a readout, in delivery) are 35 scenarios with
names such as `killed-driver-in-training`.
"""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import product

import psutil

from tests.faults import checks
from tests.faults.disks import NotHere
from tests.faults.scenarios import Extent
from tests.faults.site import SECONDS, Site
from tests.faults.work import Run, Wrong, pause, until

STOPPED = 130
"""The exit code of a run that a signal has stopped."""
STARTS = 10
"""Runs until one has started Ray, which ends itself if its agents have not been imported within 20 s."""
NO_RAY = "end what fills the machine"
"""A refusal says this if Ray does not start in its time."""
Way = Callable[[Run, Extent], str | None]
"""Returns what kept it from doing anything, or None."""
Moment = Callable[[Site, Run, random.Random], None]


def interrupted(way: str, moment: str, site: Site, extent: Extent, rng: random.Random) -> str:
    """Starts a run, ends it at a moment in a way, and lets the next run finish."""
    with site.published_once():
        run = _start(site, lambda run: MOMENTS[moment](site, run, rng))
        safe = sum(site.progress().values())
        site.tell(way, f"{moment}, {safe} steps of pretraining are safe")
        hindrance = WAYS[way](run, extent)
        if run.runs:
            site.ends_well(run)
            end = "the run went on"
        else:
            _see_off(run)
            _start(site, site.ends_well)
            end = "the next run continued"
    site.is_as_undisturbed()
    with closing(sqlite3.connect(site.root / "mlflow.db")) as connection:
        checks.tracked(connection, site.store, site.work)
    return f"{hindrance or end}; as undisturbed, and MLflow as the store"


def _start(site: Site, reach: Callable[[Run], None]) -> Run:
    """Starts a run that has to `reach` something. One that was refused because Ray does not start on a machine that is
    too busy is no fault, and is started again. Raises `NotHere` where that does not help."""
    command = ["-m", "sweeps.cli", "run", "demo", *site.work.axes, "--store", site.address, "--no-compile"]
    command += ["--checkpoint-seconds", str(SECONDS)]
    for _ in range(STARTS):
        run = site.begin(command, {"RAY_ADDRESS": "", "MLFLOW_TRACKING_URI": ""})
        try:
            reach(run)
        except Wrong:
            if run.runs or NO_RAY not in run.said:
                raise
            site.tell("Ray did not start", "the machine is too busy")
        else:
            return run
    raise NotHere(f"Ray did not start in {STARTS} runs: the machine is too busy")


def _see_off(run: Run) -> None:
    """Waits for the end of what trains, which ends with its driver, and ends Ray's helpers, some of which look for
    their parent only once a minute."""
    until(lambda: not _alive(_workers(run)), "the end of the workers")
    for process in run.family.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _workers(run: Run) -> list[psutil.Process]:
    return [process for process in run.family.values() if "RayTrainWorker" in _command(process)]


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and _command(process)]


def _kill_worker(run: Run, extent: Extent) -> str | None:
    """Kills one worker, if one is at work at this moment."""
    workers = _alive(_workers(run))
    if not workers:
        return "no worker was at work, so none was killed"
    workers[0].kill()
    # What follows is the run's own affair: it has time to notice.
    pause(2.0, run)
    return None


def _kill_driver(run: Run, extent: Extent) -> None:
    run.kill()


def _kill_everything(run: Run, extent: Extent) -> None:
    run.end()


def _signal(number: int, times: int, group: bool, run: Run, extent: Extent) -> None:
    """Sends a signal as a terminal does, to all that belong to it, or to the driver alone."""
    for _ in range(times):
        with suppress(ProcessLookupError):
            os.killpg(run.process.pid, number) if group else os.kill(run.process.pid, number)
        pause(0.5, run)
    code = run.wait()
    # What had only to end anyway may have ended before the signal came.
    if code not in (STOPPED, 0):
        raise Wrong(f"exit code {code} after signal {number}:\n{run.said[-3000:]}")
    if "Traceback" in run.said:
        raise Wrong(f"a traceback:\n{run.said[-3000:]}")


def _stop_for_a_while(run: Run, extent: Extent) -> None:
    """Everything stands still, as when a laptop sleeps."""
    halted = [process for process in run.family.values() if process.is_running()]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in [psutil.Process(run.process.pid), *halted]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(extent.away / 2)


def _in_corpus(site: Site, run: Run, rng: random.Random) -> None:
    until(lambda: [*site.root.glob("leases/corpus-*.json"), *site.root.glob("stages/corpus-*")], "a corpus", run)


def _in_training(site: Site, run: Run, rng: random.Random) -> None:
    site.reaches(int(rng.uniform(0.2, 1.6) * site.work.steps), run)


def _in_publishing(site: Site, run: Run, rng: random.Random) -> None:
    until(lambda: [*site.root.glob("stages/pretrain-*")], "a network that is published", run)


def _in_readout(site: Site, run: Run, rng: random.Random) -> None:
    until(lambda: [*site.root.glob("leases/qa-finetune-*.json"), *site.root.glob("stages/qa-*")], "a readout", run)
    pause(rng.uniform(0.0, 1.0), run)


def _in_delivery(site: Site, run: Run, rng: random.Random) -> None:
    until(lambda: ": done" in run.said, "a trial's end", run)
    pause(rng.uniform(0.0, 1.0), run)


WAYS: dict[str, Way] = {
    "killed-worker": _kill_worker,
    "killed-driver": _kill_driver,
    "killed-everything": _kill_everything,
    "sigterm": partial(_signal, signal.SIGTERM, 1, False),
    "sighup": partial(_signal, signal.SIGHUP, 1, True),
    "ctrl-c-twice": partial(_signal, signal.SIGINT, 2, True),
    "stopped-for-a-while": _stop_for_a_while,
}
MOMENTS: dict[str, Moment] = {
    "in-corpus": _in_corpus,
    "in-training": _in_training,
    "in-publishing": _in_publishing,
    "in-readout": _in_readout,
    "in-delivery": _in_delivery,
}
SCENARIOS = {f"{way}-{moment}": partial(interrupted, way, moment) for way, moment in product(WAYS, MOMENTS)}
