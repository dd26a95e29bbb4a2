"""Results travel as a file: what one store has measured, another MLflow shows, to the last digit."""

import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.measurements import curves as measurements_curves
from analysis.measurements.cells import Results
from analysis.measurements.names import LEARNING, LOSS
from analysis.measurements.recorded import load_results
from ktrain.errors import WrongRequest
from ktrain.store.base import Store
from ktrain.store.open import open_store
from sweeps import Sweep
from sweeps.exchange import export_runs, import_runs
from sweeps.planning import grid
from sweeps.planning.plan import Plan, make
from sweeps.results import read
from sweeps.tracking.address import default_uri
from sweeps.tracking.sync import Tracker

Planner = Callable[..., Plan]
LEARNED = {
    "curve": [{"step": step, "bio/first_token/train/mean": step / 60, "seconds": step} for step in (30, 60)],
    "n": {"train": 30, "test": 30},
}


@pytest.fixture
def recorded(planned: Planner, publish: Callable[..., None], store: Store, database: str) -> Plan:
    """A plan of two cells, the first of which is done and delivered."""
    for stage in planned().cells[0].stages:
        publish(stage)
    plan = planned()
    shutil.copy(database.removeprefix("sqlite:///"), Path(store.address) / "mlflow.db")
    Tracker.open(default_uri(store), plan.sweep.name).sync(plan)
    return plan


@pytest.fixture
def other(tmp_path: Path, database: str) -> Store:
    """A store without a stage, with an empty database."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(database.removeprefix("sqlite:///"), folder / "mlflow.db")
    return open_store(folder)


@pytest.fixture(autouse=True)
def sweep_file(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Sweep]) -> None:
    """A name of the tests' sweep, as if it were one of the project's."""
    monkeypatch.setattr(grid, "load", lambda name: tiny(name=name))


def export(file: Path, store: Store) -> int:
    return export_runs("tiny", str(file), [], "mini", store.address)


def shown(results: Results) -> list[Any]:
    """What a reader sees of each finished cell."""
    return [
        (c.key, dict(c.axes), dict(c.metrics), dict(c.n), dict(c.interval), c.scale, c.departures, c.doubts)
        for c in results.cells
        if c.done
    ]


def drawn(uri: str, results: Results) -> list[Any]:
    """The points of all curves."""
    frame = measurements_curves.read_curves(uri, results, (*LEARNING, LOSS))
    return sorted(frame[["key", "metric", "step", "value"]].itertuples(index=False, name=None))


def test_what_is_imported_is_what_was_exported(recorded: Plan, store: Store, other: Store, tmp_path: Path) -> None:
    file = tmp_path / "tiny.json.gz"
    assert export(file, store) == 0
    assert import_runs(str(file), other.address) == 0
    mine, theirs = (load_results(default_uri(place), "tiny") for place in (store, other))
    assert shown(mine) and shown(mine) == shown(theirs)
    assert drawn(default_uri(store), mine) and drawn(default_uri(store), mine) == drawn(default_uri(other), theirs)
    assert theirs.other_kinds == mine.other_kinds
    assert mine.origin == "" and theirs.origin == "1 of 1 finished cells are imported from tiny.json.gz"


def test_a_file_can_be_imported_twice_and_exported_again(
    recorded: Plan, store: Store, other: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    export(first, store)
    for _ in range(2):
        import_runs(str(first), other.address)
    said = capsys.readouterr().out.splitlines()
    assert "1 of 1 cells added" in said[1] and "0 of 1 cells added" in said[2] and "1 were there" in said[2]
    export(second, other)
    assert first.read_bytes() == second.read_bytes()


def test_a_file_names_no_folder_and_nobody(recorded: Plan, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "tiny.json"
    export(file, store)
    text = file.read_text("utf-8")
    assert str(tmp_path) not in text and "mlflow.user" not in text and "run_id" not in text


def test_the_results_of_a_plan_show_imported_cells_and_say_so(
    recorded: Plan, store: Store, other: Store, tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    export(tmp_path / "tiny.json", store)
    import_runs(str(tmp_path / "tiny.json"), other.address)
    plan = make(tiny(), "mini", {}, other)
    uri = default_uri(other)
    before = read(plan, uri)
    assert [cell.done for cell in before.cells] == [True, False]
    assert before.origin == "1 of 1 finished cells are imported from tiny.json"
    assert not before.doubts
    # A run that delivers what this store has does not take away what it does not have.
    Tracker.open(uri, "tiny").sync(plan)
    assert shown(read(plan, uri)) == shown(before)


def test_cells_that_the_store_makes_itself_are_no_longer_imported(
    recorded: Plan, store: Store, other: Store, tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    export(tmp_path / "tiny.json", store)
    import_runs(str(tmp_path / "tiny.json"), other.address)
    shutil.copytree(Path(store.address) / "stages", Path(other.address) / "stages", dirs_exist_ok=True)
    plan, uri = make(tiny(), "mini", {}, other), default_uri(other)
    Tracker.open(uri, "tiny").sync(plan)
    after = read(plan, uri)
    assert after.done == 1 and after.origin == "" and not after.doubts


def damaged(lines: list[str]) -> dict[str, str]:
    """Files that are none, by what is wrong with them."""
    header, stage, cell = lines[0], lines[1], lines[-1]

    def changed(line: str, **fields: Any) -> str:
        return json.dumps({**json.loads(line), **fields})

    without_its_stage = [header, *(line for line in lines[1:] if '"kind":"cell"' in line)]
    return {
        "is empty": "",
        "line 1 is none": stage,
        "line 2 is none": "\n".join([header, "{"]),
        "format": "\n".join([changed(header, format="ktrain runs 2"), *lines[1:]]),
        "metrics.x.0.1: Value error, must be a finite number": "\n".join(
            [header, changed(stage, metrics={"x": [[0, float("inf"), 0.0]]})]
        ).replace("Infinity", "1e999"),
        "kind: Input should be 'stage' or 'cell'": "\n".join([header, changed(cell, kind="people")]),
        "needs that of": "\n".join(without_its_stage),
    }


def test_a_file_that_is_none_is_refused_in_a_line_and_nothing_is_written(
    recorded: Plan, store: Store, other: Store, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.json"
    export(file, store)
    for reason, text in damaged(file.read_text("utf-8").splitlines()).items():
        file.write_text(text, "utf-8")
        with pytest.raises(WrongRequest) as refused:
            import_runs(str(file), other.address)
        assert reason in str(refused.value) and "\n" not in str(refused.value)
    for name, content in {"cut.gz": gzip.compress(b"x" * 99)[:20], "plain.gz": b"x", "bytes.json": b"\xff"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WrongRequest, match=name):
            import_runs(str(tmp_path / name), other.address)
    with pytest.raises(WrongRequest, match="No such file"):
        import_runs(str(tmp_path / "none.json"), other.address)
    assert not load_results(default_uri(other), "tiny").cells


def test_a_sweep_without_a_finished_cell_is_not_exported(other: Store, tmp_path: Path) -> None:
    with pytest.raises(WrongRequest, match="sweep=tiny: no finished cell to export"):
        export(tmp_path / "f.json", other)
    assert not (tmp_path / "f.json").exists()


def test_what_the_store_contradicts_is_not_exported(recorded: Plan, store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(Path(store.address) / "mlflow.db") as database:
        database.execute("update latest_metrics set value = 0.8 where key like 'qa/exact_match/test/%'")
    with pytest.raises(WrongRequest, match=r"nothing is exported: .*qa/exact_match/test/mean=0\.8 instead of 0\.75"):
        export(tmp_path / "f.json", store)
    assert not (tmp_path / "f.json").exists()


def test_cells_of_other_values_stay_behind(recorded: Plan, store: Store, tmp_path: Path) -> None:
    export_runs("tiny", str(tmp_path / "f.json"), ["corpus.multi=1"], "mini", store.address)
    with pytest.raises(WrongRequest, match="no finished cell"):
        export_runs("tiny", str(tmp_path / "g.json"), ["corpus.multi=2"], "mini", store.address)
