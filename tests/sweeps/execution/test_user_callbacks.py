import logging
import pickle
import threading
from typing import Any

import pytest
from ray.tune import Callback

from sweeps.execution.user_callbacks import HOOKS, guarded


class Hears(Callback):
    """Notes what it hears, and fails at the second result."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def setup(self, *args: Any, **info: Any) -> None:
        self.heard.append(("setup", info))

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.heard.append((trial, result))
        if iteration == 2:
            raise RuntimeError("no\nnetwork")


def test_every_hook_of_ray_tune_is_forwarded() -> None:
    assert {"setup", "on_trial_start", "on_trial_result", "on_trial_complete", "on_experiment_end"} <= {*HOOKS}
    (callback,) = guarded([own := Hears()])
    callback.setup(num_samples=3)
    callback.on_trial_result(iteration=1, trials=[], trial="a", result={"loss": 1.0})
    callback.on_trial_complete(iteration=1, trials=[], trial="a")
    assert own.heard == [("setup", {"num_samples": 3}), ("a", {"loss": 1.0})]


def test_one_that_fails_costs_a_line_and_no_training(caplog: pytest.LogCaptureFixture) -> None:
    (callback,) = guarded([own := Hears()])
    with caplog.at_level(logging.WARNING, logger="ktrain.callbacks"):
        for iteration in (1, 2, 3):
            callback.on_trial_result(iteration=iteration, trials=[], trial="a", result={})
    assert len(own.heard) == 2
    (line,) = caplog.messages
    assert line == "callback Hears: on_trial_result: RuntimeError: no network; it is not called again"


def test_ray_may_save_one_that_cannot_be_saved() -> None:
    (callback,) = guarded([own := Hears()])
    own.heard.append(("a lock", threading.Lock()))
    with pytest.raises(TypeError):
        pickle.dumps(own)
    assert b"Hears" not in pickle.dumps(callback)
