"""Failures of trials, reported once for each error, and the breaker that stops a run whose first trials share one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper

from sweeps.planning.plan import Plan, PlannedCell

FIRST_TRIALS = 3
"""A run stops if this many trials have ended and all have failed with one error."""
CELLS_SHOWN = 10
"""Cells listed for each error; `ktrain status` lists all."""
_GUARD = re.compile(r"GuardFailure: guard [^:]+")
_VARYING = re.compile(
    r"(?:[\w.~+-]*/)+[\w.~+-]*"  # paths
    r"|[\w.+-]+-[0-9a-f]{8}\b"  # keys
    r"|\b(?:0x)?[0-9a-f]{8,}\b"
    r"|-?\b(?:nan|inf)\b"
    r"|-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"
)


@dataclass(frozen=True)
class Failure:
    """The error of a trial, in one line, and the cells that it leaves undone."""

    error: str
    cells: tuple[PlannedCell, ...]

    @property
    def signature(self) -> str:
        """The error without numbers, paths and keys, or the name of a guard: equal for failures of one cause."""
        guard = _GUARD.match(self.error)
        return guard[0] if guard else _VARYING.sub("#", self.error)


def failure_of(plan: Plan, trial: str, text: str) -> Failure:
    """Returns the failure of a trial from Ray's error text: the error that a stage has noted if `text` contains it,
    else the last line of `text`."""
    cells = plan.trials()[trial]
    for stage in dict.fromkeys(stage.key for cell in cells for stage in cell.stages):
        line = plan.store.failure(stage)
        if line and line in text:
            return Failure(line, tuple(c for c in cells if stage in {s.key for s in c.stages}))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Failure(lines[-1] if lines else "no message", cells)


def failure_lines(plan: Plan, failures: Sequence[Failure]) -> list[str]:
    """Returns lines that name each error once, with the cells that failed with it and what these have in common."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(failure.signature, []).append(failure)
    lines = []
    for group in groups.values():
        cells = [cell for failure in group for cell in failure.cells]
        lines.append(f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} failed: {group[0].error}")
        lines += [f"  {cell.key}" for cell in cells[:CELLS_SHOWN]]
        lines += [f"  and {len(cells) - CELLS_SHOWN} more"] if len(cells) > CELLS_SHOWN else []
        lines += [f"  {line}" for line in common_axes(plan, cells)]
    return lines


def common_axes(plan: Plan, failed: Sequence[PlannedCell]) -> list[str]:
    """Returns lines about the axis values that all failed cells share and other cells lack: those that no other cell
    has, or if there are none, all of them, the rarest first. Nothing for one cell."""
    others = [cell for cell in plan.cells if cell not in failed]
    if len(failed) < 2 or not others:
        return []
    shared = {axis: failed[0].axes[axis] for axis in plan.varied() if len({str(c.axes[axis]) for c in failed}) == 1}
    elsewhere = {axis: sum(c.axes[axis] == value for c in others) for axis, value in shared.items()}
    if unique := [f"{axis}={shared[axis]}" for axis, count in elsewhere.items() if not count]:
        return [f"all have, and no other cell has: {', '.join(unique)}"]
    return [
        f"all have, and so do {elsewhere[axis]} of the {len(others)} other cells: {axis}={shared[axis]}"
        for axis in sorted(elsewhere, key=lambda axis: elsewhere[axis])
        if elsewhere[axis] < len(others)
    ]


class CircuitBreaker(Callback, Stopper):  # type: ignore[misc]
    """Receives the ends of trials from Ray Tune, and stops the run if the first `FIRST_TRIALS` fail with one error."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._trials = plan, set(plan.trials())
        self._begun: set[str] = set()
        self._ended: list[Failure | None] = []

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray Tune saves its callbacks and its stopper, and no other process continues with them."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No result is a reason to stop a trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop the trials that run and to start no more."""
        first = self._ended[:FIRST_TRIALS]
        signatures = {failure.signature if failure else None for failure in first}
        return len(first) == FIRST_TRIALS < len(self._trials) and len(signatures) == 1 and None not in signatures

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune began a trial."""
        self._begun.add(trial.config["trial"]["name"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._ended.append(None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        self._ended.append(failure_of(self._plan, trial.config["trial"]["name"], text))

    def report(self) -> list[str]:
        """Returns lines about all failures and, if the run was stopped, how to continue; none if nothing failed."""
        lines = failure_lines(self._plan, [failure for failure in self._ended if failure])
        if not self.stop_all():
            return lines
        running, waiting = len(self._begun) - len(self._ended), len(self._trials - self._begun)
        return [
            *lines,
            f"stopped, because the first {FIRST_TRIALS} trials to end all failed with this error; "
            f"{running} more had begun and were stopped, {waiting} not started",
            "results and checkpoints are kept: once the cause is gone, the same command continues; "
            "axis=value runs other cells",
        ]
