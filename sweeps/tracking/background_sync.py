"""Synchronises MLflow while a sweep runs: curves as they grow, cells soon after each trial ends; no trial waits."""

import threading
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from ktrain.training.progress import from_result, stage_lines
from sweeps.execution.restart_log import interruption_of
from sweeps.planning.plan import Plan
from sweeps.tracking.live_curves import LiveCurves
from sweeps.tracking.server_errors import reason
from sweeps.tracking.sync import LATER, Tracker, sync_with_retry

LIVE_SECONDS = 5.0
"""Seconds between two deliveries of curves."""
RETRY_SECONDS = 60.0
"""Seconds until a failed delivery is retried if no other trial ends before."""


class BackgroundSync(Callback):  # type: ignore[misc]
    """A Ray Tune callback that writes curves of running stages, and cells of ended trials, to MLflow in a thread of its
    own.

    It reports the first failure by `warn` and keeps what failed: it retries that when the next trial ends or after
    `RETRY_SECONDS`, and the driver's last sync, which begins when this one has ended, covers the rest.
    """

    def __init__(self, tracker: Tracker, plan: Plan, warn: Callable[[str], None]) -> None:
        self._tracker, self._plan, self._warn = tracker, plan, warn
        self._curves = LiveCurves(tracker, plan)
        self._begun: set[str] = set()
        # An earlier driver may have finished cells without writing them.
        self._pending = {cell.key for cell in plan.cells if cell.state == "done"}
        self._wake, self._closing, self._warned = threading.Event(), threading.Event(), False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="background-sync", daemon=True)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Ray Tune pickles its callbacks, and no other process continues this one's work."""
        return {}

    def __enter__(self) -> "BackgroundSync":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported progress; with the first of a stage, its cells run and the stages before it are done."""
        if interruption_of(result):
            return
        key, progress = from_result(result)
        self._curves.add(key, progress)
        if begun := {key, *stage_lines(key, progress)} - self._begun:
            self._begun |= begun
            self._enqueue(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._enqueue(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed; some of its cells may be done."""
        self._enqueue(trial)

    def _enqueue(self, trial: Any) -> None:
        with self._lock:
            name = trial.config["trial"]["name"]
            self._pending |= {cell.key for cell in self._plan.cells if cell.stages.pretrain.key == name}
        self._wake.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            failure = self._send_curves()
            failure = self._sync_cells() or failure
            if failure and not self._warned:
                self._warned = True
                self._warn(failure)
            self._wake.wait(RETRY_SECONDS if failure else LIVE_SECONDS)

    def _send_curves(self) -> str | None:
        """Returns None, or the line that says why it failed."""
        try:
            self._curves.send()
        except Exception as e:
            return f"{reason(self._tracker.uri, e)}{LATER}"
        return None

    def _sync_cells(self) -> str | None:
        """Returns None, or the line that says why it failed."""
        with self._lock:
            keys, self._pending = self._pending, set()
        if not keys:
            return None
        plan = self._plan.refreshed(keys)
        if failure := sync_with_retry(self._tracker, plan, last=False):
            with self._lock:
                self._pending |= keys
            return failure
        self._curves.drop(plan.snapshot.done)
        return None
