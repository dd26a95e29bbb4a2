"""The whole way through Ray Tune, Ray Train and DeepSpeed, and what is left of it when processes die."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from rich.console import Console

from ktrain import ray_job
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.fingerprint import stage_key
from ktrain.store.open import store_at
from ktrain.system.process import Process
from sweeps.execution import run

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]
TINY = """
from ray import tune
from sweeps import Sweep

sweep = Sweep(
    name="tiny",
    figure="fig3",
    grid={{
        "corpus.multi": tune.grid_search({multi}),
        "corpus.people": 60,
        "corpus.tokenizer": "bpe-600",
        "corpus.pools.birth_years": 5,
        "corpus.pools.birth_cities": 5,
        "model.layers": 1,
        "model.heads": 1,
        "model.width": 32,
        "train.steps": {steps},
        "train.warmup": 10,
        "train.batch": 4,
        "train.context": 64,
        "train.windows": "cut",
        "readout.steps": 20,
        "readout.batch": 8,
        "readout.recall_gate": 0.0,
    }},
)
"""
HEARS = """
from ray.tune import Callback

class Hears(Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "stage" in result:
            with open("heard.txt", "a") as file:
                print(result["stage"], result["step"], result["loss"], file=file)

sweep = Sweep(
    callbacks=[Hears()],"""
STEPS = 1200
"""Enough training to be killed several times in."""
EVERY = STEPS // 100
"""Steps between two lines of a curve; resume points are there too."""
TOKENS_PER_STEP = 4 * 64
PATIENCE = 600.0
"""Seconds for what takes some ten on a machine that does nothing else."""


@dataclass
class Driver:
    """A `ktrain run` of its own, and every process that was ever seen under it."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        """The processes under the driver, now."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def worker(self) -> psutil.Process | None:
        for process in self.family():
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts `ktrain run` on a sweep file; whatever is left of it at the end is killed, by its id."""
    drivers: list[Driver] = []
    families: list[psutil.Process] = []

    def begin(*words: str) -> Driver:
        log = tmp_path / f"run-{len(drivers)}.log"
        command = [sys.executable, "-m", "sweeps.cli", "run", "tiny.py", "--no-compile", "--checkpoint-seconds", "0.5"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, *words],
                cwd=tmp_path,
                stdout=file,
                stderr=file,
                env={**environment(), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        drivers.append(Driver(process, log))
        return drivers[-1]

    yield begin
    for driver in drivers:
        families += driver.family()
        driver.process.kill()
        driver.process.wait()
    for process in families:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def environment() -> dict[str, str]:
    cache = {"KTRAIN_CACHE": str(ROOT / ".cache"), "PYTHONPATH": str(ROOT)}
    return {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")} | cache


def until(true: Callable[[], Any], what: str, driver: Driver | None = None, patience: float = PATIENCE) -> Any:
    """What `true` returns as soon as it is true; fails where patience or the driver ends before."""
    end = time.monotonic() + patience
    while not (found := true()):
        if driver is not None and driver.process.poll() is not None:
            pytest.fail(f"the driver ended with {driver.process.returncode} before {what}:\n{driver.said}")
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:.0f} s: {what}\n{driver.said if driver else ''}")
        time.sleep(0.05)
    return found


def gone(processes: list[psutil.Process], patience: float) -> None:
    """Waits until none of them runs; a zombie does not."""

    def alive() -> list[psutil.Process]:
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def none_is_alive() -> bool:
        try:
            return not alive()
        except psutil.NoSuchProcess:
            return False

    until(none_is_alive, f"the end of {[(p.pid, p.name()) for p in processes if p.is_running()]}", patience=patience)


def resume_point(folder: Path) -> int:
    """The newest step from which a pretraining could continue; 0 where there is none."""
    found = [int(path.name.removeprefix("step-")) for path in folder.glob("results/work/pretrain-*/step-*")]
    return max(found, default=0)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(store: Path) -> dict[str, str]:
    """SHA-256 of every model in a store, by stage."""
    return {path.parts[-3]: sha256(path) for path in store.glob("stages/*/model/model.safetensors")}


def starts(folder: Path) -> int:
    """How often the pretraining was started in all, each time where the last resume point had left it.

    Each start leaves its first step out of the tokens that it times, and a resume point keeps that count.
    """
    (curve,) = (json.loads(path.read_text()) for path in folder.glob("results/stages/pretrain-*/curve.json"))
    assert [point["step"] for point in curve] == list(range(EVERY, STEPS + 1, EVERY))
    return STEPS - int(curve[-1]["tokens"]) // TOKENS_PER_STEP


def runs(folder: Path) -> dict[str, str]:
    """The ids of all MLflow runs by key; a key with two runs is a fault."""
    client = MlflowClient(f"sqlite:///{folder / 'results' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    found = client.search_runs([experiment.experiment_id])
    ids = {run.data.tags["ktrain.key"]: run.info.run_id for run in found}
    assert len(ids) == len(found)
    return ids


def tidy(folder: Path) -> None:
    """Nothing but results is left in a store."""
    for name in ("work", "damaged", "ray"):
        assert list((folder / "results" / name).iterdir()) == []
    assert [path.name for path in (folder / "results" / "leases").iterdir()] == [".lock"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], dict[str, str]]]:
    """The models of the sweep that is killed below, trained without Ray and without interruption meanwhile."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "tiny.py").write_text(TINY.format(multi=[1], steps=STEPS))
    program = (
        "from ktrain import pipeline; from ktrain.config import RuntimeConfig\n"
        "from sweeps.planning.grid import expand, load\n"
        "cells = expand(load('tiny.py'), 'mini', {})\n"
        "pipeline.run(cells, RuntimeConfig(store='results', compile=False), lambda *_: None)\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, env=environment(), stdout=log, stderr=log
        )

    def models() -> dict[str, str]:
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
        return weights(folder / "results")

    yield models
    process.kill()
    process.wait()


def test_a_sweep_runs_once_and_an_extended_one_runs_what_is_new(start: Callable[..., Driver], tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.format(multi=[1, 2], steps=60).replace("\nsweep = Sweep(", HEARS))
    first = start()
    assert first.wait() == 0, first.said
    heard = {line.split()[0] for line in (tmp_path / "heard.txt").read_text().splitlines()}
    assert len(heard) == 4, "two pretrainings and two readouts report their last step to the sweep's own callback"
    said = first.said
    # Both trials were at work before one was done.
    assert said.count(": starting") == 2 and said.rindex(": starting") < said.index(": done")
    assert "bioS single" in said and "bioS multi2" in said
    assert (tmp_path / "results" / "reports" / "tiny" / "report.html").is_file()
    before, models = runs(tmp_path), weights(tmp_path / "results")
    assert len(before) == 8 and len(models) == 4
    tidy(tmp_path)
    manifests = {p: p.stat().st_mtime_ns for p in tmp_path.glob("results/stages/*/manifest.json")}

    second = start()
    assert second.wait() == 0, second.said
    assert "starting" not in second.said and "bioS multi2" in second.said
    assert runs(tmp_path) == before

    # And by two workers.
    third = start("corpus.multi=1", "seed=0,1", "--workers", "2")
    assert third.wait() == 0, third.said
    # On a slow machine there are lines about all trials together too.
    told = [line for line in third.said.splitlines() if line.startswith("[") and " trials done" not in line]
    assert told and all("-s1: " in line for line in told)
    assert before.items() <= runs(tmp_path).items() and len(runs(tmp_path)) == 12
    assert manifests == {p: p.stat().st_mtime_ns for p in manifests}
    assert models.items() <= weights(tmp_path / "results").items()

    trained = weights(tmp_path / "results")

    # A search whose first sample is the cell that is done: the other one trains to a ninth of its steps, and is out.
    search = 'samples=3, search_seed=1, scheduler="asha", metric="train/loss", grid={{\n'
    search += '        "train.learning_rate": tune.choice([2e-3, 1e-5]),'
    (tmp_path / "tiny.py").write_text(TINY.replace("grid={{", search).format(multi=[1], steps=60))
    fourth = start()
    assert fourth.wait() == 0, fourth.said
    told = [line for line in fourth.said.splitlines() if line.startswith("[") and " trials done" not in line]
    assert all("learning_rate=1e-05: " in line for line in told) and told[-1].endswith(": paused")
    assert "1 of 2 cells done in " in fourth.said and ", 1 stopped early" in fourth.said
    assert "best of 2 by train/loss" in fourth.said and "stopped early: at step 6 of 60 by asha" in fourth.said
    assert weights(tmp_path / "results") == trained
    (work,) = (tmp_path / "results" / "work").glob("pretrain-*")
    assert json.loads((work / "paused.json").read_text()).keys() == {str(step) for step in range(1, 7)}
    assert (work / "step-000000006").is_dir(), "its training is kept"
    fifth = start()
    assert fifth.wait() == 0 and "starting" not in fifth.said, fifth.said
    shutil.rmtree(work)
    tidy(tmp_path)


def test_a_run_survives_its_worker_and_the_next_continues_one_that_is_stopped_or_killed(
    start: Callable[..., Driver], uninterrupted: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    """The other signals, and every moment of a run: `python -m tests.faults kills`."""
    (tmp_path / "tiny.py").write_text(TINY.format(multi=[1], steps=STEPS))

    def newer(driver: Driver, last: int) -> None:
        until(lambda: resume_point(tmp_path) > last and ": pretrain " in driver.said, "a new resume point", driver)

    # Its worker is killed: the run replaces it, and goes on.
    driver = start()
    newer(driver, 0)
    worker = driver.worker()
    assert worker is not None
    worker.kill()
    worker.wait()
    newer(driver, resume_point(tmp_path))

    # Ctrl-C, as from a terminal: to the driver and to all that is in its group.
    family = driver.family()
    os.killpg(driver.process.pid, signal.SIGINT)
    assert driver.process.wait(60) == 130, driver.said
    assert "ktrain: stopped; what is done is kept" in driver.said and "Traceback" not in driver.said
    gone(family, 30)

    # The driver is killed. Whoever trains goes with it; some helpers of Ray look for their parent only once a minute.
    last = resume_point(tmp_path)
    driver = start()
    newer(driver, last)
    continued(driver, last)
    family, worker = driver.family(), driver.worker()
    assert worker is not None
    driver.process.kill()
    assert driver.wait() == -signal.SIGKILL
    gone([worker], 30)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

    last = resume_point(tmp_path)
    assert 0 < last < STEPS
    driver = start()
    assert driver.wait() == 0, driver.said
    continued(driver, last)
    assert starts(tmp_path) == 4
    assert weights(tmp_path / "results") == uninterrupted()
    assert len(runs(tmp_path)) == 4
    tidy(tmp_path)


def test_a_run_whose_first_trials_die_of_one_error_is_stopped(start: Callable[..., Driver], tmp_path: Path) -> None:
    # The longest come first.
    sick = '{"train.steps": 30_000, "train.learning_rate": 1e30, "seed": k}'
    well = '{"train.steps": 29_000, "seed": k}'
    grid = f'"run": tune.grid_search([{sick} for k in range(4)] + [{well} for k in range(4)]),'
    text = TINY.format(multi=[1], steps=STEPS)
    assert f'"train.steps": {STEPS},' in text
    (tmp_path / "tiny.py").write_text(text.replace(f'"train.steps": {STEPS},', grid))
    driver = start()
    until(lambda: ": failed" in driver.said, "a failure", driver)
    family = driver.family()
    assert driver.wait() == 1, driver.said
    gone(family, 30)
    said = driver.said
    told, _, shown = said.partition("stopped, because the first 3 trials to end all failed with this error")
    assert told.count("Diverged") == 1 and re.search(r"3 cells failed: Diverged: the loss is nan at step \d+\n", told)
    assert "train.learning_rate=1e+30" in told and "the same command continues" in " ".join(shown.split())
    assert "Traceback" not in said
    # What comes after is the report, whose verdicts and tables tell the states once more.
    assert told.count(": failed") == 3 and ": done" not in said
    assert not list(tmp_path.glob("results/stages/pretrain-*"))


def continued(driver: Driver, last: int) -> None:
    """The first line about the pretraining is the first one after the resume point `last`."""
    line = next(line for line in driver.said.splitlines() if ": pretrain " in line)
    assert f": pretrain {last + EVERY:,}/{STEPS:,}" in line, driver.said


@pytest.mark.parametrize(
    ("compared", "line", "fails"),
    [
        (True, "Diverged: the loss is nan at step 9", False),
        (True, "OSError: disk full", True),
        (True, None, True),
        (False, "Diverged: the loss is nan at step 9", True),
    ],
)
def test_a_loss_that_diverges_fails_no_trial_that_a_search_compares(
    compared: bool, line: str | None, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a line of its own, the pretraining is done: it was the readout."""
    given: list[int | None] = []

    def fit(name: str, cells: object, keys: object, runtime: RuntimeConfig, *_: object, **options: object) -> None:
        given.append(runtime.pause_at)
        raise RuntimeError("Diverged: the loss is nan at step 9")

    name = stage_key("pretrain", {})
    store_at(tmp_path).note_failure(name, line)
    monkeypatch.setattr(ray_job, "fit", fit)
    monkeypatch.setattr("ray.get", lambda cells: cells)
    reports = SimpleNamespace(after_report=lambda *_: None)
    monkeypatch.setattr("ray.tune.integration.ray_train.TuneReportCallback", lambda: reports)
    trial = {"name": name, "workers": 1, "worker": {"CPU": 1}}
    with pytest.raises(RuntimeError, match="Diverged") if fails else contextlib.nullcontext():
        run._trial(
            {"trial": trial},
            cells={name: [(CellConfig().model_dump(mode="json"), "readout")]},
            runtime=RuntimeConfig(store=str(tmp_path)).model_dump(mode="json"),
            records=str(tmp_path),
            watched=False,
            pauses={name: 6},
            compared=frozenset([name] if compared else []),
        )
    assert given == [6]


def test_a_run_with_nothing_to_do_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    """The killed one may have died after its last trial, and then no later run starts Ray."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = Process.current()
    for pid in (ended.pid, me.pid):
        (tmp_path / "ray" / f"{me.host}~{me.namespace}~{pid}~0" / "tune").mkdir(parents=True)
    plan: Any = SimpleNamespace(store=SimpleNamespace(scratch=tmp_path), trials=lambda: {})
    assert run.run(plan, RuntimeConfig(), Console(), begin=list) == []
    assert [path.name.split("~")[2] for path in (tmp_path / "ray").iterdir()] == [str(me.pid)]


def test_ray_ends_while_another_thread_collects_garbage(tmp_path: Path) -> None:
    """Ray ends the whole process, in silence, if a reference to it is collected while it shuts down."""
    program = """
import gc, threading
import ray
from sweeps.execution.ray_session import connected, prepare

def cycle():
    loop = []
    loop.append((loop, ray.put(1)))
    return loop

def collect(held, over):
    while not over.is_set():
        held.pop()
        if gc.isenabled():  # As the interpreter does by itself, after so many allocations.
            gc.collect()

prepare()
over = threading.Event()
with connected("local", include_dashboard=False, num_cpus=1):
    held = [cycle() for _ in range(5_000)]
    thread = threading.Thread(target=collect, args=(held, over))
    thread.start()
assert gc.isenabled()
over.set()
thread.join()
print("and goes on", flush=True)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and "and goes on" in ran.stdout, ran.stderr
