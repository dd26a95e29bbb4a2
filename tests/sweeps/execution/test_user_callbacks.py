import logging
import pickle
import threading
from typing import Any

import pytest
from ray.tune import Callback

from sweeps import Sweep
from sweeps.execution.user_callbacks import HOOKS, guarded

PLAN: Any = object()
"""A callback without `use_plan` has nothing to do with it."""


class Hears(Callback):  # type: ignore[misc]
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
    (callback,) = guarded([own := Hears()], PLAN)
    callback.setup(num_samples=3)
    callback.on_trial_result(iteration=1, trials=[], trial="a", result={"loss": 1.0})
    callback.on_trial_complete(iteration=1, trials=[], trial="a")
    assert own.heard == [("setup", {"num_samples": 3}), ("a", {"loss": 1.0})]


def test_one_that_fails_costs_a_line_and_no_training(caplog: pytest.LogCaptureFixture) -> None:
    (callback,) = guarded([own := Hears()], PLAN)
    with caplog.at_level(logging.WARNING, logger="ktrain.callbacks"):
        for iteration in (1, 2, 3):
            callback.on_trial_result(iteration=iteration, trials=[], trial="a", result={})
    assert len(own.heard) == 2
    (line,) = caplog.messages
    assert line == "callback Hears: on_trial_result: RuntimeError: no network; it is not called again"


def test_ray_may_save_one_that_cannot_be_saved() -> None:
    (callback,) = guarded([own := Hears()], PLAN)
    own.heard.append(("a lock", threading.Lock()))
    with pytest.raises(TypeError):
        pickle.dumps(own)
    assert b"Hears" not in pickle.dumps(callback)
    # Other callbacks hold the plan, and with it the sweep.
    sweep = Sweep("s", {"seed": 1}, callbacks=(own,))
    assert pickle.loads(pickle.dumps(sweep)) == sweep and sweep.callbacks == (own,)


def test_the_plan_goes_to_those_that_ask_for_it(caplog: pytest.LogCaptureFixture) -> None:
    class Asks(Hears):
        def use_plan(self, plan: Any) -> None:
            self.heard.append(("plan", plan))
            raise OSError("no room")

    _, callback = guarded([plain := Hears(), own := Asks()], PLAN)
    callback.on_trial_complete(iteration=1, trials=[], trial="a")
    assert not plain.heard and own.heard == [("plan", PLAN)]
    assert caplog.messages == ["callback Asks: use_plan: OSError: no room; it is not called again"]
