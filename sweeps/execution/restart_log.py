"""Restarts of a run's trials: each is written to a file beside the report, and the end of the run sums them up."""

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.tune import Callback

from ktrain.restart_policy import Interruption, Kind

INTERRUPTION = "setback"
"""The field of a result by which a trial's driver reports an interruption to Ray Tune instead of progress."""
DRIVER_RESTARTS = 10
"""How often Ray Tune gives a trial whose driver is gone another one."""


def interruption_result(interruption: Interruption) -> dict[str, Any]:
    """Returns an interruption as a result of a trial."""
    return {INTERRUPTION: asdict(interruption)}


def interruption_of(result: dict[str, Any]) -> Interruption | None:
    """Returns the interruption that a result of a trial reports, None if it reports progress."""
    return Interruption(**result[INTERRUPTION]) if INTERRUPTION in result else None


class RestartLog(Callback):  # type: ignore[misc]
    """Receives interruptions from Ray Tune and appends each to `file`, as a line of JSON with time, trial, kind and
    reason."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kinds: Counter[str] = Counter()
        self._trials: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray Tune saves its callbacks, and no other process continues with them."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial's driver reported. If it has given up, Ray Tune does not restart the trial either."""
        interruption = interruption_of(result)
        if interruption and interruption.kind == Kind.GIVEN_UP:
            trial.max_failures = 0
        elif interruption:
            self._note(trial, interruption.kind, interruption.line)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune gives a trial another driver."""
        self._note(trial, Kind.DRIVER_LOST, "the process that waits for its workers ended")

    def summary(self) -> str | None:
        """Returns one line about all restarts, None if there were none."""
        if not self._kinds:
            return None
        trials = f"{len(self._trials)} {'trial was' if len(self._trials) == 1 else 'trials were'}"
        reasons = ", ".join(f"{kind} {count}x" for kind, count in self._kinds.most_common())
        return (
            f"{trials} restarted, {self._kinds.total()}x in all, from the latest checkpoints: {reasons} ({self._file})"
        )

    def _note(self, trial: Any, kind: str, line: str) -> None:
        name = str(trial.config["trial"]["name"])
        self._kinds[kind] += 1
        self._trials.add(name)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": at, "trial": name, "kind": kind, "line": line}) + "\n")
