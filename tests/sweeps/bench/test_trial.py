"""What a trial costs besides training; jobs of Ray are in the command alone, which takes minutes."""

import contextlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ktrain.config import RuntimeConfig
from sweeps.bench import trial
from sweeps.execution import ray_session


def test_a_bare_process_tells_its_first_line_its_last_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = trial._cell()
    train = cell.train.model_copy(update={"steps": 10, "warmup": 0, "batch": 2})
    readout = cell.readout.model_copy(update={"steps": 4, "batch": 4})
    short = cell.model_copy(update={"train": train, "readout": readout})
    monkeypatch.setattr(trial, "_cell", lambda: short)
    monkeypatch.setattr(trial, "RuntimeConfig", partial(RuntimeConfig, compile=False))
    marks = trial._bare(tmp_path)
    assert 0 < marks["first"] < marks["last"] < marks["end"]


def test_the_first_of_each_compiles_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = iter([(50, 70, 90), (10, 20, 22), (12, 22, 26), (11, 21, 24)])
    bare = iter([(40, 60, 61), (5, 15, 16), (7, 16, 18), (6, 16, 17)])
    memory = iter([900.0, 300.0, 310.0, 290.0])

    def job(folder: Path, found: list[float]) -> trial.Marks:
        found.append(next(memory))
        return dict(zip(("first", "last", "end"), next(jobs), strict=True))

    monkeypatch.setattr(trial, "_job", job)
    monkeypatch.setattr(trial, "_bare", lambda folder: dict(zip(("first", "last", "end"), next(bare), strict=True)))
    monkeypatch.setattr(ray_session, "prepare", lambda: None)
    monkeypatch.setattr(ray_session, "connected", lambda *_, **__: contextlib.nullcontext())
    found = trial.trial()
    measured = {row["name"]: (row["median"], row["spread"]) for row in found["rows"]}
    assert measured == {
        "job: fit to first line": (11, 2),
        "job: last line to done": (3, 2),
        "job: whole": (24, 4),
        "bare: start to first line": (6, 2),
        "bare: last line to done": (1, 1),
        "bare: whole": (17, 2),
        "job: memory besides the worker": (300, 20),
    }
    assert found["ratios"] == {"bare: whole": 24 / 17}


def test_memory_besides_is_that_of_the_processes_below_but_for_workers() -> None:
    words = [sys.executable, "-c", "x = bytearray(b'x') * 10**8; input()"]
    before = trial._besides()
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE) as other,
        subprocess.Popen([*words, "RayTrainWorker"], stdin=subprocess.PIPE) as worker,
    ):
        while trial._besides() - before < 1e8:
            assert other.poll() is None and worker.poll() is None
        assert trial._besides() - before < 1.5e8
        for process in (other, worker):
            process.communicate()
