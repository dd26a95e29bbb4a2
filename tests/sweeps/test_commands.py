"""A `ktrain run` that is refused leaves nothing behind: no folder of a new store, no database, no experiment."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.tune
from mlflow import MlflowClient

from ktrain.errors import WrongRequest
from ktrain.store.base import Store
from sweeps import cli
from sweeps.execution import capacity, ray_session, run
from sweeps.execution.capacity import ClusterCapacity, NodeCapacity
from sweeps.planning.plan import Plan
from sweeps.tracking.sync import Tracker

AXES = ("corpus.people=60", "corpus.tokenizer=bpe-600", "train.steps=200", "train.context=64", "train.windows=cut")
Attempt = Callable[..., tuple[int, str]]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which `results` would be made."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def attempt(work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Attempt]:
    """Runs the demo in this process: exit code and the last line of standard error. Ray does not start."""

    def init(**_: object) -> None:
        raise ConnectionError("Ray does not start in a test")

    monkeypatch.setattr(ray, "init", init)
    environment = dict(os.environ)

    def command(*words: str) -> tuple[int, str]:
        code = cli.main(["run", "demo", *AXES, *words])
        return code, capfd.readouterr().err.splitlines()[-1]

    yield command
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stands for a Ray that has started, on one machine with some processors."""

    def machine(cpus: int) -> None:
        monkeypatch.setattr(run, "connected", lambda address, **_: contextlib.nullcontext())
        found = ClusterCapacity((NodeCapacity(cpus=cpus, memory=64e9),)), {"CPU": 0.1}
        monkeypatch.setattr(capacity, "measure_capacity", lambda *_: found)

    return machine


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WORDS = {
    "an axis": ("corpus.mutli=2", "axis corpus.mutli"),
    "a value": ("corpus.multi=0", "corpus.multi=0"),
    "a scale": ("--scale=huge", "scale=huge"),
    "workers": ("--workers=0", "workers=0"),
    "workers that divide no batch": ("--workers=5", "workers=5: does not divide"),
    "a number of GPUs": ("--gpus-max=-1", "gpus-max=-1"),
    "a time": ("--checkpoint-seconds=0", "checkpoint-seconds=0"),
    "cells": (f"seed={','.join(map(str, range(60_000)))}", "--many-cells allows it"),
}
VARIABLES = {
    "no address of a server": ("MLFLOW_TRACKING_URI", "http://"),
    "no address of a database": ("MLFLOW_TRACKING_URI", "sqlite://"),
    "a database in no folder": ("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db"),
    "a database where nobody writes": ("MLFLOW_TRACKING_URI", "sqlite:////proc/mlflow.db"),
    "no server": ("MLFLOW_TRACKING_URI", "http://127.0.0.1:{port}"),
    "no address of Ray": ("RAY_ADDRESS", "head"),
    "Ray Client": ("RAY_ADDRESS", "ray://127.0.0.1:10001"),
    "no Ray": ("RAY_ADDRESS", "127.0.0.1:{port}"),
}


@pytest.mark.parametrize("store", ["results", "a/new/folder"])
@pytest.mark.parametrize("what", WORDS)
def test_wrong_words_leave_nothing(attempt: Attempt, work: Path, what: str, store: str) -> None:
    word, told = WORDS[what]
    code, line = attempt(word, "--store", store)
    assert code == 2 and told in line
    assert not list(work.iterdir())


@pytest.mark.parametrize("what", VARIABLES)
def test_wrong_addresses_leave_nothing(
    attempt: Attempt, work: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    variable, address = VARIABLES[what]
    address = address.format(port=closed_port())
    monkeypatch.setenv(variable, address)
    code, line = attempt()
    assert code == 2 and line.startswith(f"ktrain: {variable}={address}")
    assert not list(work.iterdir())


@pytest.mark.parametrize("store", ["s3://bucket/results", "results/mlflow.db", "/proc/results"])
def test_wrong_stores_leave_nothing(attempt: Attempt, work: Path, store: str) -> None:
    """Without a tracking server, object storage is refused; a file stands where a folder must be."""
    (work / "results").mkdir()
    (work / "results" / "mlflow.db").touch()
    code, line = attempt("--store", store)
    assert code == 2 and line.startswith(f"ktrain: store={store}")
    assert [path.name for path in work.rglob("*")] == ["results", "mlflow.db"]


def test_an_empty_folder_stays_empty(attempt: Attempt, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "results").mkdir()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    assert attempt()[0] == 2
    assert [path.name for path in work.rglob("*")] == ["results"]


def test_a_ray_that_does_not_start_leaves_nothing(attempt: Attempt, work: Path) -> None:
    code, line = attempt()
    assert code == 2 and "Ray does not start here" in line
    assert not [path for path in work.iterdir() if path.name != ".cache"]


def test_a_cluster_that_refuses_leaves_nothing(attempt: Attempt, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.run_sweep.chosen_address", lambda: "127.0.0.1:6379")
    code, line = attempt()
    assert code == 2 and line.startswith("ktrain: RAY_ADDRESS=127.0.0.1:6379: does not let this run in")
    assert not [path for path in work.iterdir() if path.name != ".cache"]


def test_a_machine_that_is_too_small_leaves_nothing_and_no_experiment(
    attempt: Attempt, work: Path, tmp_path: Path, database: str, room: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    room(1)
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    code, line = attempt("--workers", "2")
    assert code == 2 and line.startswith("ktrain: workers=2, threads=1: there are 1 CPUs")
    assert not [path for path in work.iterdir() if path.name != ".cache"]
    assert MlflowClient(f"sqlite:///{copy}").get_experiment_by_name("demo") is None


def test_ctrl_c_while_ray_starts_leaves_nothing(attempt: Attempt, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise ray_session.Interrupted

    monkeypatch.setattr(run, "connected", stopped)
    code, line = attempt()
    assert code == 130 and "stopped" in line
    assert not [path for path in work.iterdir() if path.name != ".cache"]


def test_a_run_says_what_it_waits_for_before_it_waits(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def connected(*_: object, **__: object) -> Iterator[None]:
        said.append(capfd.readouterr().err)
        yield

    def measured(*_: object) -> None:
        said.append(capfd.readouterr().err)
        raise WrongRequest("enough")

    monkeypatch.setattr(run, "connected", connected)
    monkeypatch.setattr(capacity, "measure_capacity", measured)
    assert attempt() == (2, "ktrain: enough")
    before_ray, before_trials = said
    assert "demo at scale mini: 2 of 2 cells to do" in before_ray and before_ray.endswith("starting Ray\n")
    assert before_trials == "compiling, which takes about a minute the first time\n"


def test_a_run_that_ray_gives_up_ends_in_one_line(
    attempt: Attempt, tmp_path: Path, database: str, room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    room(2)
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")

    class Tuner:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def fit(self) -> None:
            raise RuntimeError("Caught unexpected exception: the node is gone\nand more")

    monkeypatch.setattr(ray.tune, "Tuner", Tuner)
    monkeypatch.setattr(ray, "put", lambda cells: cells)
    assert attempt() == (
        1,
        "ktrain: Ray ended: Caught unexpected exception: the node is gone; what is done is kept, and the same command "
        "continues",
    )


def test_store_and_experiment_are_there_before_the_first_trial(
    attempt: Attempt, work: Path, tmp_path: Path, database: str, room: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    room(2)
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    seen: list[bool] = []

    def drive(*_: Any, **__: Any) -> list[str]:
        seen.append((work / "results" / "stages").is_dir())
        raise WrongRequest("enough")

    monkeypatch.setattr(run, "drive", drive)
    monkeypatch.setattr(ray, "put", lambda cells: cells)
    assert attempt() == (2, "ktrain: enough")
    assert seen == [True]
    # What there is by then goes to MLflow, however a run ends.
    assert len(Tracker.open(f"sqlite:///{copy}", "demo").runs()) == 2


def test_a_run_goes_on_with_what_an_adaptive_search_has_drawn(
    work: Path, database: str, store: Store, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install -c constraints.txt -e '.[optuna]'")
    copy = work / "mlflow.db"
    copy.write_bytes(Path(database.removeprefix("sqlite:///")).read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    axes = {**dict(word.split("=") for word in AXES), "readout.recall_gate": "0"}
    (work / "mine.py").write_text(
        "from ray import tune\nfrom sweeps import Sweep\n"
        f"sweep = Sweep('mine', {axes} | {{'train.learning_rate': tune.loguniform(1e-4, 1e-2)}}, samples=14, "
        "searcher='optuna', metric='train/loss')\n"
    )
    sizes: list[tuple[int, int]] = []
    reported: list[int] = []

    def train(plan: Plan, runtime: object, console: object, begin: Callable[[], object], **_: object) -> list[str]:
        begin()
        sizes.append((len(plan.cells), len(plan.trials())))
        for cells in plan.trials().values():
            for stage in (stage for cell in cells for stage in cell.stages):
                publish(stage)
        return []

    monkeypatch.setattr("sweeps.run_sweep.run", train)
    monkeypatch.setattr("sweeps.report.publish", lambda plan, **_: reported.append(len(plan.cells)))
    assert cli.main(["run", "mine.py", "--store", store.address]) == 0
    assert sizes == [(8, 8), (12, 4), (14, 2)] and reported == [14]
    # A rerun has the same cells, and nothing to do.
    assert cli.main(["run", "mine.py", "--store", store.address]) == 0
    assert sizes[3:] == [(14, 0)] and reported == [14, 14]
