import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError
from ray.train import ControllerError, PreemptionError, PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from ktrain import fingerprint, pipeline, ray_job
from ktrain.bios import question_wordings
from ktrain.config import CellConfig, ReadoutConfig, RuntimeConfig, TrainConfig
from ktrain.errors import WrongRequest
from ktrain.restart_policy import Interruption, Kind
from ktrain.stages import stages_of
from ktrain.system import collectives
from ktrain.training.progress import Progress


class Rank:
    """One rank's sink with a clock of its own, and what it reports to Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agree: Callable[[bool], bool]) -> None:
        self.now, self.reported = 100.0, list[tuple[str, int]]()
        self._patch = monkeypatch
        monkeypatch.setattr(collectives, "broadcast_ints", lambda answer: (agree(answer),))
        self._sink = ray_job.RaySink(watch_preemption=False)

    def send(self, key: str, step: int, steps: int, after: float) -> None:
        """A line of a curve, so many seconds after the one before."""
        self.now += after
        self._patch.setattr(ray_job, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._patch.setattr(ray_job, "ray", SimpleNamespace(train=SimpleNamespace(report=self._take)))
        self._sink(key, Progress(step, steps, 1.0, 1e-3, 10, 2.0))

    def _take(self, line: dict[str, Any]) -> None:
        assert line["tokens_per_second"] == 5.0 and line["loss"] == 1.0
        self.reported.append((line["stage"], line["step"]))


def test_a_worker_keeps_its_caches_on_its_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    ray_job.ready()
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "triton")


def test_the_processes_of_a_job_that_train_nothing_do_not_import_pytorch() -> None:
    program = "import sys, ktrain.ray_job, sweeps.execution.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def mine(answer: bool) -> bool:
    return answer


def test_lines_that_come_fast_are_reported_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 13):
        rank.send("a", step, 20, after=0.25)
    assert rank.reported == [("a", 1), ("a", 5), ("a", 9)]


def test_slow_lines_are_all_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 4):
        rank.send("a", step, 20, after=1.5)
    assert rank.reported == [("a", 1), ("a", 2), ("a", 3)]


def test_the_last_line_of_each_stage_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for stage in "ab":
        for step in range(1, 5):
            rank.send(stage, step, 4, after=0.01)
    assert rank.reported == [("a", 1), ("a", 4), ("b", 4)]


def test_ranks_whose_clocks_differ_report_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def first(answer: bool) -> bool:
        asked.append(answer)
        return answer

    lines = [(stage, step) for stage in "ab" for step in range(1, 11)]
    zero = Rank(monkeypatch, first)
    for stage, step in lines:
        zero.send(stage, step, 10, after=0.4)
    answers = iter(asked)
    one = Rank(monkeypatch, lambda _: next(answers))
    for stage, step in lines:
        one.send(stage, step, 10, after=0.7)
    assert one.reported == zero.reported and 2 < len(one.reported) < len(lines)
    assert next(answers, None) is None


# What errors of Ray come from, in the words of Ray 2.60.

HEALTH = "A worker health check failed.\nWorker info: Worker(\n  metadata=ActorMetadata(node_id='ab'))"
GONE = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n"
    "The actor died because its node has died. Node Id: ab\n"
    "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)
KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file."
)
FULL = "1 worker(s) were killed due to the node running low on memory. Refer to the documentation\nand more\n"
UNREACHABLE = WorkerHealthCheckFailedError(HEALTH, ActorUnavailableError("connection refused", None))


class LeaseLost(RuntimeError):
    """As it comes out of a worker."""


UNREACHABLE = WorkerHealthCheckFailedError(HEALTH, ActorUnavailableError("connection refused", None))


def died(text: str, preempted: bool = False) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError(HEALTH, RayActorError("ab", text, preempted=preempted))


def group(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("text", dict(enumerate(failures)))


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (group(died(GONE)), Kind.LOST, "the actor's node was terminated unexpectedly: health check failed"),
        (group(RuntimeError("Connection closed by peer"), died(GONE)), Kind.LOST, "the actor's node was terminated"),
        (group(died(GONE, preempted=True)), Kind.PREEMPTED, "the actor's node"),
        (PreemptionError(PreemptionInfo(None, {"ab": [0]}), drain_timed_out=True), Kind.PREEMPTED, "its node went"),
        (group(died(KILLED)), Kind.DIED, "The actor is dead because its worker process has died."),
        (group(died(FULL)), Kind.MEMORY, "1 worker(s) were killed due to the node running low on memory."),
        (OutOfMemoryError(FULL), Kind.MEMORY, "1 worker(s) were killed due to the node running low on memory."),
        (RayActorError("ab", KILLED), Kind.DIED, "The actor is dead"),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), Kind.NO_CAPACITY, "no node has room"),
        (ControllerError(WorkerGroupStartupFailedError("One of them:\nfailed\n")), Kind.DIED, "at the start: failed"),
        (group(LeaseLost("at step 3")), Kind.LEASE_LOST, "another driver does the stage now"),
        (group(ValueError("of ours\nand more")), Kind.ERROR, "ValueError: of ours"),
        (group(KeyError()), Kind.ERROR, "KeyError: no message"),
    ],
)
def test_what_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, line: str) -> None:
    monkeypatch.setattr(ray_job, "_nodes", lambda: {"ab", "cd"})
    found = ray_job._interruption(error, {"ab", "cd"})
    assert found.kind == kind and found.line.startswith(line) and "\n" not in found.line
    assert not found.storage


@pytest.mark.parametrize(
    "failures",
    [
        [PermissionError(13, "Permission denied", "/store/model.safetensors")],
        [ValueError("of ours")],
        [KeyError("x"), ValueError("of ours")],
    ],
)
def test_a_job_raises_the_error_of_its_workers_which_is_not_its_own_cause(
    monkeypatch: pytest.MonkeyPatch, failures: list[Exception]
) -> None:
    error = group(*failures)

    class Failing:
        def fit(self) -> None:
            raise error

    monkeypatch.setattr(ray_job, "_nodes", set)
    monkeypatch.setattr(ray_job, "_trainer", lambda *_: Failing())
    monkeypatch.setattr(ray_job.RestartPolicy, "should_restart", lambda *_: False)
    runtime = RuntimeConfig(store="nowhere")
    with pytest.raises(WorkerGroupError) as caught:
        ray_job.fit(
            "x", [], [], runtime, ".", resources={"CPU": 1.0}, watch_preemption=False, callbacks=[],
            on_interruption=lambda interruption: None,
        )  # fmt: skip
    assert caught.value is error and error.__cause__ is not error
    # What Ray does to send an error to another process; an error that is its own cause has no end.
    assert type(failures[0]).__name__ in str(ray.exceptions.RayTaskError("f", "", error).cause.worker_failures)


def test_files_that_cannot_be_written_are_storage() -> None:
    found = ray_job._interruption(group(OSError(28, "No space left on device")), set())
    assert found == Interruption(Kind.ERROR, "OSError: [Errno 28] No space left on device", storage=True)


@pytest.mark.parametrize(
    ("error", "after", "kind"),
    [
        (RuntimeError("gloo: Connection closed by peer [10.0.0.2]"), {"cd"}, Kind.LOST),
        (RuntimeError("gloo: Connection closed by peer [10.0.0.2]"), {"ab", "cd", "ef"}, Kind.ERROR),
        (UNREACHABLE, {"cd"}, Kind.LOST),
        (UNREACHABLE, {"ab", "cd"}, Kind.DIED),
        # Another node's end is no reason for an error of ours.
        (ValueError("of ours"), {"cd"}, Kind.ERROR),
    ],
)
def test_who_loses_a_connection_waits_whether_a_node_is_gone(
    monkeypatch: pytest.MonkeyPatch, error: Exception, after: set[str], kind: str
) -> None:
    seen = iter([{"ab", "cd"}, {"ab", "cd"}])
    monkeypatch.setattr(ray_job, "_nodes", lambda: next(seen, after))
    monkeypatch.setattr(ray_job, "NODE_LOSS_SECONDS", 0.2)
    monkeypatch.setattr(ray_job, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None))
    assert ray_job._interruption(group(error), {"ab", "cd"}).kind == kind


def test_a_node_that_goes_while_workers_start_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_job, "_nodes", lambda: {"cd"})
    assert ray_job._interruption(ControllerError(WorkerGroupStartupFailedError("x")), {"ab", "cd"}).kind == Kind.LOST


@pytest.mark.parametrize(("room", "workers"), [(8, 8), (7, 4), (4, 4), (3, 2), (1, 1), (0, 8)])
def test_fewer_workers_divide_every_batch(monkeypatch: pytest.MonkeyPatch, room: int, workers: int) -> None:
    """As asked where there is none: then there is nothing to do but wait."""
    cells = [CellConfig(train=TrainConfig(batch=96), readout=ReadoutConfig(batch=batch)) for batch in (40, 24)]
    there = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0 * room + 1, "GPU": float(room)})
    monkeypatch.setattr(ray_job, "ray", there)
    runtime = RuntimeConfig(workers=8, threads=2)
    for resources in ({"GPU": 1.0}, {"CPU": 2.0}):
        assert ray_job._fitting_workers(cells, runtime, resources) == workers


def test_a_trial_whose_files_are_not_those_of_its_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers would train under keys that nobody expects."""

    class Changed:
        return_value = ray_job.CHANGED

        def fit(self) -> "Changed":
            return self

    monkeypatch.setattr(ray_job, "_nodes", set)
    monkeypatch.setattr(ray_job, "_trainer", lambda *_: Changed())
    with pytest.raises(WrongRequest, match="has changed since the sweep was planned"):
        ray_job.fit(
            "x", [], ["key"], RuntimeConfig(store="nowhere"), ".", resources={"CPU": 1.0}, watch_preemption=False,
            callbacks=[], on_interruption=lambda interruption: None,
        )  # fmt: skip


@pytest.mark.parametrize("edited", [False, True])
def test_a_worker_begins_only_with_the_files_of_the_plan(
    edited: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "questions"
    shutil.copytree(question_wordings.BUILTIN, folder)
    cell = CellConfig.model_validate({"corpus": {"questions_folder": str(folder), "question_wordings": 2}})
    config = {"cells": [cell.model_dump(mode="json")], "keys": [stages_of(cell).readout.key], "watch_preemption": False}
    config["runtime"] = RuntimeConfig(store=str(tmp_path)).model_dump(mode="json")
    if edited:
        lines = (folder / "major.txt").read_text().splitlines()
        (folder / "major.txt").write_text("\n".join([lines[0], *lines[2:]]))
    begun: list[list[CellConfig]] = []
    for name in ("ready", "join"):
        monkeypatch.setattr(ray_job, name, lambda: None)
    monkeypatch.setattr(fingerprint, "_frozen", None)
    monkeypatch.setattr(pipeline, "run", lambda cells, *_: begun.append(cells))
    assert ray_job._work(config) == (ray_job.CHANGED if edited else None)
    assert begun == ([] if edited else [[cell]])


def test_the_content_of_a_file_is_frozen_once_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one")
    monkeypatch.setattr(fingerprint, "_frozen", None)
    before = fingerprint.content_digest([file])
    fingerprint.freeze_contents()
    assert fingerprint.content_digest([file]) == before
    file.write_text("two")
    assert fingerprint.content_digest([file]) == before
    monkeypatch.setattr(fingerprint, "_frozen", None)
    assert fingerprint.content_digest([file]) != before
