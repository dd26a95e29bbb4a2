"""The notebook of the docs runs from its first cell to its last, at a tiny size."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ktrain import pipeline
from ktrain.config import RuntimeConfig
from ktrain.store.open import open_store
from sweeps.planning.grid import load
from sweeps.planning.plan import make

ROOT = Path(__file__).parents[2]
TINY = {
    "corpus.people": 60,
    "corpus.tokenizer": "bpe-600",
    "corpus.pools.birth_years": 5,
    "corpus.pools.birth_cities": 5,
    "train.steps": 10,
    "train.warmup": 2,
    "train.batch": 4,
    "train.context": 64,
    "train.windows": "cut",
    "readout.steps": 4,
    "readout.batch": 8,
    "readout.recall_gate": 0.0,
}


def test_every_cell_runs_and_shows_what_it_is_there_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder `docs`, as Jupyter does; what it writes goes to the folder above. The sweep is trained before,
    without Ray: that a run trains is the affair of other tests."""
    train(str(tmp_path / "results"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "first_hour.ipynb", tmp_path / "docs")
    notebook = nbformat.read(tmp_path / "docs" / "first_hour.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    (settings,) = (cell for cell in code if "settings" in cell.metadata.get("tags", ()))
    settings.source = f"axes = {[f'{name}={value}' for name, value in TINY.items()]}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path / "docs"}}).execute()
    shown = [
        "".join(
            output.get("text", "") + "".join(map(str, output.get("data", {}).values())) for output in cell["outputs"]
        )
        for cell in code
    ]
    texts, planned, ran, rows, _, answers = shown[2:]
    assert not any("\x1b" in text for text in shown[2:5]), "colours and a live view are for terminals"
    assert "Answer:" in texts and "2 cells" in planned and "2 of 2 cells done" in ran
    assert "qa/exact_match/test/mean" in rows and answers.count("right:") == 6
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert (tmp_path / "results" / "stages").is_dir()


def train(store: str) -> None:
    plan = make(load("demo"), "mini", {axis: [value] for axis, value in TINY.items()}, open_store(store))
    for cells in plan.trials().values():
        pipeline.run([cell.cell for cell in cells], RuntimeConfig(store=store, compile=False), lambda *_: None)


def test_no_output_is_kept_in_the_notebook() -> None:
    """Outputs would grow old, and hold paths of the machine that made them."""
    notebook = nbformat.read(ROOT / "docs" / "first_hour.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
