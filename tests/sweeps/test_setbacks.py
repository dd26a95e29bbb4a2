"""Setbacks of a run, as Ray Tune's callbacks hear of them: counted, kept, told once; and never begun again for ever."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ktrain.setbacks import LOST, PREEMPTED, Setback
from sweeps.setbacks import DRIVER, OVER, Setbacks, result


@pytest.fixture
def heard(tmp_path: Path) -> Setbacks:
    return Setbacks(tmp_path / "reports" / "demo" / "setbacks.jsonl")


def trial(name: str) -> Any:
    return SimpleNamespace(config={"trial": {"name": name}}, max_failures=10)


def test_nothing_is_told_where_nothing_was(heard: Setbacks, tmp_path: Path) -> None:
    heard.on_trial_result(1, [], trial("a"), {"stage": "a", "step": 1})
    assert heard.told() is None and not list(tmp_path.iterdir())


def test_each_is_kept_and_all_are_told_in_one_line(heard: Setbacks, tmp_path: Path) -> None:
    for name, kind in (("a", LOST), ("b", PREEMPTED), ("a", LOST)):
        heard.on_trial_result(1, [], trial(name), result(Setback(kind, f"why {name}")))
    heard.on_trial_recover(1, [], trial("c"))
    file = tmp_path / "reports" / "demo" / "setbacks.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(one["trial"], one["kind"]) for one in kept] == [("a", LOST), ("b", PREEMPTED), ("a", LOST), ("c", DRIVER)]
    assert kept[1]["line"] == "why b" and kept[0]["at"].endswith("+00:00")
    told = heard.told()
    assert told is not None and "\n" not in told
    assert (
        told.startswith("3 trials were begun again, 4x in all") and "node lost 2x, preempted 1x, driver lost 1x" in told
    )
    # Another run of the sweep adds to it.
    Setbacks(file).on_trial_recover(1, [], trial("d"))
    assert len(file.read_text().splitlines()) == 5


def test_what_a_driver_gives_up_ray_tune_does_not_begin_again(heard: Setbacks, tmp_path: Path) -> None:
    one, other = trial("a"), trial("b")
    heard.on_trial_result(1, [], one, result(Setback(OVER, "")))
    heard.on_trial_result(1, [], other, result(Setback(LOST, "gone")))
    assert (one.max_failures, other.max_failures) == (0, 10)
    told = heard.told()
    assert told is not None and told.startswith("1 trial was begun again, 1x in all")


def test_ray_tune_may_save_it(heard: Setbacks) -> None:
    assert isinstance(pickle.loads(pickle.dumps(heard)), Setbacks)
