"""Checks after every fault: results equal those of an undisturbed run, and each is published and tracked once."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from level import gap

from ktrain.store import object_names
from ktrain.store.base import Store
from ktrain.store.local import LocalStore
from ktrain.store.object_client import ObjectClient
from tests.faults.work import Work, Wrong

TIMED = ("speed/",)
"""Metrics that differ between two runs of the same work."""


def results(store: Store, work: Work) -> dict[str, Any]:
    """Of each stage of the work: the digests of its weights and answers, and its metrics but for speed. Reads and
    verifies every file; raises `Wrong` where a stage is not there whole."""
    stages: dict[str, Any] = {}
    for stage in {stage.key: stage for cell in work.plan(store.address).cells for stage in cell.stages}.values():
        if store.fetch(stage.key) is None:
            raise Wrong(f"{stage.key} is not in the store")
        files = store.manifest(stage.key)["files"]
        kept = {n: e["sha256"] for n, e in files.items() if n.endswith((".safetensors", ".parquet", ".npz"))}
        metrics = {n: v for n, v in store.metrics(stage.key).items() if not n.startswith(TIMED)}
        stages[stage.key] = {"files": kept, "metrics": metrics}
    return stages


def same(stages: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises `Wrong` with the first stage that differs."""
    if stages.keys() != wanted.keys():
        raise Wrong(f"stages {sorted(stages.keys() ^ wanted.keys())}")
    for key, stage in wanted.items():
        for part in ("files", "metrics"):
            if stages[key][part] != stage[part]:
                names = sorted(n for n in stage[part] if stages[key][part].get(n) != stage[part][n])
                raise Wrong(f"{key}: {', '.join(names)} differ from the undisturbed run's")


def tidy(store: Store) -> None:
    """Raises `Wrong` if a store holds anything but results. The uploads of a killed machine stay in object storage for
    an hour, but no manifest names them."""
    if isinstance(store, LocalStore):
        left = [f"{name}/{path.name}" for name in ("work", "damaged", "ray") for path in (store.root / name).glob("*")]
        left += [path.name for path in (store.root / "leases").glob("*.json")]
    else:
        kept = (f"{object_names.STAGES}/", f"{object_names.DATA}/")
        others = [entry for entry in ObjectClient(store.address).entries("") if not entry.name.startswith(kept)]
        # A lease that nobody holds is an empty object.
        left = [entry.name for entry in others if entry.size or not entry.name.startswith(f"{object_names.LEASES}/")]
    if left:
        raise Wrong(f"left in the store: {left}")


@contextmanager
def publications(store: Store) -> Iterator[Callable[[], None]]:
    """Watches a store; yields a function that raises `Wrong` if a stage was published twice."""
    versions: dict[str, set[Any]] = {}
    done = threading.Event()

    def look() -> None:
        for key, version in _versions(store).items():
            versions.setdefault(key, set()).add(version)

    def watch() -> None:
        while not done.wait(0.2):
            look()

    def once() -> None:
        look()
        if again := sorted(key for key, distinct in versions.items() if len(distinct) > 1):
            raise Wrong(f"published twice: {again}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield once
    finally:
        done.set()
        thread.join()


def _versions(store: Store) -> dict[str, Any]:
    """A version of each stage's manifest, which changes when it is written again."""
    if not isinstance(store, LocalStore):
        return {
            key: (entry.tag, entry.modified)
            for key, entry in object_names.complete(ObjectClient(store.address)).items()
        }
    versions = {}
    for path in store.root.glob("stages/*/manifest.json"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        versions[path.parent.name] = stat.st_ino, stat.st_mtime_ns
    return versions


def starts(store: Store, key: str, steps: int, tokens_per_step: int = 4 * 64) -> int:
    """How often a pretraining was started: each start leaves its first step out of the tokens that it times. Raises
    `Wrong` if a line of the curve is missing or duplicated."""
    curve = json.loads(store.read(key, "curve.json"))
    every = max(1, steps // 100)
    wanted = sorted({*range(every, steps + 1, every), steps})
    if [line["step"] for line in curve] != wanted:
        raise Wrong(f"{key}: the curve has the steps {[line['step'] for line in curve]}")
    return steps - int(curve[-1]["tokens"]) // tokens_per_step


def tracked(connection: Any, store: Store, work: Work) -> None:
    """Compares every run, param and point in MLflow's database with the store. Raises `Wrong` if one is missing,
    duplicated or different."""
    if differences := gap(connection, work.plan(store.address)):
        raise Wrong(f"MLflow: {len(differences)} differences, such as {'; '.join(differences[:3])}")
