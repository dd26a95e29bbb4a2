"""Failures: what trials died of, told once for all that died of it, and the breaker that stops a run of such trials."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper

from sweeps.plan import Plan, PlannedCell

FIRST = 3
"""A run stops where so many trials have ended and all have failed with one error."""
SHOWN = 10
"""How many cells are named of those that one error has cost; `ktrain status` names all."""
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
    """What a trial died of, in one line, and the cells that it leaves undone by that."""

    error: str
    cells: tuple[PlannedCell, ...]

    @property
    def sort(self) -> str:
        """The error without numbers, paths and keys; of a guard its name: what is alike in failures of one cause."""
        guard = _GUARD.match(self.error)
        return guard[0] if guard else _VARYING.sub("#", self.error)


def failure(plan: Plan, trial: str, text: str) -> Failure:
    """The failure of a trial from what Ray says of it: the line that a stage has left where `text` has it, else the
    last line of `text`."""
    cells = plan.trials()[trial]
    for stage in dict.fromkeys(stage.key for cell in cells for stage in cell.stages):
        line = plan.store.failure(stage)
        if line and line in text:
            return Failure(line, tuple(c for c in cells if stage in {s.key for s in c.stages}))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Failure(lines[-1] if lines else "no message", cells)


def told(plan: Plan, failures: Sequence[Failure]) -> list[str]:
    """Each error once, with the cells that it has cost and what these have in common."""
    groups: dict[str, list[Failure]] = {}
    for one in failures:
        groups.setdefault(one.sort, []).append(one)
    lines = []
    for group in groups.values():
        cells = [cell for one in group for cell in one.cells]
        lines.append(f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} failed: {group[0].error}")
        lines += [f"  {cell.key}" for cell in cells[:SHOWN]]
        lines += [f"  and {len(cells) - SHOWN} more"] if len(cells) > SHOWN else []
        lines += [f"  {line}" for line in shared(plan, cells)]
    return lines


def shared(plan: Plan, failed: Sequence[PlannedCell]) -> list[str]:
    """The varied axes that several cells have in common and other cells lack: those that no other has, or else all,
    the rarest first."""
    others = [cell for cell in plan.cells if cell not in failed]
    if len(failed) < 2 or not others:
        return []
    alike = {axis: failed[0].axes[axis] for axis in plan.varied() if len({str(c.axes[axis]) for c in failed}) == 1}
    having = {axis: sum(c.axes[axis] == value for c in others) for axis, value in alike.items()}
    if alone := [f"{axis}={alike[axis]}" for axis, count in having.items() if not count]:
        return [f"all have, and no other cell has: {', '.join(alone)}"]
    return [
        f"all have, as {having[axis]} of the {len(others)} other cells: {axis}={alike[axis]}"
        for axis in sorted(having, key=lambda axis: having[axis])
        if having[axis] < len(others)
    ]


class Breaker(Callback, Stopper):  # type: ignore[misc]
    """Hears from Ray Tune how trials end, and stops all where the first `FIRST` have failed with one error."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._trials = plan, set(plan.trials())
        self._begun: set[str] = set()
        self._ended: list[Failure | None] = []

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune saves its callbacks and its stopper, and no other process goes on with them."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No result is a reason to stop a trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop what runs and to start nothing more."""
        first = self._ended[:FIRST]
        alike = {one.sort if one else None for one in first}
        return len(first) == FIRST < len(self._trials) and len(alike) == 1 and None not in alike

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune began a trial."""
        self._begun.add(trial.config["trial"]["name"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """All stages of a trial are done."""
        self._ended.append(None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed."""
        text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        self._ended.append(failure(self._plan, trial.config["trial"]["name"], text))

    def told(self) -> list[str]:
        """All failures, and where the run was stopped, that it was and how to continue; empty where all is well."""
        lines = told(self._plan, [one for one in self._ended if one])
        if not self.stop_all():
            return lines
        running, waiting = len(self._begun) - len(self._ended), len(self._trials - self._begun)
        return [
            *lines,
            f"stopped, because the first {FIRST} trials to end have all failed so; "
            f"{running} more had begun and were stopped, {waiting} not started",
            "what is done and every resume point are kept: without the cause, the same command continues; "
            "axis=value runs other cells",
        ]
