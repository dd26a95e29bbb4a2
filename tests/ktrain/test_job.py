import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError
from ray.train import ControllerError, PreemptionError, PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from ktrain import job, training
from ktrain.config import Cell, Readout, Runtime, Train
from ktrain.setbacks import DIED, ERROR, LOST, MEMORY, PREEMPTED, ROOM, TAKEN, Setback
from ktrain.training import Progress


class Rank:
    """One rank's reporter with a clock of its own, and what it reports to Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, agree: Callable[[bool], bool]) -> None:
        self.now, self.told = 100.0, list[tuple[str, int]]()
        self._patch = monkeypatch
        monkeypatch.setattr(training, "agree", lambda answer: (agree(answer),))
        self._report = job._reporter(watched=False)

    def hear(self, key: str, step: int, steps: int, after: float) -> None:
        """A line of a curve, so many seconds after the one before it."""
        self.now += after
        self._patch.setattr(job, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._patch.setattr(job, "ray", SimpleNamespace(train=SimpleNamespace(report=self._take)))
        self._report(key, Progress(step, steps, 1.0, 1e-3, 10, 2.0))

    def _take(self, line: dict[str, Any]) -> None:
        assert line["tokens_per_second"] == 5.0 and line["loss"] == 1.0
        self.told.append((line["stage"], line["step"]))


def test_a_machine_is_ready_for_a_worker_without_the_lock_of_a_dead_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    lock = tmp_path / "extensions" / "some_op" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    job.ready()
    assert not lock.exists() and lock.parent.exists()


def test_the_processes_of_a_job_that_train_nothing_do_not_import_pytorch() -> None:
    program = "import sys, ktrain.job, sweeps.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def mine(answer: bool) -> bool:
    return answer


def test_lines_that_come_fast_are_reported_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 13):
        rank.hear("a", step, 20, after=0.25)
    assert rank.told == [("a", 1), ("a", 5), ("a", 9)]


def test_slow_lines_are_all_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for step in range(1, 4):
        rank.hear("a", step, 20, after=1.5)
    assert rank.told == [("a", 1), ("a", 2), ("a", 3)]


def test_the_last_line_of_each_stage_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(monkeypatch, mine)
    for stage in "ab":
        for step in range(1, 5):
            rank.hear(stage, step, 4, after=0.01)
    assert rank.told == [("a", 1), ("a", 4), ("b", 4)]


def test_ranks_whose_clocks_differ_report_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def first(answer: bool) -> bool:
        asked.append(answer)
        return answer

    lines = [(stage, step) for stage in "ab" for step in range(1, 11)]
    zero = Rank(monkeypatch, first)
    for stage, step in lines:
        zero.hear(stage, step, 10, after=0.4)
    answers = iter(asked)
    one = Rank(monkeypatch, lambda _: next(answers))
    for stage, step in lines:
        one.hear(stage, step, 10, after=0.7)
    assert one.told == zero.told and 2 < len(one.told) < len(lines)
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


class LeaseLost(RuntimeError):
    """As it comes out of a worker."""


def died(text: str, preempted: bool = False) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError(HEALTH, RayActorError("ab", text, preempted=preempted))


def group(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("text", dict(enumerate(failures)))


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (group(died(GONE)), LOST, "the actor's node was terminated unexpectedly: health check failed"),
        (group(RuntimeError("Connection closed by peer"), died(GONE)), LOST, "the actor's node was terminated"),
        (group(died(GONE, preempted=True)), PREEMPTED, "the actor's node"),
        (PreemptionError(PreemptionInfo(None, {"ab": [0]}), drain_timed_out=True), PREEMPTED, "its node went"),
        (group(died(KILLED)), DIED, "The actor is dead because its worker process has died."),
        (group(died(FULL)), MEMORY, "1 worker(s) were killed due to the node running low on memory."),
        (OutOfMemoryError(FULL), MEMORY, "1 worker(s) were killed due to the node running low on memory."),
        (RayActorError("ab", KILLED), DIED, "The actor is dead"),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), ROOM, "no node has room"),
        (ControllerError(WorkerGroupStartupFailedError("One of them:\nfailed\n")), DIED, "at the start: failed"),
        (group(LeaseLost("at step 3")), TAKEN, "another driver does the stage now"),
        (group(ValueError("of ours\nand more")), ERROR, "ValueError: of ours"),
        (group(KeyError()), ERROR, "KeyError: no message"),
    ],
)
def test_what_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, line: str) -> None:
    monkeypatch.setattr(job, "_nodes", lambda: {"ab", "cd"})
    found = job._setback(error, {"ab", "cd"})
    assert found.kind == kind and found.line.startswith(line) and "\n" not in found.line
    assert not found.storage


def test_files_that_cannot_be_written_are_storage() -> None:
    found = job._setback(group(OSError(28, "No space left on device")), set())
    assert found == Setback(ERROR, "OSError: [Errno 28] No space left on device", storage=True)


@pytest.mark.parametrize(
    ("error", "after", "kind"),
    [
        (RuntimeError("gloo: Connection closed by peer [10.0.0.2]"), {"cd"}, LOST),
        (RuntimeError("gloo: Connection closed by peer [10.0.0.2]"), {"ab", "cd", "ef"}, ERROR),
        (WorkerHealthCheckFailedError(HEALTH, ActorUnavailableError("connection refused", None)), {"cd"}, LOST),
        (WorkerHealthCheckFailedError(HEALTH, ActorUnavailableError("connection refused", None)), {"ab", "cd"}, DIED),
        # Another node's end is no reason for an error of ours.
        (ValueError("of ours"), {"cd"}, ERROR),
    ],
)
def test_who_loses_a_connection_waits_whether_a_node_is_gone(
    monkeypatch: pytest.MonkeyPatch, error: Exception, after: set[str], kind: str
) -> None:
    seen = iter([{"ab", "cd"}, {"ab", "cd"}])
    monkeypatch.setattr(job, "_nodes", lambda: next(seen, after))
    monkeypatch.setattr(job, "SETTLE", 0.2)
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None))
    assert job._setback(group(error), {"ab", "cd"}).kind == kind


def test_a_node_that_goes_while_workers_start_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_nodes", lambda: {"cd"})
    assert job._setback(ControllerError(WorkerGroupStartupFailedError("x")), {"ab", "cd"}).kind == LOST


@pytest.mark.parametrize(("room", "workers"), [(8, 8), (7, 4), (4, 4), (3, 2), (1, 1), (0, 8)])
def test_fewer_workers_divide_every_batch(monkeypatch: pytest.MonkeyPatch, room: int, workers: int) -> None:
    """As asked where there is none: then there is nothing to do but wait."""
    cells = [Cell(train=Train(batch=96), readout=Readout(batch=batch)) for batch in (40, 24)]
    there = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0 * room + 1, "GPU": float(room)})
    monkeypatch.setattr(job, "ray", there)
    runtime = Runtime(workers=8, threads=2)
    assert job._fewer(cells, runtime, {"GPU": 1.0}) == job._fewer(cells, runtime, {"CPU": 2}) == workers
