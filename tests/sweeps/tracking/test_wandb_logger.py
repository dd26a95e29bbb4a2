"""The same runs as in MLflow, in Weights & Biases: with a client of the test's own, and offline with the real one."""

import json
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ktrain.errors import WrongRequest
from ktrain.restart_policy import Interruption, Kind
from ktrain.training.progress import Progress, as_result
from sweeps.execution.restart_log import interruption_result
from sweeps.execution.user_callbacks import GuardedCallback, guarded
from sweeps.planning.plan import Plan
from sweeps.tracking.wandb_logger import WandbLogger

Planner = Callable[..., Plan]
Publish = Callable[..., None]
SCORE = "qa/exact_match/test/mean"


class FakeRun:
    """A run of the client: what it was begun with, and what was logged to it."""

    def __init__(self, **given: Any) -> None:
        self.given, self.lines, self.summary = given, list[dict[str, float]](), dict[str, float]()
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, line: dict[str, float]) -> None:
        assert self.exit_code is None, "logged after its end"
        self.lines.append(line)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code

    def curve(self, name: str) -> dict[float, float]:
        """The values of a metric by step, each of which was logged once."""
        points = [(line["step"], line[name]) for line in self.lines if name in line]
        assert len(points) == len(dict(points))
        return dict(points)


class FakeWandb(ModuleType):
    """The part of the client that the logger uses."""

    def __init__(self, mode: str = "online", *, key: bool = True, broken: bool = False) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.runs: list[FakeRun] = []
        self.threads: set[str] = set()
        self._mode, self._key, self._broken = mode, key, broken

    def setup(self) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode=self._mode))

    def login(self, prompt: bool) -> bool:
        assert not prompt, "a sweep must not stop at a prompt"
        return self._key

    def init(self, **given: Any) -> FakeRun:
        self.threads.add(threading.current_thread().name)
        if self._broken:
            raise OSError("no\nnetwork")
        self.runs.append(FakeRun(**given))
        return self.runs[-1]

    def run(self, key: str) -> FakeRun:
        (found,) = (run for run in self.runs if run.given["id"] == key)
        return found

    Settings = dict


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeWandb]:
    def installed(*args: Any, **options: Any) -> FakeWandb:
        monkeypatch.setitem(sys.modules, "wandb", fake := FakeWandb(*args, **options))
        return fake

    return installed


def trial_of(plan: Plan, number: int) -> Any:
    return SimpleNamespace(config={"trial": {"name": plan.cells[number].stages.pretrain.key}})


def train(logger: WandbLogger | GuardedCallback, plan: Plan, number: int, *steps: int) -> None:
    """The pretraining of a cell reports its loss after some of 60 steps."""
    key = plan.cells[number].stages.pretrain.key
    for step in steps:
        result = as_result(key, Progress(step, 60, 3.0 / step, 1e-3, 9, 1.0))
        logger.on_trial_result(iteration=1, trials=[], trial=trial_of(plan, number), result=result)


def finish(publish: Publish, plan: Plan, number: int) -> None:
    for stage in plan.cells[number].stages:
        publish(stage)


def test_each_stage_and_cell_is_a_run_with_curves_and_final_metrics(
    client: Callable[..., FakeWandb], planned: Planner, publish: Publish
) -> None:
    wandb, plan, logger = client(), planned(), WandbLogger()
    cell = plan.cells[0]
    logger.use_plan(plan)
    train(logger, plan, 0, 1, 2, 3)
    logger.on_trial_result(1, [], trial_of(plan, 0), interruption_result(Interruption(Kind.LOST, "gone")))
    # After a restart, steps come again.
    train(logger, plan, 0, 2, 3)
    finish(publish, plan, 0)
    logger.on_trial_complete(iteration=1, trials=[], trial=trial_of(plan, 0))
    logger.on_experiment_end(trials=[])
    assert [run.given["job_type"] for run in wandb.runs] == ["pretrain", "corpus", "qa_finetune", "cell"]
    assert {run.given["project"] for run in wandb.runs} == {"tiny"} and wandb.threads == {"wandb"}
    assert {run.exit_code for run in wandb.runs} == {0}
    pretrained, whole = wandb.run(cell.stages.pretrain.key), wandb.run(cell.key)
    assert pretrained.given["name"] == "pretrain · bioS single · s0"
    assert pretrained.given["config"]["train.steps"] == 60 and whole.given["config"]["corpus.multi"] == 1
    assert pretrained.curve("train/loss") == {1: 3.0, 2: 1.5, 3: 1.0, 4: 0.75}
    assert pretrained.curve("speed/tokens_per_second") == {1: 100, 2: 200, 3: 300, 4: 400}
    assert pretrained.summary["recall/attribute_tokens"] == 0.95 and pretrained.summary["train/loss"] == 0.75
    assert whole.given["config"]["readout.kind"] == "qa_finetune" and whole.given["config"]["ktrain.state"] == "done"
    assert (whole.summary[SCORE], whole.summary[f"{SCORE}/n"]) == (0.75, 30)
    assert whole.summary[f"{SCORE}/low"] == pytest.approx(0.65) and not whole.lines


def test_only_what_this_run_of_the_sweep_has_made_is_logged(
    client: Callable[..., FakeWandb], planned: Planner, publish: Publish
) -> None:
    wandb, before = client(), planned()
    publish(before.cells[1].stages.corpus)
    plan, logger = planned(), WandbLogger(project="mine", entity="us")
    logger.use_plan(plan)
    train(logger, plan, 0, 1)
    publish(plan.cells[1].stages.pretrain)
    logger.on_trial_error(iteration=1, trials=[], trial=trial_of(plan, 1))
    logger.on_experiment_end(trials=[])
    assert [run.given["job_type"] for run in wandb.runs] == ["pretrain", "pretrain"]
    assert {(run.given["project"], run.given["entity"]) for run in wandb.runs} == {("mine", "us")}
    assert [run.exit_code for run in wandb.runs] == [1, 0], "the first one was still training when the sweep ended"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"broken": True}, "OSError: no network"),
        ({"key": False}, "PermissionError: no key: `wandb login`, WANDB_API_KEY=..., or WANDB_MODE=offline"),
    ],
)
def test_a_failure_costs_one_line(
    client: Callable[..., FakeWandb],
    planned: Planner,
    publish: Publish,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, bool],
    line: str,
) -> None:
    wandb, plan = client(**options), planned()
    (logger,) = guarded([WandbLogger()], plan)
    train(logger, plan, 0, 1, 2)
    finish(publish, plan, 0)
    logger.on_trial_complete(iteration=1, trials=[], trial=trial_of(plan, 0))
    logger.on_experiment_end(trials=[])
    assert caplog.messages == [f"Weights & Biases: {line}; nothing more is logged there, MLflow and the store have all"]
    assert not wandb.runs


def test_a_sweep_that_trains_nothing_asks_nobody(client: Callable[..., FakeWandb]) -> None:
    wandb = client(key=False)
    WandbLogger().on_experiment_end(trials=[])
    assert not wandb.runs and not wandb.threads


def test_where_it_is_not_installed_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WrongRequest, match="WandbLogger: wandb is not installed: pip install"):
        WandbLogger()


def records(file: Path) -> Iterator[Any]:
    """The records of an offline run's file, a log of blocks of 32 KiB, as wandb's core writes it."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def test_offline_everything_is_in_a_folder(
    planned: Planner, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -c constraints.txt -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    plan, logger = planned(), WandbLogger()
    logger.use_plan(plan)
    train(logger, plan, 0, 1, 2)
    finish(publish, plan, 0)
    logger.on_trial_complete(iteration=1, trials=[], trial=trial_of(plan, 0))
    logger.on_experiment_end(trials=[])
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 4
    (file,) = (file for file in files if plan.cells[0].stages.pretrain.key in file.name)
    found = list(records(file))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.display_name, run.project, run.job_type) == ("pretrain · bioS single · s0", "tiny", "pretrain")
    assert {item.key: item.value_json for item in run.config.update}["train.steps"] == "60"
    lines = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    assert {line["step"]: line["train/loss"] for line in lines if "train/loss" in line} == {
        1: 3.0,
        2: 1.5,
        3: 1.0,
        4: 0.75,
    }
    summary = {item.key: item.value_json for record in found for item in record.summary.update}
    assert summary["recall/attribute_tokens"] == "0.95"
