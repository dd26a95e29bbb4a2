"""What must hold after every fault: results as if nothing had been, each made once, and told once to MLflow."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from level import gap

from ktrain import layout
from ktrain.local import LocalStore
from ktrain.storage import Objects
from ktrain.store import Store
from tests.faults.work import Work, Wrong

TIMED = ("speed/",)
"""Metrics that differ between two runs of the same thing."""


def results(store: Store, work: Work) -> dict[str, Any]:
    """Of each stage of the work: the digests of its weights and answers, and its metrics but for speed. Reads and
    verifies every file; raises `Wrong` where a stage is not there whole."""
    found: dict[str, Any] = {}
    for stage in {stage.key: stage for cell in work.plan(store.address).cells for stage in cell.stages}.values():
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


def tidy(store: Store) -> None:
    """Raises `Wrong` where anything but results is left in a store. What a killed machine was about to publish stays
    in object storage for an hour, named by no manifest."""
    if isinstance(store, LocalStore):
        left = [f"{name}/{path.name}" for name in ("work", "damaged", "ray") for path in (store.root / name).glob("*")]
        left += [path.name for path in (store.root / "leases").glob("*.json")]
    else:
        kept = (f"{layout.STAGES}/", f"{layout.DATA}/")
        others = [entry for entry in Objects(store.address).entries("") if not entry.name.startswith(kept)]
        # A lease that nobody holds is an empty object.
        left = [entry.name for entry in others if entry.size or not entry.name.startswith(f"{layout.LEASES}/")]
    if left:
        raise Wrong(f"left in the store: {left}")


@contextmanager
def publications(store: Store) -> Iterator[Callable[[], None]]:
    """Watches a store meanwhile; what it gives raises `Wrong` where a stage was published twice."""
    seen: dict[str, set[Any]] = {}
    done = threading.Event()

    def look() -> None:
        for key, version in _versions(store).items():
            seen.setdefault(key, set()).add(version)

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


def _versions(store: Store) -> dict[str, Any]:
    """What tells one manifest of a stage from another."""
    if not isinstance(store, LocalStore):
        return {key: (entry.tag, entry.modified) for key, entry in layout.complete(Objects(store.address)).items()}
    found = {}
    for path in store.root.glob("stages/*/manifest.json"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found[path.parent.name] = stat.st_ino, stat.st_mtime_ns
    return found


def starts(store: Store, key: str, steps: int, tokens_per_step: int = 4 * 64) -> int:
    """How often a pretraining was begun. Each start leaves its first step out of the tokens that it times. Raises
    `Wrong` where a line of the curve is missing or doubled."""
    curve = json.loads(store.read(key, "curve.json"))
    every = max(1, steps // 100)
    wanted = sorted({*range(every, steps + 1, every), steps})
    if [line["step"] for line in curve] != wanted:
        raise Wrong(f"{key}: the curve has the steps {[line['step'] for line in curve]}")
    return steps - int(curve[-1]["tokens"]) // tokens_per_step


def tracked(connection: Any, store: Store, work: Work) -> None:
    """Holds every run, param and point in MLflow's database to the store. Raises `Wrong` where one is missing, doubled
    or another."""
    if found := gap(connection, work.plan(store.address)):
        raise Wrong(f"MLflow: {len(found)} differences, such as {'; '.join(found[:3])}")
