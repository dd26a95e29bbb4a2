"""Curves of stages that train, on their way to MLflow."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from mlflow import MlflowClient

from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.training.progress import Progress, StackProgress, StageLine
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


def test_it_lies_below_its_cell_at_once(
    tracker: Tracker, live: LiveCurves, stage: Stage, publish: Callable[..., None], planned: Planner
) -> None:
    """A cell has a run from its first stage on, and the next sync may be a training away."""
    cell = planned().cells[0]
    publish(cell.stages.corpus)
    tracker.sync(planned())
    live.add(stage.key, line(16))
    live.send()
    runs = tracker.runs()
    assert runs[stage.key].data.tags[PARENT] == runs[cell.key].info.run_id


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


def test_steps_that_come_again_while_the_server_is_away_are_sent_once(
    tracker: Tracker, live: LiveCurves, stage: Stage
) -> None:
    for step, seconds in ((4, 0.4), (8, 0.8), (8, 0.9), (12, 1.3)):
        live.add(stage.key, replace(line(step), seconds=seconds))
    live.send()
    assert points(tracker, stage) == [(4, 2.0), (8, 1.0), (12, 8 / 12)]


# Adapters that train together.


def stack(lines: dict[str, StageLine]) -> StackProgress:
    """What a worker reports of adapters that train together."""
    return StackProgress(9, 9, 1.0, 1e-3, 9, 1.0, lines=lines)


def own(step: int, loss: float | None, **tasks: float) -> StageLine:
    return StageLine(step, 1e-3, step / 10, loss, tasks)


@pytest.fixture
def adapters(planned: Planner) -> Plan:
    """One cell with each of three ranks."""
    return planned(corpus__multi=[1], readout__method=["lora"], readout__rank_qv=[2, 4, 8])


@pytest.fixture
def probe(planned: Planner) -> Plan:
    return planned(corpus__multi=[1], readout__kind=["q_probe"], readout__people_per_class=[1])


def test_each_of_the_adapters_that_train_together_has_a_run_of_its_own(tracker: Tracker, adapters: Plan) -> None:
    live = LiveCurves(tracker, adapters)
    stages = [cell.stages.readout for cell in adapters.cells]
    for step in (4, 8):
        live.add(stages[0].key, stack({s.key: own(step, (k + 1) / step) for k, s in enumerate(stages[:2])}))
    live.add(stages[0].key, stack({}))
    live.send()
    # The third adapter trains in the next batch.
    live.add(stages[0].key, stack({stages[2].key: own(4, 0.5)}))
    live.send()
    assert [points(tracker, s) for s in stages] == [[(4, 0.25), (8, 0.125)], [(4, 0.5), (8, 0.25)], [(4, 0.5)]]
    assert points(tracker, stages[1], "train/learning_rate") == [(4, 1e-3), (8, 1e-3)]
    runs = tracker.runs()
    assert runs.keys() == {s.key for s in stages}
    assert {run.info.status for run in runs.values()} == {"RUNNING"}
    assert [runs[s.key].data.params["readout.rank_qv"] for s in stages] == ["2", "4", "8"]


def test_adapters_that_are_done_keep_their_runs_while_others_train(
    tracker: Tracker, adapters: Plan, planned: Planner, store: Store
) -> None:
    live = LiveCurves(tracker, adapters)
    first, second = (cell.stages.readout for cell in adapters.cells[:2])
    live.add(first.key, stack({first.key: own(4, 2.0), second.key: own(4, 3.0)}))
    live.send()
    streamed = tracker.runs()
    store.publish_files(first, {"metrics.json": {"qa/exact_match/test/mean": 0.5}, "curve.json": curve()})
    with store.lease(second.key):
        tracker.sync(planned(corpus__multi=[1], readout__method=["lora"], readout__rank_qv=[2, 4, 8]))
    live.drop([first.key])
    # A line that was under way when the stage was published, and a rerun that trains what is missing.
    again = LiveCurves(tracker, adapters)
    for curves in (live, again):
        curves.add(second.key, stack({first.key: own(8, 1.0), second.key: own(8, 1.5)}))
        curves.send()
    assert points(tracker, first) == [(step, 8.0 / step) for step in range(4, STEPS + 1, 4)]
    assert points(tracker, second) == [(4, 3.0), (8, 1.5)]
    runs = tracker.runs()
    assert {key: run.info.run_id for key, run in runs.items() if key in streamed} == {
        key: run.info.run_id for key, run in streamed.items()
    }
    assert (runs[first.key].info.status, runs[second.key].info.status) == ("FINISHED", "RUNNING")


def test_the_tasks_of_a_probe_are_streamed_as_they_train_and_their_mean_with_the_last(
    tracker: Tracker, probe: Plan, store: Store
) -> None:
    live = LiveCurves(tracker, probe)
    stage = probe.cells[0].stages.readout
    for step in (4, 8):
        live.add(stage.key, stack({stage.key: own(step, None, **{"first/major": 2.0 / step})}))
    live.send()
    assert points(tracker, stage, "train/task_loss/first/major") == [(4, 0.5), (8, 0.25)]
    assert "train/loss" not in tracker.runs()[stage.key].data.metrics
    # Another driver continues.
    live = LiveCurves(tracker, probe)
    for step in (4, 8):
        live.add(stage.key, stack({stage.key: own(step, 2.0 / step, **{"whole/major": 2.0 / step})}))
    live.send()
    assert points(tracker, stage) == points(tracker, stage, "train/task_loss/whole/major") == [(4, 0.5), (8, 0.25)]
    assert points(tracker, stage, "train/learning_rate") == [(4, 1e-3), (8, 1e-3)]
    streamed = tracker.runs()[stage.key].info.run_id
    lines = [
        {**vars(line(step)), "loss": 2.0 / step, "tokens_per_second": 1.0, "members": [2.0 / step] * 2}
        for step in range(4, STEPS + 1, 4)
    ]
    files = {"metrics.json": {"q_probe/first/mean": 0.5}, "tasks.json": ["first/major", "whole/major"]}
    store.publish_files(stage, {**files, "curve.json": lines})
    tracker.sync(replace(probe, snapshot=store.snapshot([stage.key])))
    whole = [(step, 2.0 / step) for step in range(4, STEPS + 1, 4)]
    assert points(tracker, stage) == points(tracker, stage, "train/task_loss/first/major") == whole
    assert tracker.runs()[stage.key].info.run_id == streamed


def test_many_lines_of_many_tasks_go_in_requests_that_the_server_takes(
    tracker: Tracker, probe: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a long outage; the second request fails, and what the first has brought is not sent again."""
    live, sizes = LiveCurves(tracker, probe), list[int]()
    stage, write = probe.cells[0].stages.readout, MlflowClient.log_batch

    def log_batch(client: MlflowClient, run: str, metrics: list[Any] = [], **rest: Any) -> None:  # noqa: B006
        sizes.append(len(metrics))
        if len(sizes) == 3:
            raise ConnectionError("gone")
        write(client, run, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    tasks = {f"first/{k}": 1.0 for k in range(11)}
    for step in range(4, STEPS + 1, 4):
        live.add(stage.key, stack({stage.key: own(step, 0.5, **tasks)}))
    with pytest.raises(ConnectionError):
        live.send()
    live.send()
    # The first request makes the run.
    assert sizes == [0, 800, 500, 500]
    for name in ("train/loss", "train/learning_rate", "train/task_loss/first/0", "train/task_loss/first/10"):
        assert [step for step, _ in points(tracker, stage, name)] == list(range(4, STEPS + 1, 4))
