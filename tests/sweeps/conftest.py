"""A tiny setting that trains in seconds, and stores in which its stages are done without any training."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray import tune

from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.open import open_store
from sweeps import Sweep
from sweeps.planning.plan import Plan, make
from sweeps.services import application, mlflow_server

TINY: Mapping[str, Any] = {
    "corpus.people": 60,
    "corpus.tokenizer": "bpe-600",
    "corpus.pools.birth_years": 5,
    "corpus.pools.birth_cities": 5,
    "train.steps": 60,
    "train.warmup": 10,
    "train.batch": 4,
    "train.context": 64,
    "train.windows": "cut",
    "readout.steps": 20,
    "readout.batch": 8,
    "readout.recall_gate": 0.9,
}
RECALLED = 0.95


@pytest.fixture(autouse=True)
def no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell says about servers is not for tests."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Sweep]:
    """The sweep `tiny` with axes of the test's own: `tiny({"corpus.multi": tune.grid_search([1, 2])})`."""

    def sweep(axes: Mapping[str, Any] | None = None, name: str = "tiny") -> Sweep:
        return Sweep(name, {**TINY, **({"corpus.multi": tune.grid_search([1, 2])} if axes is None else axes)})

    return sweep


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite database; making one takes seconds, so tests share it or copy it, and differ in their experiment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"
    MlflowClient(uri).get_experiment_by_name("none")
    return uri


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "results")


@pytest.fixture
def planned(tiny: Callable[..., Sweep], store: Store) -> Callable[..., Plan]:
    """A new look at the plan of a sweep against the store."""

    def plan(sweep: Sweep | None = None, **overrides: list[Any]) -> Plan:
        return make(sweep or tiny(), "mini", {k.replace("__", "."): v for k, v in overrides.items()}, store)

    return plan


@pytest.fixture
def publish(store: Store) -> Callable[..., None]:
    """Finishes a stage with the files that a trial leaves, the models apart."""

    def done(
        stage: Stage, score: float = 0.75, recalled: float = RECALLED, learning: Mapping[str, Any] | None = None
    ) -> None:
        metrics: dict[str, float]
        if stage.kind == "corpus":
            metrics = {"corpus/entries": 60, "corpus/tokens": 6000}
        elif stage.kind == "pretrain":
            metrics = {"recall/attribute_tokens": recalled, "baseline/test/mean": 0.2, "train/loss": 0.75}
            metrics |= {"speed/tokens_per_second": 400.0}
            if learning:
                # The end of a curve is a final number too.
                metrics |= {name: value for name, value in learning["curve"][-1].items() if name.startswith("bio/")}
        else:
            prefix = "qa" if stage.kind == "qa_finetune" else "mixed"
            metrics = {f"{prefix}/exact_match/{half}/mean": score for half in ("train", "test")}
        files: dict[str, Any] = {"metrics.json": metrics}
        if learning and stage.kind == "pretrain":
            files["learning.json"] = learning
        if stage.kind != "corpus":
            line = {"learning_rate": 1e-3, "tokens": 9, "seconds": 1.0, "steps": 60}
            files["curve.json"] = [
                {"step": k, "loss": 3.0 / k, "tokens_per_second": 100.0 * k} | line for k in (1, 2, 3, 4)
            ]
        if stage.kind not in ("corpus", "pretrain"):
            interval = dict.fromkeys(metrics, (score - 0.1, score + 0.1))
            files["counts.json"] = {"n": dict.fromkeys(metrics, 30), "interval": interval}
        store.publish_files(stage, files)

    return done


@pytest.fixture
def port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serving() -> Callable[[Path, int], AbstractContextManager[object]]:
    """Serves a database: `with serving(path, port):`."""
    return _server


@contextmanager
def _server(database: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A tracking server on loopback as `ktrain ui` starts it, ready to answer; killed at the end."""
    command = mlflow_server.command("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(database.parent / "a")]
    environment = {**os.environ, **application.ENVIRONMENT, "PYTHONPATH": str(mlflow_server.ROOT)}
    # Its own group: the server has a child that answers.
    with (database.parent / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < end, (database.parent / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
