import functools
import json
import math
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from head import Head
from level import gap
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from analysis.measurements import curves as measurements_curves
from analysis.measurements import recorded
from analysis.measurements.names import LEARNING
from analysis.report import table
from ktrain.errors import WrongRequest
from ktrain.stages import active_axes
from ktrain.store.base import Store
from ktrain.store.lease import lease
from sweeps import Sweep
from sweeps.planning.plan import Plan
from sweeps.services import application
from sweeps.tracking import sync
from sweeps.tracking.address import default_uri
from sweeps.tracking.server_errors import refusal
from sweeps.tracking.sync import PARENT, Tracker, sync_with_retry

Planner = Callable[..., Plan]
Serving = Callable[[Path, int], AbstractContextManager[object]]


@pytest.fixture
def tracker(database: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker.open(database, request.node.name)


@pytest.fixture
def done(planned: Planner, publish: Callable[..., None]) -> Plan:
    """A plan whose first cell is done."""
    for stage in planned().cells[0].stages:
        publish(stage)
    return planned()


def runs(tracker: Tracker) -> dict[str, Any]:
    """All runs of the experiment by key; a key that has two is a fault."""
    stored = tracker.client.search_runs([tracker.experiment], max_results=1000)
    by_key = {run.data.tags["ktrain.key"]: run for run in stored}
    assert len(by_key) == len(stored)
    return by_key


def tags(run: Any) -> dict[str, str]:
    return dict(run.data.tags)


def ids(tracker: Tracker) -> dict[str, str]:
    return {key: run.info.run_id for key, run in runs(tracker).items()}


# What is written.


def test_a_cell_has_one_run_and_a_finished_stage_has_one(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    stored = runs(tracker)
    assert set(stored) == {cell.key for cell in done.cells} | {stage.key for stage in done.cells[0].stages}
    kinds = {key: run.data.tags["ktrain.kind"] for key, run in stored.items()}
    assert sorted(kinds.values()) == ["cell", "cell", "stage", "stage", "stage"]
    assert {key for key, kind in kinds.items() if kind == "cell"} == {cell.key for cell in done.cells}


def test_a_run_of_a_cell_has_all_axes_and_every_final_number(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    cell = done.cells[0]
    run = runs(tracker)[cell.key]
    assert run.data.params == {axis: str(value) for axis, value in active_axes(cell.cell).items()}
    assert run.data.metrics["qa/exact_match/test/mean"] == 0.75
    assert run.data.metrics["recall/attribute_tokens"] == 0.95
    assert run.data.metrics["corpus/entries"] == 60
    assert run.info.status == "FINISHED" and run.info.run_name == cell.key
    tags = run.data.tags
    assert (tags["ktrain.state"], tags["ktrain.scale"]) == ("done", "mini")
    assert json.loads(tags["ktrain.n.0"])["qa/exact_match/test/mean"] == 30
    assert json.loads(tags["ktrain.interval.0"])["qa/exact_match/test/mean"] == [0.65, 0.85]
    folders = json.loads(tags["ktrain.stages"])
    assert list(folders) == ["corpus", "pretrain", "qa_finetune"]
    assert all((Path(folder) / "manifest.json").is_file() for folder in folders.values())


def test_a_cell_links_to_the_runs_of_its_stages(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    stored = runs(tracker)
    for stage in done.cells[0].stages:
        linked = stored[done.cells[0].key].data.tags[f"ktrain.run.{stage.kind}"]
        assert linked == stored[stage.key].info.run_id


def test_a_curve_is_written_once_with_its_steps(tracker: Tracker, planned: Planner, done: Plan) -> None:
    tracker.sync(done)
    tracker.sync(planned(readout__steps=[20, 30]))
    run = runs(tracker)[done.cells[0].stages.pretrain.key]
    assert run.info.status == "FINISHED"
    history = tracker.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 1.5), (3, 1.0), (4, 0.75)]
    speed = tracker.client.get_metric_history(run.info.run_id, "speed/tokens_per_second")
    assert [(point.step, point.value) for point in speed] == [(k, 100.0 * k) for k in (1, 2, 3, 4)]
    assert run.data.metrics["recall/attribute_tokens"] == 0.95
    assert run.data.params["train.steps"] == "60" and run.data.params["parent"] == done.cells[0].stages.corpus.key


def test_a_long_curve_is_whole(tracker: Tracker, planned: Planner, done: Plan, store: Store) -> None:
    stage = done.cells[0].stages.pretrain
    curve = [{"step": k + 1, "loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 5.0} for k in range(700)]
    files = {path.name: path.read_bytes() for path in (store.root / "stages" / stage.key).glob("*.json")}
    del files["manifest.json"]
    shutil.rmtree(store.root / "stages" / stage.key)
    store.publish_files(stage, files | {"curve.json": curve})
    tracker.sync(planned())
    run = runs(tracker)[stage.key]
    assert len(tracker.client.get_metric_history(run.info.run_id, "train/loss")) == 700


def test_learning_curves_are_written_with_their_people_and_read_back(
    tracker: Tracker, planned: Planner, publish: Callable[..., None], request: Any
) -> None:
    axes = {"train.qa_ratio": [0.5], "readout.kind": ["mixed"]}
    mixed = planned(corpus__multi=[1], **axes).cells[0]
    curve = [{"step": k, **{name: k / 60 for name in LEARNING}} for k in (15, 30, 60)]
    for stage in mixed.stages:
        publish(stage, learning={"n": {"train": 30, "test": 20}, "curve": curve})
    plan = planned(corpus__multi=[1, 2], **axes)
    tracker.sync(plan)
    run = runs(tracker)[mixed.stages.pretrain.key]
    assert (run.data.params["learning.n.train"], run.data.params["learning.n.test"]) == ("30", "20")
    assert run.data.params["train.qa_ratio"] == "0.5"
    results = recorded.load_results(tracker.uri, request.node.name, {cell.key: cell.axes for cell in plan.cells})
    assert results.cells[0].runs["pretrain"] == run.info.run_id and not results.cells[1].runs
    curves = measurements_curves.read_curves(tracker.uri, results)
    assert set(curves["key"]) == {mixed.key} and set(curves["setting"]) == {"bioS single"}
    for name in LEARNING:
        points = curves[curves["metric"] == name]
        assert points["step"].tolist() == [15, 30, 60] and points["value"].tolist() == [0.25, 0.5, 1]
        assert points["fraction"].tolist() == [0.25, 0.5, 1]
        assert set(points["n"]) == {20 if "/test/" in name else 30}
    losses = measurements_curves.read_curves(tracker.uri, results, ["train/loss"])
    assert losses["value"].tolist() == [3.0, 1.5, 1.0, 0.75] and losses["n"].isna().all()


def test_what_is_written_is_what_the_analysis_reads(tracker: Tracker, done: Plan, request: Any) -> None:
    tracker.sync(done)
    results = recorded.load_results(tracker.uri, request.node.name, {cell.key: cell.axes for cell in done.cells})
    first, second = results.cells
    assert (first.state, second.state) == ("done", "planned")
    assert first.axes == done.cells[0].axes and first.params == done.cells[0].axes
    (alone, _) = recorded.load_results(tracker.uri, request.node.name).cells
    assert alone.axes == active_axes(done.cells[0].cell) and alone.metrics == first.metrics
    assert first.metrics["qa/exact_match/test/mean"] == 0.75 and first.n["qa/exact_match/test/mean"] == 30
    assert first.interval["qa/exact_match/test/mean"] == (0.65, 0.85)
    assert set(first.stages) == {"corpus", "pretrain", "qa_finetune"} and first.scale == "mini"
    assert not second.metrics and not second.stages
    for cell in results.cells:
        assert "corpus.people: the paper has 100000, here" in " ".join(cell.departures or ()), "planned ones too"
    row, other = table.rows(results)
    assert (row.setting, row.value("qa", "mean"), row.train_accuracy("qa")) == ("bioS single", 0.75, 0.75)
    assert (other.setting, other.value("qa", "mean"), other.state("qa")) == ("bioS multi2", None, "planned")


def test_a_stage_spans_the_time_in_which_it_was_made(tracker: Tracker, planned: Planner, store: Store) -> None:
    stage, older = planned().cells[0].stages.corpus, planned().cells[0].stages.pretrain
    with store.lease(stage.key) as held:
        held.since -= 90
        store.publish_files(stage, {"metrics.json": {"corpus/entries": 60}})
    line = {"step": 60, "loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 5.0, "seconds": 30.0}
    # Published without a lease, as before manifests had a begin.
    store.publish_files(older, {"metrics.json": {"recall/attribute_tokens": 0.95}, "curve.json": [line]})
    plan = planned()
    tracker.sync(plan)
    stored = runs(tracker)
    for key, seconds in ((stage.key, 90), (older.key, 30)):
        info, manifest = stored[key].info, store.manifest(key)
        assert info.end_time == datetime.fromisoformat(manifest["created"]).timestamp() * 1000
        assert info.end_time - info.start_time in (seconds * 1000, seconds * 1000 + 1000)
    assert stored[plan.cells[0].key].info.start_time == stored[stage.key].info.start_time


def test_stages_lie_below_their_cell_and_a_shared_one_below_the_first(
    tracker: Tracker, planned: Planner, done: Plan
) -> None:
    tracker.sync(done)
    plan = planned(corpus__multi=[1], readout__steps=[20, 30])
    tracker.sync(plan)
    stored = runs(tracker)
    first, second = (stored[cell.key] for cell in plan.cells[:2])
    assert plan.cells[0].stages.pretrain == plan.cells[1].stages.pretrain
    for stage in plan.cells[0].stages:
        assert stored[stage.key].data.tags[PARENT] == first.info.run_id
    assert second.data.tags["ktrain.run.pretrain"] == stored[plan.cells[0].stages.pretrain.key].info.run_id
    assert PARENT not in first.data.tags and PARENT not in second.data.tags


def test_a_part_of_a_plan_takes_no_stage_from_its_cell(tracker: Tracker, planned: Planner, done: Plan) -> None:
    plan = planned(corpus__multi=[1], readout__steps=[20, 30])
    tracker.sync(plan)
    shared = plan.cells[0].stages.pretrain.key
    before = runs(tracker)[shared].data.tags[PARENT]
    tracker.sync(plan.refreshed([plan.cells[1].key]))
    assert runs(tracker)[shared].data.tags[PARENT] == before
    tracker.client.delete_run(before)
    tracker.sync(plan.refreshed([plan.cells[1].key]))
    assert runs(tracker)[shared].data.tags[PARENT] == ids(tracker)[plan.cells[1].key]


def test_an_experiment_opens_for_training_with_its_question_and_keeps_what_people_write(
    tracker: Tracker, planned: Planner, tiny: Callable[..., Sweep], done: Plan
) -> None:
    asked = planned(replace(tiny(), question="Does it?"))
    tracker.sync(asked)
    about = tracker.client.get_experiment(tracker.experiment).tags
    assert about["mlflow.experimentKind"] == "custom_model_development" and about["mlflow.note.content"] == "Does it?"
    stage = ids(tracker)[done.cells[0].stages.pretrain.key]
    assert runs(tracker)[done.cells[0].stages.pretrain.key].data.tags["mlflow.note.content"].startswith("gpt2 of size")
    tracker.client.set_experiment_tag(tracker.experiment, "mlflow.note.content", "mine")
    tracker.client.set_tag(stage, "mlflow.note.content", "mine too")
    tracker.sync(asked)
    assert tracker.client.get_experiment(tracker.experiment).tags["mlflow.note.content"] == "mine"
    assert tracker.client.get_run(stage).data.tags["mlflow.note.content"] == "mine too"


def test_a_run_has_the_commit_of_the_code_that_made_its_stage(tracker: Tracker, done: Plan) -> None:
    cell = done.cells[0]
    manifests = {key: {**one.manifest, "versions": {"commit": "ab12"}} for key, one in done.snapshot.done.items()}
    stages = {key: replace(one, manifest=manifests[key]) for key, one in done.snapshot.done.items()}
    tracker.sync(replace(done, snapshot=replace(done.snapshot, done=stages)))
    stored = runs(tracker)
    for key in (cell.key, *(stage.key for stage in cell.stages)):
        assert stored[key].data.tags["mlflow.source.git.commit"] == "ab12"
        assert stored[key].data.tags["mlflow.source.name"] == f"ktrain run {done.sweep.name}"


def test_a_run_on_which_nobody_works_any_more_has_ended(tracker: Tracker, planned: Planner, store: Store) -> None:
    first, second = (cell.stages.pretrain.key for cell in planned().cells)
    for key in (first, second):
        tracker.client.create_run(tracker.experiment, tags={"ktrain.key": key, "ktrain.kind": "stage"})
    (store.work_dir(second).folder / "failure.txt").write_text("Diverged: nan")
    with lease(store.root, first):
        tracker.sync(planned())
        assert [runs(tracker)[key].info.status for key in (first, second)] == ["RUNNING", "FAILED"]
    tracker.sync(planned())
    assert [runs(tracker)[key].info.status for key in (first, second)] == ["KILLED", "FAILED"]


# Continued, never doubled.


def test_a_second_sync_writes_nothing(tracker: Tracker, done: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker.sync(done)
    before = ids(tracker)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    for name in ("create_run", "log_batch", "update_run", "set_terminated", "set_tag"):
        monkeypatch.setattr(MlflowClient, name, refuse)
    tracker.sync(done)
    assert ids(Tracker.open(tracker.uri, "test_a_second_sync_writes_nothing")) == before


def test_a_planned_cell_that_comes_to_be_done_continues_its_run(
    tracker: Tracker, planned: Planner, publish: Callable[..., None]
) -> None:
    tracker.sync(planned())
    before = runs(tracker)
    assert {run.data.tags["ktrain.state"] for run in before.values()} == {"planned"}
    assert {run.info.status for run in before.values()} == {"SCHEDULED"}
    for stage in planned().cells[0].stages:
        publish(stage)
    plan = planned()
    tracker.sync(plan)
    after = runs(tracker)
    assert {key: after[key].info.run_id for key in before} == {key: run.info.run_id for key, run in before.items()}
    assert after[plan.cells[0].key].data.tags["ktrain.state"] == "done"
    assert after[plan.cells[0].key].data.metrics["qa/exact_match/test/mean"] == 0.75
    assert after[plan.cells[1].key].data.tags["ktrain.state"] == "planned"


def test_every_state_is_told(tracker: Tracker, planned: Planner, publish: Callable[..., None], store: Store) -> None:
    cells = planned(seed=[0, 1]).cells
    first, second, third, fourth = cells
    with lease(store.root, first.stages.pretrain.key):
        tracker.sync(planned(seed=[0, 1]))
    assert tags(runs(tracker)[first.key])["ktrain.state"] == "running"
    publish(second.stages.pretrain, recalled=0.5)
    (store.work_dir(third.stages.pretrain.key).folder / "failure.txt").write_text("Diverged: nan")
    tracker.sync(planned(seed=[0, 1]))
    stored = runs(tracker)
    states = {cell.key: (tags(stored[cell.key])["ktrain.state"], stored[cell.key].info.status) for cell in cells}
    assert states[first.key] == ("planned", "SCHEDULED")
    assert states[second.key] == ("blocked: recall 50.0%", "FINISHED")
    assert stored[second.key].data.metrics["recall/attribute_tokens"] == 0.5
    assert states[third.key] == ("failed: Diverged: nan", "FAILED")
    assert states[fourth.key] == ("planned", "SCHEDULED")


def test_a_sample_that_was_stopped_is_told_and_has_not_failed(tracker: Tracker, planned: Planner) -> None:
    plan, state = planned(seed=[0]), "stopped early: at step 6 of 60 by asha"
    tracker.sync(replace(plan, cells=(replace(plan.cells[0], state=state), *plan.cells[1:])))
    run = runs(tracker)[plan.cells[0].key]
    assert (tags(run)["ktrain.state"], run.info.status) == (state, "KILLED")


def test_a_larger_grid_adds_only_what_is_new(tracker: Tracker, planned: Planner, done: Plan) -> None:
    tracker.sync(done)
    before = ids(tracker)
    tracker.sync(planned(seed=[0, 1]))
    after = ids(tracker)
    assert before.items() <= after.items() and len(after) == len(before) + 2


def test_a_run_that_was_deleted_is_filled_in_again(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    before = runs(tracker)
    cell, pretrain = done.cells[0].key, done.cells[0].stages.pretrain.key
    for key in (cell, pretrain):
        tracker.client.delete_run(before[key].info.run_id)
    tracker.sync(done)
    after = runs(tracker)
    assert set(after) == set(before)
    assert {key for key in before if after[key].info.run_id != before[key].info.run_id} == {cell, pretrain}
    assert (after[cell].data.params, after[cell].data.metrics) == (before[cell].data.params, before[cell].data.metrics)
    assert len(tracker.client.get_metric_history(after[pretrain].info.run_id, "train/loss")) == 4


def test_a_cell_links_to_the_new_run_of_a_stage_whose_run_was_deleted(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    before = runs(tracker)
    pretrain = done.cells[0].stages.pretrain.key
    tracker.client.delete_run(before[pretrain].info.run_id)
    tracker.sync(done)
    after = runs(tracker)
    assert after[done.cells[0].key].info.run_id == before[done.cells[0].key].info.run_id
    assert after[done.cells[0].key].data.tags["ktrain.run.pretrain"] == after[pretrain].info.run_id


def test_a_stage_whose_run_was_cut_short_is_completed(tracker: Tracker, done: Plan) -> None:
    stage = done.cells[0].stages.pretrain
    cut = tracker.client.create_run(tracker.experiment, tags={"ktrain.key": stage.key, "ktrain.kind": "stage"})
    tracker.client.log_metric(cut.info.run_id, "train/loss", 3.0, timestamp=0, step=1)
    tracker.sync(done)
    assert ids(tracker)[stage.key] == cut.info.run_id
    history = tracker.client.get_metric_history(cut.info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2, 3, 4]


@pytest.mark.parametrize("writes", [0, 1, 5, 8, 9, 10, 11, 12, 14])
def test_a_server_that_dies_in_the_middle_is_told_the_rest_by_the_next_call(
    tracker: Tracker, done: Plan, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = writes

    def dying(client: MlflowClient, whole: Callable[..., Any], *values: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("gone\nfor good")
        return whole(client, *values, **named)

    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "set_terminated", "update_run"):
            patch.setattr(MlflowClient, name, functools.partialmethod(dying, getattr(MlflowClient, name)))
        patch.setattr(sync, "PAUSES", ())
        line = sync_with_retry(tracker, done)
    assert line is not None and "(gone)" in line and len(line.splitlines()) == 1
    assert sync_with_retry(tracker, done) is None
    stored = runs(tracker)
    assert len(stored) == 5
    cell = stored[done.cells[0].key]
    assert cell.data.params == {axis: str(value) for axis, value in active_axes(done.cells[0].cell).items()}
    assert cell.data.metrics["qa/exact_match/test/mean"] == 0.75 and tags(cell)["ktrain.state"] == "done"
    assert all(run.info.status == "FINISHED" for key, run in stored.items() if key != done.cells[1].key)


def test_of_runs_that_share_a_key_the_whole_one_stays(tracker: Tracker, done: Plan) -> None:
    tracker.sync(done)
    before = ids(tracker)
    for key in (done.cells[0].key, done.cells[0].stages.pretrain.key):
        tracker.client.create_run(tracker.experiment, start_time=1, tags={"ktrain.key": key})
    tracker.sync(done)
    assert ids(tracker) == before


def test_a_stage_that_was_made_again_has_one_curve_and_its_cell_one_number(
    tracker: Tracker, planned: Planner, publish: Callable[..., None], done: Plan, store: Store
) -> None:
    tracker.sync(done)
    before = ids(tracker)
    pretrain = done.cells[0].stages.pretrain
    shutil.rmtree(store.root / "stages" / pretrain.key)
    tracker.sync(planned())
    publish(pretrain, recalled=0.99)
    tracker.sync(planned())
    after = ids(tracker)
    assert {key for key in before if after[key] != before[key]} == {pretrain.key, done.cells[0].key}
    for key in (pretrain.key, done.cells[0].key):
        (point,) = tracker.client.get_metric_history(after[key], "recall/attribute_tokens")
        assert point.value == 0.99
    with sqlite3.connect(tracker.uri.removeprefix("sqlite:///")) as connection:
        experiment = tracker.client.get_experiment(tracker.experiment).name
        plan = planned()
        assert gap(connection, replace(plan, sweep=replace(plan.sweep, name=experiment))) == []


def test_a_number_that_is_none_is_written_once(tracker: Tracker, done: Plan) -> None:
    odd = {"train/worst": math.inf, "train/lost": math.nan}
    stages = {key: replace(one, metrics={**one.metrics, **odd}) for key, one in done.snapshot.done.items()}
    done = replace(done, snapshot=replace(done.snapshot, done=stages))
    tracker.sync(done)
    before = ids(tracker)
    for key in (done.cells[0].key, done.cells[0].stages.pretrain.key):
        tracker.client.set_tag(before[key], "ktrain.state", "cut short")
        tracker.client.update_run(before[key], status="RUNNING")
    tracker.sync(done)
    assert ids(tracker) == before
    for name in odd:
        assert len(tracker.client.get_metric_history(before[done.cells[0].key], name)) == 1


def test_an_experiment_that_was_deleted_is_brought_back(tracker: Tracker, done: Plan, request: Any) -> None:
    tracker.client.delete_experiment(tracker.experiment)
    again = Tracker.open(tracker.uri, request.node.name)
    again.sync(done)
    assert again.experiment == tracker.experiment and len(runs(again)) == 5


def test_more_runs_than_a_page_holds_are_all_found(
    tracker: Tracker, done: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.sync(done)
    search = MlflowClient.search_runs
    monkeypatch.setattr(MlflowClient, "search_runs", lambda self, e, **k: search(self, e, **k | {"max_results": 2}))
    assert set(tracker.runs()) == set(ids_of_all(tracker, search))


def ids_of_all(tracker: Tracker, search: Callable[..., Any]) -> list[str]:
    page = search(tracker.client, [tracker.experiment], max_results=100)
    assert len(page) == 5
    return [run.data.tags["ktrain.key"] for run in page]


# Where it is written.


def test_the_default_is_a_database_beside_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_uri(store) == f"sqlite:///{store.root}/mlflow.db" and store.root.is_absolute()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org:5000")
    assert default_uri(store) == "http://example.org:5000"


def test_a_relative_database_is_one_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.db").write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    tracker = Tracker.open("sqlite:///mine.db", "relative")
    experiment = tracker.client.get_experiment_by_name("relative")
    assert experiment.artifact_location == (tmp_path / "mlflow-artifacts" / "relative").as_uri()


def test_an_address_with_a_password_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@example.org:5000")
    with pytest.raises(WrongRequest, match=r"holds a password.*MLFLOW_TRACKING_PASSWORD") as caught:
        default_uri(store)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("login", "problem"),
    [
        ({}, "refuses requests without a login; "),
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "refuses MLFLOW_TRACKING_USERNAME=admin; "),
        ({"MLFLOW_TRACKING_USERNAME": "nobody"}, "refuses MLFLOW_TRACKING_USERNAME=nobody; "),
    ],
)
def test_a_login_that_is_refused_is_told(
    head: Head, monkeypatch: pytest.MonkeyPatch, login: dict[str, str], problem: str
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({**head.login, **login} if login else {}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongRequest) as caught:
        Tracker.open(head.uri, "refused")
    assert str(caught.value).startswith(f"MLFLOW_TRACKING_URI={head.uri}: {problem}")
    assert "wrong" not in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_user_who_may_only_read_is_told(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in head.login.items():
        monkeypatch.setenv(name, value)
    Tracker.open(head.uri, "of admin")
    guest = {"username": "guest", "password": "only looks at it"}
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])
    made = requests.post(f"{head.uri}/api/2.0/mlflow/users/create", json=guest, auth=login, timeout=60)
    assert made.status_code == 200, made.text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", guest["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", guest["password"])
    tracker = Tracker.open(head.uri, "of admin")
    with pytest.raises(MlflowException) as caught:
        tracker.client.create_run(tracker.experiment)
    assert str(refusal(head.uri, caught.value)).startswith(
        f"MLFLOW_TRACKING_URI={head.uri}: does not allow guest to do it: "
    )


def test_a_name_that_the_server_does_not_serve_is_told() -> None:
    error = MlflowException("403: Invalid Host header - possible DNS rebinding attack detected", PERMISSION_DENIED)
    assert str(refusal("http://head:5000", error)).endswith(
        "does not serve under this name; `ktrain serve --allowed-hosts NAME` would"
    )


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "nonsense://somewhere", "sqlite:////proc/none/mlflow.db"])
def test_a_server_that_does_not_answer_is_a_wrong_request_within_seconds(uri: str, port: int) -> None:
    uri = uri.format(port=port)
    begin = time.monotonic()
    with pytest.raises(WrongRequest) as caught:
        Tracker.open(uri, "demo")
    assert time.monotonic() - begin < 20
    message = str(caught.value)
    assert message.startswith(f"MLFLOW_TRACKING_URI={uri}: does not answer: ") and len(message.splitlines()) == 1


def test_a_server_that_goes_away_costs_nothing(
    tmp_path: Path,
    database: str,
    planned: Planner,
    publish: Callable[..., None],
    tiny: Callable[..., Sweep],
    serving: Serving,
    port: int,
) -> None:
    path = tmp_path / "server.db"
    path.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    sweep = tiny(name="server")
    with serving(path, port):
        # Any account of this machine could let the assistant run commands.
        refused = requests.put(f"http://127.0.0.1:{port}{application.CLOSED}/config", json={}, timeout=60)
        assert refused.status_code == 404 and "not served" in refused.text
        tracker = Tracker.open(f"http://127.0.0.1:{port}", "server")
        assert sync_with_retry(tracker, planned(sweep)) is None
        before = ids(tracker)
    for stage in planned(sweep).cells[0].stages:
        publish(stage)
    begin = time.monotonic()
    line = sync_with_retry(tracker, planned(sweep))
    assert time.monotonic() - begin < 20
    assert line is not None and len(line.splitlines()) == 1
    assert line.startswith(f"MLflow at {tracker.uri} does not answer now (")
    assert line.endswith("the next run delivers what it missed")
    with serving(path, port):
        assert sync_with_retry(tracker, planned(sweep)) is None
        after = runs(tracker)
        assert {key: after[key].info.run_id for key in before} == before and len(after) == 5
        cell = planned(sweep).cells[0]
        cell_results = recorded.load_results(tracker.uri, "server", {cell.key: cell.axes}).cells[0]
        assert cell_results.state == "done" and cell_results.metrics["qa/exact_match/test/mean"] == 0.75
