"""Delivery while a sweep runs: what a trial has finished is in MLflow soon after, and no trial waits for that."""

import threading
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from sweeps.plan import Plan
from sweeps.tracking import Tracker, deliver

PAUSE = 60.0
"""Seconds after which what could not be delivered is tried again, if no other trial ends before."""


class Delivery(Callback):  # type: ignore[misc]
    """Hears from Ray Tune how trials end, and delivers their cells in a thread of its own.

    What fails is told once and kept: it is tried again with the next trial that ends, and by the last delivery of the
    driver, which begins when this one has ended.
    """

    def __init__(self, tracker: Tracker, plan: Plan, tell: Callable[[str], None]) -> None:
        self._tracker, self._plan, self._tell = tracker, plan, tell
        # What an earlier driver has finished and perhaps not delivered.
        self._waiting = {cell.key for cell in plan.cells if cell.state == "done"}
        self._news, self._closing, self._told = threading.Event(), threading.Event(), False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune saves its callbacks, and no other process delivers for this one."""
        return {}

    def __enter__(self) -> "Delivery":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._news.set()
        self._thread.join()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; some of its cells may be done."""
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        with self._lock:
            name = trial.config["trial"]["name"]
            self._waiting |= {cell.key for cell in self._plan.cells if cell.stages[1].key == name}
        self._news.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._news.clear()
            with self._lock:
                keys = set(self._waiting)
            if keys:
                if (line := deliver(self._tracker, self._plan.again(keys), last=False)) is None:
                    with self._lock:
                        self._waiting -= keys
                elif not self._told:
                    self._told = True
                    self._tell(line)
            self._news.wait(PAUSE)
