"""Curves of stages that train, on their way to MLflow."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.training.progress import Progress
from sweeps.planning.plan import Plan
from sweeps.tracking.live_curves import LiveCurves
from sweeps.tracking.sync import PARENT, Tracker

Planner = Callable[..., Plan]
STEPS = 400
"""A curve has a line every four steps of so many."""


def line(step: int, loss: float = 0.0, **more: Any) -> Progress:
    """What a worker reports after a step, of the curve that `curve` publishes."""
    return Progress(step, STEPS, loss or 8.0 / step, 1e-3, 9 * step, step / 10, **more)


def curve() -> list[dict[str, Any]]:
    """The lines of the curve in the store."""
    lines = [line(step) for step in range(4, STEPS + 1, 4)]
    return [vars(one) | {"tokens_per_second": one.tokens_per_second, "members": []} for one in lines]


@pytest.fixture
def tracker(database: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker.open(database, request.node.name)


@pytest.fixture
def stage(planned: Planner) -> Stage:
    return planned().cells[0].stages.pretrain


@pytest.fixture
def live(tracker: Tracker, planned: Planner) -> LiveCurves:
    return LiveCurves(tracker, planned())


@pytest.fixture
def finished(planned: Planner, publish: Callable[..., None], stage: Stage, store: Store) -> Callable[[], Plan]:
    """Finishes the cell of the stage."""

    def finish() -> Plan:
        metrics = {"recall/attribute_tokens": 0.95, "train/loss": 8.0 / STEPS}
        store.publish_files(stage, {"metrics.json": metrics, "curve.json": curve()})
        corpus, _, readout = planned().cells[0].stages
        publish(corpus)
        publish(readout)
        return planned()

    return finish


def points(tracker: Tracker, stage: Stage, name: str = "train/loss") -> list[tuple[int, float]]:
    run = tracker.runs()[stage.key]
    return [(p.step, p.value) for p in tracker.client.get_metric_history(run.info.run_id, name)]


def test_a_stage_that_trains_has_a_run_with_its_curve_so_far(tracker: Tracker, live: LiveCurves, stage: Stage) -> None:
    for step in (16, 21, 100, 101):
        live.add(stage.key, line(step))
    live.send()
    assert points(tracker, stage) == [(16, 0.5), (100, 0.08)]
    assert [step for step, _ in points(tracker, stage, "train/learning_rate")] == [16, 100]
    run = tracker.runs()[stage.key]
    assert (run.info.status, run.info.run_name) == ("RUNNING", "pretrain · bioS single · s0")
    assert run.data.params["train.steps"] == "60" and run.data.tags["ktrain.kind"] == "stage"
    first, last = tracker.client.get_metric_history(run.info.run_id, "train/loss")
    # Seconds of training, counted from the start of the run.
    assert (first.timestamp - run.info.start_time, last.timestamp - first.timestamp) == (1600, 8400)


def test_what_was_sent_is_not_sent_again(tracker: Tracker, live: LiveCurves, stage: Stage, planned: Planner) -> None:
    live.add(stage.key, line(4))
    live.add(stage.key, line(8))
    live.send()
    # A worker that died starts again from a checkpoint, and so does a driver.
    live.add(stage.key, line(8))
    live.send()
    other = LiveCurves(tracker, planned())
    for step in (4, 8, 12):
        other.add(stage.key, line(step))
    other.send()
    assert points(tracker, stage) == [(4, 2.0), (8, 1.0), (12, 8 / 12)]


def test_the_run_that_was_streamed_is_completed_from_the_store(
    tracker: Tracker, live: LiveCurves, stage: Stage, finished: Callable[[], Plan]
) -> None:
    for step in (4, 40):
        live.add(stage.key, line(step))
    live.send()
    streamed = tracker.runs()[stage.key]
    plan = finished()
    tracker.sync(plan)
    run = tracker.runs()[stage.key]
    assert (run.info.run_id, run.info.status) == (streamed.info.run_id, "FINISHED")
    assert points(tracker, stage) == [(step, 8.0 / step) for step in range(4, STEPS + 1, 4)]
    assert len(points(tracker, stage, "speed/tokens_per_second")) == 100
    assert run.data.tags[PARENT] == tracker.runs()[plan.cells[0].key].info.run_id
    assert "ktrain.built" in run.data.tags and run.data.metrics["recall/attribute_tokens"] == 0.95


def test_a_run_with_points_that_the_store_does_not_have_is_replaced(
    tracker: Tracker, live: LiveCurves, stage: Stage, finished: Callable[[], Plan]
) -> None:
    """On other devices the steps after a checkpoint may end with other last digits."""
    live.add(stage.key, line(4))
    live.add(stage.key, line(8, loss=1.0000001))
    live.send()
    streamed = tracker.runs()[stage.key].info.run_id
    tracker.sync(finished())
    assert points(tracker, stage) == [(step, 8.0 / step) for step in range(4, STEPS + 1, 4)]
    assert tracker.runs()[stage.key].info.run_id != streamed


def test_after_a_failure_the_lines_are_sent_by_the_next_call(
    tracker: Tracker, live: LiveCurves, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    live.add(stage.key, line(4))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", gone)
        with pytest.raises(ConnectionError):
            live.send()
    live.add(stage.key, line(8))
    live.send()
    assert points(tracker, stage) == [(4, 2.0), (8, 1.0)] and len(tracker.runs()) == 1


def test_a_run_that_somebody_deletes_costs_its_lines_and_no_more(
    tracker: Tracker, live: LiveCurves, stage: Stage
) -> None:
    live.add(stage.key, line(4))
    live.send()
    tracker.client.delete_run(tracker.runs()[stage.key].info.run_id)
    for step in (8, 12):
        live.add(stage.key, line(step))
        live.send()
    assert points(tracker, stage) == [(12, 8 / 12)]


def test_a_run_that_was_interrupted_runs_again(
    tracker: Tracker, live: LiveCurves, stage: Stage, planned: Planner
) -> None:
    live.add(stage.key, line(4))
    live.send()
    tracker.sync(planned())
    assert tracker.runs()[stage.key].info.status == "KILLED"
    again = LiveCurves(tracker, planned())
    again.add(stage.key, line(8))
    again.send()
    assert tracker.runs()[stage.key].info.status == "RUNNING"
    with planned().store.lease(stage.key):
        tracker.sync(planned())
    assert tracker.runs()[stage.key].info.status == "RUNNING"


def test_a_stage_that_is_done_gets_nothing_more(
    tracker: Tracker, live: LiveCurves, stage: Stage, finished: Callable[[], Plan]
) -> None:
    tracker.sync(finished())
    live.add(stage.key, line(4))
    live.send()
    live.add(stage.key, line(8))
    live.drop([stage.key])
    live.send()
    assert len(points(tracker, stage)) == 100


def test_adapters_that_train_together_have_no_curve_yet(tracker: Tracker, live: LiveCurves, stage: Stage) -> None:
    live.add(stage.key, line(4, members=(1.0, 2.0)))
    live.send()
    assert tracker.runs() == {}
