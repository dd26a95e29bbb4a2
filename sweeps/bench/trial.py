"""The overhead of a trial: a Ray Train job against a bare process that runs the same stages."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ktrain.config import CellConfig, RuntimeConfig
from ktrain.stages import stages_of
from ktrain.store.open import open_store

ROUNDS = 3
STEPS = 200
"""Steps of the pretraining. The readout has half as many."""
BARE = """
import json, sys, time
begin = float(sys.argv[1])
from ktrain import pipeline
from ktrain.config import CellConfig, RuntimeConfig
marks = []
pipeline.run([CellConfig.model_validate_json(sys.argv[2])], RuntimeConfig.model_validate_json(sys.argv[3]),
          lambda key, progress: marks.append(time.time()) and None)
print(json.dumps({"first": marks[0] - begin, "last": marks[-1] - begin}))
"""
Marks = dict[str, float]
"""Seconds from the start to the first and the last progress report, and to the end."""


def trial() -> dict[str, Any]:
    """Returns seconds from `fit` to the first step and from the last step to the end, and memory besides the worker.

    `ratios` is the whole time of a Ray Train job over that of a bare process, both with a warm compilation cache.
    """
    from ktrain.bench import interleaved, machine
    from sweeps.execution import ray_session
    from sweeps.execution.capacity import DRIVER

    ray_session.prepare()
    jobs: list[Marks] = []
    bare: list[Marks] = []
    memory: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="ktrain-bench-") as folder,
        ray_session.connected("local", include_dashboard=False, resources={DRIVER: 8}),
    ):
        for number in range(ROUNDS + 1):
            print(f"{number + 1} of {ROUNDS + 1}: a job, then a bare process", file=sys.stderr, flush=True)
            jobs.append(_job(Path(folder) / f"job{number}", memory))
            bare.append(_bare(Path(folder) / f"bare{number}"))
    # The first of each compiles what the others find in the cache.
    cold, jobs, bare, memory = jobs[0], jobs[1:], bare[1:], memory[1:]

    def times(of: list[Marks], span: Callable[[Marks], float]) -> list[float]:
        return [span(marks) for marks in of]

    rows = [
        interleaved.row("job: fit to first line", times(jobs, lambda m: m["first"]), "s"),
        interleaved.row("job: last line to done", times(jobs, lambda m: m["end"] - m["last"]), "s"),
        interleaved.row("job: whole", times(jobs, lambda m: m["end"]), "s"),
        interleaved.row("bare: start to first line", times(bare, lambda m: m["first"]), "s"),
        interleaved.row("bare: last line to done", times(bare, lambda m: m["end"] - m["last"]), "s"),
        interleaved.row("bare: whole", times(bare, lambda m: m["end"]), "s"),
        interleaved.row("job: memory besides the worker", memory, "MB"),
    ]
    ratio = rows[2].median / rows[5].median
    described = {"steps": STEPS, "first job, which compiles": f"{cold['first']:.1f} s to its first line"}
    return interleaved.result(rows, {"bare: whole": ratio}, {}, machine.describe(), described)


def _cell() -> CellConfig:
    from sweeps.recipes.scales import SCALES

    mini = SCALES["mini"]
    return mini.model_copy(
        update={
            "corpus": mini.corpus.model_copy(update={"people": 100}),
            "train": mini.train.model_copy(update={"steps": STEPS}),
            "readout": mini.readout.model_copy(update={"steps": STEPS // 2, "recall_gate": 0.0}),
        }
    )


def _job(folder: Path, memory: list[float]) -> Marks:
    """Runs a job as a sweep does; appends the peak PSS (MB) of its processes besides the worker to `memory`."""
    from ray.train import UserCallback

    from ktrain import ray_job

    others: list[float] = []
    store = open_store(folder / "results")
    marks = folder / "marks"

    class Clock(UserCallback):  # type: ignore[misc]
        """Notes the time of each report, in Ray Train's controller."""

        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            with marks.open("a") as file:
                file.write(f"{time.time()}\n")

    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(others, over))
    before = _besides()
    begin = time.time()
    sampler.start()
    runtime = RuntimeConfig(store=store.address)
    keys = [stages_of(_cell()).readout.key]
    ray_job.fit("bench", [_cell()], keys, runtime, str(folder / "ray"), resources={"CPU": 1}, watch_preemption=False,
            callbacks=[Clock()], on_interruption=lambda interruption: None)  # fmt: skip
    end = time.time()
    over.set()
    sampler.join()
    memory.append((max(others) - before) / 1e6)
    at = [float(line) for line in marks.read_text().split()]
    return {"first": at[0] - begin, "last": at[-1] - begin, "end": end - begin}


def _sample(samples: list[float], over: threading.Event) -> None:
    while not over.wait(1.0):
        samples.append(_besides())


def _besides() -> float:
    """Returns the PSS in bytes of this process's descendants, except training workers."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" not in " ".join(process.cmdline()):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def _bare(folder: Path) -> Marks:
    store = open_store(folder / "results")
    runtime = RuntimeConfig(store=store.address)
    began = time.time()
    words = [sys.executable, "-c", BARE, str(began), _cell().model_dump_json(), runtime.model_dump_json()]
    output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    marks: Marks = json.loads(output.splitlines()[-1])
    return {**marks, "end": time.time() - began}
