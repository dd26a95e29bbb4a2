"""The setbacks of a run: what was begun again and why, told in one line at the end and kept beside the report."""

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.tune import Callback

from ktrain.setbacks import Setback

AGAIN = "setback"
"""The field of a result in which a trial's driver tells Ray Tune of a setback instead of progress."""
OVER = "given up"
"""The kind of the last setback of a trial, which no other start follows."""
DRIVER = "driver lost"
"""The kind of what Ray Tune itself sees: the process that waits for the workers of a trial is gone."""
DRIVERS = 10
"""How often a trial whose driver is gone gets another one."""


def result(setback: Setback) -> dict[str, Any]:
    """A setback as a result of a trial."""
    return {AGAIN: asdict(setback)}


class Setbacks(Callback):  # type: ignore[misc]
    """Hears of setbacks from Ray Tune and writes each to `file`, a line of JSON with time, trial, kind and reason."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kinds: Counter[str] = Counter()
        self._trials: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune saves its callbacks, and no other process goes on with them."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial's driver reported; what it gives up is not begun again by Ray Tune either."""
        if not (about := result.get(AGAIN)):
            return
        if about["kind"] == OVER:
            trial.max_failures = 0
        else:
            self._note(trial, about["kind"], about["line"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune gives a trial another driver."""
        self._note(trial, DRIVER, "the process that waits for its workers ended")

    def told(self) -> str | None:
        """All of them in one line; None where there were none."""
        if not self._kinds:
            return None
        times, trials = self._kinds.total(), len(self._trials)
        why = ", ".join(f"{kind} {count}x" for kind, count in self._kinds.most_common())
        which = f"{trials} {'trial was' if trials == 1 else 'trials were'} begun again"
        return f"{which}, {times}x in all, from the latest resume points: {why} ({self._file})"

    def _note(self, trial: Any, kind: str, line: str) -> None:
        name = str(trial.config["trial"]["name"])
        self._kinds[kind] += 1
        self._trials.add(name)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": at, "trial": name, "kind": kind, "line": line}) + "\n")
