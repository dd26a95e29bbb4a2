"""Restarts of a run, as Ray Tune's callbacks receive them: counted, written to a file, summed up in one line."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ktrain.restart_policy import Interruption, Kind
from sweeps.execution.restart_log import RestartLog, interruption_result


@pytest.fixture
def log(tmp_path: Path) -> RestartLog:
    return RestartLog(tmp_path / "reports" / "demo" / "setbacks.jsonl")


def trial(name: str) -> Any:
    return SimpleNamespace(config={"trial": {"name": name}}, max_failures=10)


def test_nothing_is_told_where_nothing_was(log: RestartLog, tmp_path: Path) -> None:
    log.on_trial_result(1, [], trial("a"), {"stage": "a", "step": 1})
    assert log.summary() is None and not list(tmp_path.iterdir())


def test_each_is_kept_and_all_are_told_in_one_line(log: RestartLog, tmp_path: Path) -> None:
    for name, kind in (("a", Kind.LOST), ("b", Kind.PREEMPTED), ("a", Kind.LOST)):
        log.on_trial_result(1, [], trial(name), interruption_result(Interruption(kind, f"why {name}")))
    log.on_trial_recover(1, [], trial("c"))
    file = tmp_path / "reports" / "demo" / "setbacks.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    wanted = [("a", Kind.LOST), ("b", Kind.PREEMPTED), ("a", Kind.LOST), ("c", Kind.DRIVER_LOST)]
    assert [(line["trial"], line["kind"]) for line in kept] == wanted
    assert kept[1]["line"] == "why b" and kept[0]["at"].endswith("+00:00")
    summary = log.summary()
    assert summary is not None and "\n" not in summary
    assert summary.startswith("3 trials were restarted, 4x in all")
    assert "node lost 2x, preempted 1x, driver lost 1x" in summary
    # Another run of the sweep adds to it.
    RestartLog(file).on_trial_recover(1, [], trial("d"))
    assert len(file.read_text().splitlines()) == 5


def test_what_a_driver_gives_up_ray_tune_does_not_begin_again(log: RestartLog, tmp_path: Path) -> None:
    one, other = trial("a"), trial("b")
    log.on_trial_result(1, [], one, interruption_result(Interruption(Kind.GIVEN_UP, "")))
    log.on_trial_result(1, [], other, interruption_result(Interruption(Kind.LOST, "gone")))
    assert (one.max_failures, other.max_failures) == (0, 10)
    summary = log.summary()
    assert summary is not None and summary.startswith("1 trial was restarted, 1x in all")


def test_ray_tune_may_save_it(log: RestartLog) -> None:
    assert isinstance(pickle.loads(pickle.dumps(log)), RestartLog)
