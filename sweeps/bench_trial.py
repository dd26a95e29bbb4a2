"""What a trial costs besides training: a Ray Train job against a bare process that does the same stages."""

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

from ktrain.config import Cell, Runtime
from ktrain.store import Store

ROUNDS = 3
STEPS = 200
"""Of the pretraining; the readout has half as many."""
BARE = """
import json, sys, time
begin = float(sys.argv[1])
from ktrain import trial
from ktrain.config import Cell, Runtime
marks = []
trial.run([Cell.model_validate_json(sys.argv[2])], Runtime.model_validate_json(sys.argv[3]),
          lambda key, progress: marks.append(time.time()) and None)
print(json.dumps({"first": marks[0] - begin, "last": marks[-1] - begin}))
"""
Marks = dict[str, float]
"""Seconds from the beginning to the first and to the last line of a curve, and to the end."""


def trial() -> dict[str, Any]:
    """Seconds from `fit` to the first step, from the last step to done, and the memory of what is not the worker.

    `ratios` is the whole time of a Ray Train job over that of a bare process with a warm cache of compiled code.
    """
    from ktrain.bench import machine, turns
    from sweeps import run
    from sweeps.room import DRIVER

    run.prepare()
    jobs: list[Marks] = []
    bare: list[Marks] = []
    memory: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="ktrain-bench-") as folder,
        run.connected("local", include_dashboard=False, resources={DRIVER: 8}),
    ):
        for number in range(ROUNDS + 1):
            print(f"{number + 1} of {ROUNDS + 1}: a job, then a bare process", file=sys.stderr, flush=True)
            jobs.append(_job(Path(folder) / f"job{number}", memory))
            bare.append(_bare(Path(folder) / f"bare{number}"))
    # The first of each compiles what the others find.
    cold, jobs, bare, memory = jobs[0], jobs[1:], bare[1:], memory[1:]

    def times(of: list[Marks], span: Callable[[Marks], float]) -> list[float]:
        return [span(marks) for marks in of]

    rows = [
        turns.row("job: fit to first line", times(jobs, lambda m: m["first"]), "s"),
        turns.row("job: last line to done", times(jobs, lambda m: m["end"] - m["last"]), "s"),
        turns.row("job: whole", times(jobs, lambda m: m["end"]), "s"),
        turns.row("bare: start to first line", times(bare, lambda m: m["first"]), "s"),
        turns.row("bare: last line to done", times(bare, lambda m: m["end"] - m["last"]), "s"),
        turns.row("bare: whole", times(bare, lambda m: m["end"]), "s"),
        turns.row("job: memory besides the worker", memory, "MB"),
    ]
    ratio = rows[2].median / rows[5].median
    about = {"steps": STEPS, "first job, which compiles": f"{cold['first']:.1f} s to its first line"}
    return turns.result(rows, {"bare: whole": ratio}, {}, machine.told(), about)


def _cell() -> Cell:
    from sweeps.scales import SCALES

    mini = SCALES["mini"]
    return mini.model_copy(
        update={
            "corpus": mini.corpus.model_copy(update={"people": 100}),
            "train": mini.train.model_copy(update={"steps": STEPS}),
            "readout": mini.readout.model_copy(update={"steps": STEPS // 2, "recall_gate": 0.0}),
        }
    )


def _job(folder: Path, memory: list[float]) -> Marks:
    """A job as a sweep has it, and what its processes besides the worker take: PSS in MB, at the first line."""
    from ray.train import UserCallback

    from ktrain import job

    others: list[float] = []
    store = Store.open(folder / "results")
    marks = folder / "marks"

    class Clock(UserCallback):  # type: ignore[misc]
        """Lives in the process that controls the job."""

        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            with marks.open("a") as file:
                file.write(f"{time.time()}\n")

    over = threading.Event()
    looking = threading.Thread(target=_look, args=(others, over))
    before = _besides()
    begin = time.time()
    looking.start()
    runtime = Runtime(store=store.address)
    job.fit("bench", [_cell()], runtime, str(folder / "ray"), worker={"CPU": 1}, watched=False,
            callbacks=[Clock()], told=lambda setback: None)  # fmt: skip
    end = time.time()
    over.set()
    looking.join()
    memory.append((max(others) - before) / 1e6)
    at = [float(line) for line in marks.read_text().split()]
    return {"first": at[0] - begin, "last": at[-1] - begin, "end": end - begin}


def _look(found: list[float], over: threading.Event) -> None:
    while not over.wait(1.0):
        found.append(_besides())


def _besides() -> float:
    """Bytes (PSS) of the processes below this one, workers of training apart."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" not in " ".join(process.cmdline()):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def _bare(folder: Path) -> Marks:
    store = Store.open(folder / "results")
    runtime = Runtime(store=store.address)
    began = time.time()
    words = [sys.executable, "-c", BARE, str(began), _cell().model_dump_json(), runtime.model_dump_json()]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: Marks = json.loads(said.splitlines()[-1])
    return {**found, "end": time.time() - began}
