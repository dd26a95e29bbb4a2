"""Results are compared with the store: what it contradicts is not shown, and the next delivery mends it."""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

from analysis.measurements.table_rows import rows
from ktrain.fingerprint import sha256
from ktrain.store import manifest
from ktrain.store.base import Store
from sweeps import Sweep
from sweeps.planning.plan import Plan
from sweeps.results import read, read_answers, read_curves, undelivered
from sweeps.tracking.sync import Tracker, sync_with_retry

Planner = Callable[..., Plan]
Execute = Callable[..., None]
MEAN = "qa/exact_match/test/mean"
LEARNING = {
    "n": {"train": 30, "test": 30},
    "curve": [{"step": step, "bio/first_token/test/mean": step / 100} for step in (20, 40, 60)],
}


@pytest.fixture
def renamed(planned: Planner, request: pytest.FixtureRequest) -> Callable[[], Plan]:
    """A new look at the plan, with an experiment of the test's own."""

    def plan() -> Plan:
        made = planned()
        return replace(made, sweep=replace(made.sweep, name=request.node.name))

    return plan


@pytest.fixture
def done(renamed: Callable[[], Plan], publish: Callable[..., None], database: str) -> Plan:
    """Both cells are done and delivered."""
    for stage in {stage.key: stage for cell in renamed().cells for stage in cell.stages}.values():
        publish(stage, learning=LEARNING)
    plan = renamed()
    assert not Tracker.open(database, plan.sweep.name).sync(plan)
    return plan


@pytest.fixture
def execute(database: str, done: Plan) -> Execute:
    """Runs SQL on MLflow's database; `:run` is the first cell's run."""

    def run(statement: str, **values: Any) -> None:
        tracker = Tracker.open(database, done.sweep.name)
        first = tracker.runs()[done.cells[0].key].info.run_id
        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            changed = connection.execute(statement, {"run": first, **values})
            assert changed.rowcount >= 1

    return run


def numbers(plan: Plan, uri: str) -> list[float | None]:
    return [cell.metrics.get(MEAN) for cell in read(plan, uri).cells]


@pytest.mark.parametrize(
    "drawn",
    [
        {"train.learning_rate": tune.loguniform(1e-4, 1e-2)},
        # `readout.dropout` and `model.size` say what follows from these.
        {"model.dropout": tune.uniform(0.01, 0.3)},
        {"model.layers": tune.randint(1, 400)},
    ],
    ids=["rate", "dropout", "layers"],
)
def test_of_a_random_search_the_sample_chosen_by_its_metric_is_reported(
    drawn: dict[str, Any],
    tiny: Callable[..., Sweep],
    planned: Planner,
    publish: Callable[..., None],
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    searched = tiny(drawn, name=request.node.name)
    searched = replace(searched, samples=3, metric="recall/attribute_tokens")
    for number, cell in enumerate(planned(searched).cells):
        # The sample that recalls most answers least about held-out people.
        publish(cell.stages.pretrain, recalled=0.8 + number / 20)
        publish(cell.stages.readout, score=0.75 - number / 4)
    plan = planned(searched)
    assert not Tracker.open(database, searched.name).sync(plan)
    results = read(plan, database)
    (row,) = rows(results)
    assert results.done == 3 and row.state("qa") == "best of 3 by recall/attribute_tokens"
    assert row.value("qa", "mean") == 0.25
    (all_shown,) = {len(rows(read(planned(replace(searched, metric="")), database)))}
    assert all_shown == 3, "without a metric, every sample is a row"


def test_what_is_delivered_is_shown_without_a_doubt(done: Plan, database: str) -> None:
    results = read(done, database)
    assert numbers(done, database) == [0.75, 0.75] and not results.doubts and results.done == 2
    curves, doubts = read_curves(done, database, results)
    assert len(curves) == 2 * (3 + 4) and set(curves["metric"]) == {"bio/first_token/test/mean", "train/loss"}
    assert not doubts


EDITS = [
    f"UPDATE latest_metrics SET value = {{}} WHERE key = '{MEAN}' AND run_uuid = :run".format(value)
    for value in (0.99, 7, 0.7500001)
]
EDITS += [
    f"DELETE FROM latest_metrics WHERE key = '{MEAN}' AND run_uuid = :run",
    f"UPDATE latest_metrics SET key = 'qa/exact_match/test/other' WHERE key = '{MEAN}' AND run_uuid = :run",
    "UPDATE tags SET value = replace(value, '0.85', '0.76') WHERE key = 'ktrain.interval.0' AND run_uuid = :run",
    "UPDATE tags SET value = replace(value, '30', '9000') WHERE key = 'ktrain.n.0' AND run_uuid = :run",
    "UPDATE tags SET value = '{' WHERE key = 'ktrain.n.0' AND run_uuid = :run",
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_number_is_not_shown_and_the_next_delivery_mends_it(
    renamed: Callable[[], Plan], done: Plan, database: str, execute: Execute, edit: str
) -> None:
    before = read(done, database)
    execute(edit)
    first, second = read(done, database).cells
    assert len(first.doubts) == 1 and not second.doubts
    assert first.doubts[0].startswith(f"{first.key}: MLflow has ") and "ktrain run" in first.doubts[0]
    assert (first.metrics, first.n, first.interval) == (
        before.cells[0].metrics,
        before.cells[0].n,
        before.cells[0].interval,
    )
    assert first.state == "done" and second == before.cells[1]
    plan = renamed()
    assert not plan.trials() and sync_with_retry(Tracker.open(database, plan.sweep.name), plan) is None
    assert not read(plan, database).doubts and numbers(plan, database) == [0.75, 0.75]


@pytest.mark.parametrize(("metric", "step"), [("bio/first_token/test/mean", 40), ("train/loss", 2)])
def test_an_edited_curve_is_not_shown_and_the_next_delivery_mends_it(
    renamed: Callable[[], Plan], done: Plan, database: str, execute: Execute, metric: str, step: int
) -> None:
    key = done.cells[0].stages.pretrain.key
    stage = Tracker.open(database, done.sweep.name).runs()[key].info.run_id
    execute(
        "UPDATE metrics SET value = 0.9 WHERE step = :step AND run_uuid = :stage AND key = :metric",
        stage=stage,
        step=step,
        metric=metric,
    )
    curves, doubts = read_curves(done, database, read(done, database))
    assert set(curves["key"]) == {done.cells[1].key}
    assert len(doubts) == 1 and doubts[0].startswith(f"{done.cells[0].key}: MLflow has other learning curves")
    plan = renamed()
    assert sync_with_retry(Tracker.open(database, plan.sweep.name), plan) is None
    curves, doubts = read_curves(plan, database, read(plan, database))
    assert set(curves["key"]) == {cell.key for cell in plan.cells} and not doubts
    assert not read(plan, database).doubts


@pytest.mark.parametrize("kind", range(3))
def test_no_number_of_a_cell_with_a_damaged_stage_is_shown(
    renamed: Callable[[], Plan], done: Plan, database: str, store: Store, kind: int
) -> None:
    key = done.cells[0].stages[kind].key
    (Path(store.address) / "stages" / key / "metrics.json").unlink()
    plan = renamed()
    first, second = read(plan, database).cells
    assert (first.metrics, first.n, first.interval) == ({}, {}, {})
    assert first.state == f"damaged: {key}: metrics.json is missing"
    assert first.doubts == (f"{key}: metrics.json is missing: no number of {first.key} is shown",)
    assert second.metrics[MEAN] == 0.75 and not second.doubts
    curves, _ = read_curves(plan, database, read(plan, database))
    assert set(curves["key"]) == {second.key}


def spoil(store: Store, key: str, name: str, content: bytes) -> None:
    """Writes a file of a stage, and a manifest that vouches for it."""
    path = Path(store.address) / "stages" / key / name
    path.write_bytes(content)
    whole = store.manifest(key)
    whole["files"][name] = {"size": len(content), "sha256": sha256(path)}
    (path.parent / "manifest.json").write_text(manifest.text(manifest.with_checksum(whole)))


CONTENT = [b"{", b"[]", b'{"n": 3, "interval": {}}', b'{"n": {}, "interval": {"a": 1}}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("content", CONTENT)
def test_a_stage_that_cannot_be_read_is_named_and_its_neighbour_delivered(
    renamed: Callable[[], Plan],
    publish: Callable[..., None],
    database: str,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    for stage in {stage.key: stage for cell in renamed().cells for stage in cell.stages}.values():
        publish(stage)
    plan = renamed()
    key = plan.cells[0].stages.readout.key
    spoil(store, key, "counts.json", content)
    plan = renamed()
    tracker = Tracker.open(database, plan.sweep.name)
    assert sync_with_retry(tracker, plan) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"not delivered to MLflow: {key}: counts.json ") and "answer" not in line
    first, second = read(plan, database).cells
    assert not first.metrics and first.state.startswith(f"damaged: {key}: counts.json")
    assert second.metrics[MEAN] == 0.75 and not second.doubts
    assert store.verify(key) and not store.exists(key)


@pytest.mark.parametrize("names", [["qa/exact\0match"], ["qa/x" * 100]])
def test_what_mlflow_refuses_is_named(
    renamed: Callable[[], Plan],
    publish: Callable[..., None],
    database: str,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    names: Sequence[str],
) -> None:
    for stage in {stage.key: stage for cell in renamed().cells for stage in cell.stages}.values():
        publish(stage)
    plan = renamed()
    key = plan.cells[0].stages.readout.key
    odd = replace(plan.snapshot.done[key], metrics=dict.fromkeys(names, 1.0))
    plan = replace(plan, snapshot=replace(plan.snapshot, done={**plan.snapshot.done, key: odd}))
    assert sync_with_retry(Tracker.open(database, plan.sweep.name), plan) is None
    assert any(key in record.getMessage() for record in caplog.records)
    assert read(renamed(), database).cells[1].metrics[MEAN] == 0.75


def test_stages_that_another_sweep_has_finished_count_before_they_are_delivered(
    renamed: Callable[[], Plan], publish: Callable[..., None], database: str
) -> None:
    first, second = renamed().cells
    for stage in first.stages:
        publish(stage)
    publish(second.stages.pretrain, recalled=0.5)
    plan = renamed()
    results = read(plan, database)
    assert (
        [cell.state for cell in results.cells]
        == [cell.state for cell in plan.cells]
        == ["done", "blocked: recall 50.0%"]
    )
    done, blocked = results.cells
    assert done.metrics[MEAN] == 0.75 and done.n[MEAN] == 30 and done.interval[MEAN] == (0.65, 0.85)
    assert done.stages.keys() == {"corpus", "pretrain", "qa_finetune"} and done.scale == "mini" and done.departures
    assert blocked.metrics["recall/attribute_tokens"] == 0.5 and MEAN not in blocked.metrics
    assert not results.doubts and undelivered(plan, results)


def test_stages_that_another_sweep_finishes_after_a_delivery_count_too(
    renamed: Callable[[], Plan], publish: Callable[..., None], database: str
) -> None:
    first, _ = renamed().cells
    publish(first.stages.corpus)
    publish(first.stages.pretrain)
    plan = renamed()
    assert sync_with_retry(Tracker.open(database, plan.sweep.name), plan) is None
    assert [cell.state for cell in read(plan, database).cells] == ["planned", "planned"]
    assert not undelivered(plan, read(plan, database))
    publish(first.stages.readout)
    plan = renamed()
    results = read(plan, database)
    assert [cell.state for cell in results.cells] == ["done", "planned"] and not results.doubts
    assert results.cells[0].metrics[MEAN] == 0.75 and undelivered(plan, results)
    assert sync_with_retry(Tracker.open(database, plan.sweep.name), plan) is None
    assert not undelivered(plan, read(plan, database))


def test_the_answers_of_a_readout_are_read_from_the_store(done: Plan, store: Store) -> None:
    key, readout = done.cells[0].key, done.cells[0].stages.readout.key
    columns = {"person", "exact"}
    assert read_answers(done, key, columns) is None, "this readout kept none"
    answers = pd.DataFrame({"person": [1], "exact": [True]})
    spoil(store, readout, "predictions.parquet", answers.to_parquet())
    found = read_answers(done, key, columns)
    assert found is not None and found.equals(answers) and read_answers(done, key, {"split"}) is None
    spoil(store, readout, "predictions.parquet", b"nothing")
    assert read_answers(done, key, columns) is None


def test_numbers_whose_stages_left_the_store_are_shown_as_delivered(
    renamed: Callable[[], Plan], done: Plan, database: str, store: Store
) -> None:

    shutil.rmtree(Path(store.address) / "stages" / done.cells[0].stages.pretrain.key)
    plan = renamed()
    assert read(plan, database).cells == read(done, database).cells
    Tracker.open(database, plan.sweep.name).sync(plan)
    assert read(plan, database).cells[0].metrics["recall/attribute_tokens"] == 0.95
    shutil.rmtree(Path(store.address) / "stages")
    assert numbers(renamed(), database) == [0.75, 0.75]
