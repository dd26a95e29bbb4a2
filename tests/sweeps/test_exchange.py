"""Results travel as a file: what one store has measured, another MLflow shows, to the last digit."""

import gzip
import json
import os
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
from sweeps.tracking import run_file
from sweeps.tracking.address import default_uri
from sweeps.tracking.sync import KINDS_TAG, Tracker

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
        "is there 2 times": "\n".join([*lines, cell]),
        "is a stage, which has no stages": "\n".join([header, changed(stage, stages={"x": json.loads(stage)["key"]})]),
        "key: Value error, '../x' is no key": "\n".join([header, changed(stage, key="../x")]),
        "sweep: String should match": "\n".join([changed(header, sweep="../x"), *lines[1:]]),
        "start: Input should be less than": "\n".join([header, changed(stage, start=10**30)]),
        "params.seed: Value error, must be at most": "\n".join([header, changed(stage, params={"seed": "a\0"})]),
        "mlflow.user.[key]: Value error, is no tag": "\n".join([header, changed(stage, tags={"mlflow.user": "me"})]),
        "ktrain.stages.[key]: Value error, is no tag": "\n".join([header, changed(cell, tags={"ktrain.stages": "{}"})]),
        "metrics.a/../b.[key]: Value error, must be 1 to": "\n".join([header, changed(stage, metrics={"a/../b": []})]),
        "is no list of readout kinds": "\n".join([changed(header, tags={KINDS_TAG: '[{"name": 3}]'}), *lines[1:]]),
        "tags.x.[key]": "\n".join([changed(header, tags={"x": "[]"}), *lines[1:]]),
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
    contents = {"cut.gz": gzip.compress(b"x" * 99)[:20], "plain.gz": b"x", "bytes.json": b"\xff"}
    # The compressed blocks begin after ten bytes.
    contents["block.gz"] = gzip.compress(b"x" * 99, mtime=0)[:10] + b"\xff" * 20
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WrongRequest, match=name):
            import_runs(str(tmp_path / name), other.address)
    with pytest.raises(WrongRequest, match="No such file"):
        import_runs(str(tmp_path / "none.json"), other.address)
    assert not load_results(default_uri(other), "tiny").cells


def test_a_file_that_holds_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_file, "LARGEST", 1000)
    for name, content in {"f.gz": gzip.compress(b"x" * 2000), "f.json": b"x" * 2000}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WrongRequest, match="has more than 1,000 bytes"):
            import_runs(str(tmp_path / name), str(tmp_path))


def test_only_regular_files_are_read_and_written(recorded: Plan, store: Store, tmp_path: Path) -> None:
    fifo, device = tmp_path / "fifo", tmp_path / "device"
    os.mkfifo(fifo)
    device.symlink_to("/dev/null")
    for path in (fifo, device, tmp_path):
        with pytest.raises(WrongRequest, match="not writable: is no regular file"):
            export(path, store)
        with pytest.raises(WrongRequest, match="cannot be read: is no regular file"):
            import_runs(str(path), store.address)
    assert fifo.is_fifo() and device.is_char_device() and device.is_symlink()


def test_a_text_with_odd_ends_of_lines_travels(recorded: Plan, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    export(file, store)
    header, runs = run_file.read(file)
    odd = [run.model_copy(update={"name": "a\u2028b\x85c\rd\ne"}) for run in runs]
    run_file.write(file, header, odd)
    assert run_file.read(file) == (header, odd)


def test_an_import_adds_kinds_of_readouts_and_takes_none_away(
    recorded: Plan, store: Store, other: Store, tmp_path: Path
) -> None:
    file = tmp_path / "f.json"
    export(file, store)
    header, *rest = file.read_text("utf-8").splitlines()
    new = {"name": "mine", "title": "Mine", "prefix": "mine", "columns": ["x"], "label": "l"}
    for kinds in ([new], []):
        file.write_text("\n".join([json.dumps({**json.loads(header), "tags": {KINDS_TAG: json.dumps(kinds)}}), *rest]))
        import_runs(str(file), other.address)
        assert [kind.name for kind in load_results(default_uri(other), "tiny").other_kinds] == ["mine"]


def test_what_an_import_says_of_a_stage_that_the_store_has_is_not_shown(
    recorded: Plan, store: Store, other: Store, tiny: Callable[..., Sweep], tmp_path: Path
) -> None:
    file = tmp_path / "f.json"
    export(file, store)
    file.write_text(file.read_text("utf-8").replace("0.75", "0.74"), "utf-8")
    shutil.copytree(Path(store.address) / "stages", Path(other.address) / "stages", dirs_exist_ok=True)
    import_runs(str(file), other.address)
    (cell, _) = read(make(tiny(), "mini", {}, other), default_uri(other)).cells
    assert cell.metrics["qa/exact_match/test/mean"] == 0.75
    assert "=0.74 instead of 0.75" in cell.doubts[0]


def test_a_sweep_without_a_finished_cell_is_not_exported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(WrongRequest, match="sweep=tiny: no finished cell to export"):
        export(tmp_path / "f.json", store)
    assert not (tmp_path / "f.json").exists()
    # Making the database takes seconds.
    assert not (Path(store.address) / "mlflow.db").exists()


def test_a_cell_that_is_done_and_not_delivered_is_not_exported(
    planned: Planner, publish: Callable[..., None], store: Store, tmp_path: Path, database: str
) -> None:
    for stage in planned().cells[0].stages:
        publish(stage)
    shutil.copy(database.removeprefix("sqlite:///"), Path(store.address) / "mlflow.db")
    with pytest.raises(WrongRequest, match=r"MLflow lacks .*, which is done; `ktrain report` delivers it"):
        export(tmp_path / "f.json", store)


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
