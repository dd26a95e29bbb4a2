"""A tiny sweep that is finished: its store, made in a few seconds without Ray, and its results in MLflow."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ktrain import pipeline
from ktrain.config import RuntimeConfig
from ktrain.model import networks
from ktrain.store.open import open_store
from sweeps.planning import grid, plan
from sweeps.tracking.sync import Tracker

SWEEP = """
from ray import tune
from sweeps import Sweep

SMALL = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
NAMES = dict.fromkeys(("first_names", "middle_names", "last_names"), 20)

sweep = Sweep(
    name="damage",
    question="Is damage noticed?",
    grid={
        "corpus.people": 12, "corpus.multi": 2, "corpus.permute": 1, "corpus.tokenizer": "bpe-600",
        **{f"corpus.pools.{name}": size for name, size in (SMALL | NAMES).items()},
        "train.steps": 10, "train.batch": 4, "train.context": 64, "train.warmup": 2, "train.precision": "fp32",
        "train.windows": "cut",
        "readout.steps": 10, "readout.batch": 8, "readout.precision": "fp32", "readout.recall_gate": 0.0,
        "readout.people_per_class": 0,
        "kind": tune.grid_search([
            {"readout.kind": "qa_finetune"},
            {"readout.kind": "q_probe"},
            {"readout.kind": "mixed", "train.qa_ratio": 0.5},
        ]),
    },
)
"""


@dataclass(frozen=True)
class Finished:
    """A sweep file, the store in which it is finished, and the database with its results."""

    sweep: Path
    store: Path
    uri: str

    def copy(self, folder: Path) -> Path:
        """Copies the store to a new folder, as if every file in it had been published there."""
        shutil.copytree(self.store, folder)
        for manifest in folder.glob("stages/*/manifest.json"):
            settle(manifest)
        return folder


def settle(manifest: Path) -> None:
    """Makes a manifest the youngest file of its stage, as it is when a stage is published."""
    youngest = max(path.stat().st_ctime_ns for path in manifest.parent.rglob("*") if path != manifest)
    os.utime(manifest, ns=(youngest, youngest))


def make(folder: Path) -> Finished:
    """Trains the cells of the sweep in this process, with networks far smaller than the smallest, and delivers them."""
    finished = Finished(folder / "damage.py", folder / "results", f"sqlite:///{folder / 'mlflow.db'}")
    finished.sweep.write_text(SWEEP)
    store = open_store(finished.store)
    runtime = RuntimeConfig(store=str(finished.store), compile=False, checkpoint_seconds=1e9)
    with mock.patch.dict(networks.SIZES, mini=networks.NetworkSize(2, 2, 64)):
        for cells in plan.make(grid.load(str(finished.sweep)), "mini", {}, store).trials().values():
            pipeline.run([cell.cell for cell in cells], runtime, lambda key, progress: False)
    made = plan.make(grid.load(str(finished.sweep)), "mini", {}, store)
    assert all(cell.state == "done" for cell in made.cells), [cell.state for cell in made.cells]
    assert not Tracker.open(finished.uri, "damage").sync(made)
    return finished
