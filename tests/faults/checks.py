"""What must hold after every fault: results as if nothing had been, each made once, and told once to MLflow."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from ktrain.store import Store
from tests.faults.work import Work, Wrong

TIMED = ("speed/",)
"""Metrics that differ between two runs of the same thing."""


def results(store: Store, work: Work) -> dict[str, Any]:
    """Of each stage of the work: the digests of its weights and answers, and its metrics but for speed. Reads and
    verifies every file; raises `Wrong` where a stage is not there whole."""
    found: dict[str, Any] = {}
    for stage in {stage.key: stage for cell in work.plan(str(store.root)).cells for stage in cell.stages}.values():
        if store.find(stage.key) is None:
            raise Wrong(f"{stage.key} is not in the store")
        files = store.manifest(stage.key)["files"]
        kept = {n: e["sha256"] for n, e in files.items() if n.endswith((".safetensors", ".parquet", ".npz"))}
        metrics = {n: v for n, v in store.metrics(stage.key).items() if not n.startswith(TIMED)}
        found[stage.key] = {"files": kept, "metrics": metrics}
    return found


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises `Wrong` with the first stage that differs."""
    if found.keys() != wanted.keys():
        raise Wrong(f"stages {sorted(found.keys() ^ wanted.keys())}")
    for key, stage in wanted.items():
        for part in ("files", "metrics"):
            if found[key][part] != stage[part]:
                names = sorted(n for n in stage[part] if found[key][part].get(n) != stage[part][n])
                raise Wrong(f"{key}: {', '.join(names)} differ from the undisturbed run's")


def tidy(store: Path) -> None:
    """Raises `Wrong` where anything but results is left in a store."""
    for name in ("work", "damaged", "ray"):
        if left := [path.name for path in (store / name).glob("*")]:
            raise Wrong(f"left in {name}: {left}")
    if left := [path.name for path in (store / "leases").glob("*.json")]:
        raise Wrong(f"leases left: {left}")


@contextmanager
def publications(store: Path) -> Iterator[Callable[[], None]]:
    """Watches a store meanwhile; what it gives raises `Wrong` where a stage was published twice."""
    seen: dict[str, set[tuple[int, int]]] = {}
    done = threading.Event()

    def look() -> None:
        for path in store.glob("stages/*/manifest.json"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            seen.setdefault(path.parent.name, set()).add((stat.st_ino, stat.st_mtime_ns))

    def watch() -> None:
        while not done.wait(0.2):
            look()

    def once() -> None:
        look()
        if again := sorted(key for key, found in seen.items() if len(found) > 1):
            raise Wrong(f"published twice: {again}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield once
    finally:
        done.set()
        thread.join()


def starts(store: Store, key: str, steps: int, tokens_per_step: int = 4 * 64) -> int:
    """How often a pretraining was begun. Each start leaves its first step out of the tokens that it times. Raises
    `Wrong` where a line of the curve is missing or doubled."""
    folder = store.find(key)
    assert folder is not None
    curve = json.loads((folder / "curve.json").read_text())
    every = max(1, steps // 100)
    wanted = sorted({*range(every, steps + 1, every), steps})
    if [line["step"] for line in curve] != wanted:
        raise Wrong(f"{key}: the curve has the steps {[line['step'] for line in curve]}")
    return steps - int(curve[-1]["tokens"]) // tokens_per_step


def tracked(uri: str, store: Store, work: Work) -> None:
    """Holds every run of MLflow to the store. Raises `Wrong` where one is missing or doubled, or a number in it is."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    if experiment is None:
        raise Wrong("MLflow does not know the sweep")
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        if found.setdefault(run.data.tags["ktrain.key"], run) is not run:
            raise Wrong(f"MLflow has two runs of {run.data.tags['ktrain.key']}")
    plan = work.plan(str(store.root))
    stages = {stage.key: stage for cell in plan.cells for stage in cell.stages}
    if found.keys() != stages.keys() | {cell.key for cell in plan.cells}:
        raise Wrong(f"MLflow has other runs: {sorted(found.keys() ^ stages.keys())}")
    for key in stages:
        _points(client, found[key], _curves(store, key))
    for cell in plan.cells:
        finals = {name: [(0, v)] for stage in cell.stages for name, v in store.metrics(stage.key).items()}
        _points(client, found[cell.key], finals)


def _curves(store: Store, key: str) -> dict[str, list[tuple[int, float]]]:
    """What the run of a stage must hold: each line of its curve, and its final numbers."""
    folder = store.find(key)
    assert folder is not None
    curve = json.loads((folder / "curve.json").read_text()) if (folder / "curve.json").is_file() else []
    names = {
        "train/loss": "loss",
        "train/learning_rate": "learning_rate",
        "speed/tokens_per_second": "tokens_per_second",
    }
    points = {name: [(line["step"], line[field]) for line in curve] for name, field in names.items() if curve}
    finals = {name: [(0, v)] for name, v in store.metrics(key).items()}
    return finals | points


def _points(client: MlflowClient, run: Any, wanted: dict[str, list[tuple[int, float]]]) -> None:
    name = run.data.tags["ktrain.key"]
    # At the ends of its curve a stage says the same number again as a final one.
    if extra := run.data.metrics.keys() ^ wanted.keys():
        raise Wrong(f"MLflow's run of {name}: {sorted(extra)} missing or too many")
    for metric, points in wanted.items():
        history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
        if sorted(history) != sorted(points):
            raise Wrong(f"MLflow's run of {name}: {metric} has {len(history)} points, the store {len(points)}")
