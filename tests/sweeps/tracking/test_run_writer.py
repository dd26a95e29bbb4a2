"""A point of a curve in MLflow that is not the store's is noticed, and the next delivery writes the curve again."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from ktrain.store.base import Store
from sweeps.planning.plan import Plan
from sweeps.tracking.run_writer import has_curves
from sweeps.tracking.runs import stage_record
from sweeps.tracking.sync import Tracker, sync_with_retry

Histories = dict[str, list[tuple[int, float]]]
LOSS, SPEED, LEARNING = "train/loss", "speed/tokens_per_second", "bio/first_token/test/mean"
OF = "key = :metric AND run_uuid = :run"
EDITS = {
    "a value": f"UPDATE metrics SET value = 9.5 WHERE step = 2 AND {OF}",
    "a value, a little": f"UPDATE metrics SET value = value + 1e-12 WHERE step = 3 AND {OF}",
    "a step": f"UPDATE metrics SET step = 7 WHERE step = 2 AND {OF}",
    "a point less": f"DELETE FROM metrics WHERE step = 1 AND {OF}",
    "no point at all": f"DELETE FROM metrics WHERE {OF}",
    "a point more": "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
    f"SELECT key, value, timestamp, run_uuid, 99, is_nan FROM metrics WHERE step = 1 AND {OF}",
}
CASES = [(name, 1, LOSS) for name in EDITS]
CASES += [("a value", 1, SPEED), ("a value", 1, LEARNING), ("a value", 2, LOSS)]
"""Which edit, of which stage of the cell, and of which metric."""


@pytest.fixture
def tracker(database: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker.open(database, request.node.name)


@pytest.fixture
def delivered(planned: Callable[..., Plan], publish: Callable[..., None], tracker: Tracker) -> Plan:
    """A plan whose first cell is done and delivered."""
    learning = {"n": {"train": 30, "test": 30}, "curve": [{"step": k, LEARNING: k / 8} for k in (1, 2, 3)]}
    for stage in planned().cells[0].stages:
        publish(stage, learning=learning)
    plan = planned()
    assert tracker.sync(plan) == ()
    return plan


def stage_runs(tracker: Tracker, plan: Plan) -> dict[str, Any]:
    return {stage.key: tracker.runs()[stage.key] for stage in plan.cells[0].stages}


def histories(tracker: Tracker, run: Any) -> Histories:
    read = tracker.client.get_metric_history
    return {name: [(p.step, p.value) for p in read(run.info.run_id, name)] for name in run.data.metrics}


def edited(tracker: Tracker, plan: Plan) -> list[str]:
    """The stages of the first cell whose runs have other curves than the store."""
    cell, runs = plan.cells[0], stage_runs(tracker, plan)
    return [
        stage.key
        for stage in cell.stages
        if not has_curves(tracker.client, runs[stage.key], stage_record(plan, cell, stage))
    ]


def test_what_is_delivered_is_what_the_store_has(tracker: Tracker, delivered: Plan) -> None:
    before = stage_runs(tracker, delivered)
    assert edited(tracker, delivered) == [] and sync_with_retry(tracker, delivered) is None
    assert {key: run.info.run_id for key, run in stage_runs(tracker, delivered).items()} == {
        key: run.info.run_id for key, run in before.items()
    }


@pytest.mark.parametrize(("name", "kind", "metric"), CASES)
def test_an_edited_point_is_noticed_and_mended(
    tracker: Tracker, delivered: Plan, name: str, kind: int, metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = delivered.cells[0].stages[kind]
    before = stage_runs(tracker, delivered)[stage.key]
    whole = histories(tracker, before)
    with sqlite3.connect(tracker.uri.removeprefix("sqlite:///")) as connection:
        changed = connection.execute(EDITS[name], {"run": before.info.run_id, "metric": metric})
        assert changed.rowcount >= 1
    assert histories(tracker, before) != whole and edited(tracker, delivered) == [stage.key]
    # Runs while a sweep trains are not asked for their curves.
    tracker.sync(delivered, with_curves=False)
    assert stage_runs(tracker, delivered)[stage.key].info.run_id == before.info.run_id
    assert not caplog.messages
    assert sync_with_retry(tracker, delivered) is None
    assert caplog.messages == [f"MLflow has other points in a curve of {stage.key} than the store; they are replaced"]
    after = stage_runs(tracker, delivered)
    assert histories(tracker, after[stage.key]) == whole and edited(tracker, delivered) == []
    linked = tracker.runs()[delivered.cells[0].key].data.tags[f"ktrain.run.{stage.kind}"]
    assert linked == after[stage.key].info.run_id != before.info.run_id


def test_a_stage_that_cannot_be_read_keeps_its_run(tracker: Tracker, delivered: Plan, store: Store) -> None:
    stage = delivered.cells[0].stages.pretrain
    before = stage_runs(tracker, delivered)[stage.key].info.run_id
    (store.root / "stages" / stage.key / "curve.json").write_text("{")
    tracker.sync(delivered)
    assert stage_runs(tracker, delivered)[stage.key].info.run_id == before
