"""Progress of a stage: the lines of its curve, and the reporter that carries them from the training loop to a sink."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

LINES = 100
"""Lines of a stage's curve, or one per step where it has fewer steps."""
EVALUATIONS = 60
"""Most evaluations of a training that asks for them. Each takes as long as about forty steps of the miniature."""
FIRST_EVALUATION = 1e-3
"""The share of the training after which the first of them comes."""


@dataclass(frozen=True)
class Progress:
    """One line of a stage's curve, which the live view shows too. `loss` is the mean over targets, in nats.

    `tokens` and `seconds` count training from the stage's first step on, without the compilation at each start.
    `members` holds the loss of each stacked adapter, whose mean is `loss`; it is empty where one network is trained.
    `apart` is the current number of seconds between two checkpoints.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
    members: tuple[float, ...] = ()
    apart: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all ranks per second; 0 before anything was timed."""
        return self.tokens / self.seconds if self.seconds else 0.0


Sink = Callable[[str, Progress], bool | None]
"""Receives a stage's key and its progress; returns True if this worker must stop. Every rank calls it at the same
steps; the answer of rank 0 counts."""


@dataclass(frozen=True)
class Reporter:
    """Sends the progress of one stage to `sink`. Where a stage trains in `parts` one after another, as it does with
    batches of adapters, the sink sees the steps of all of them. `check` runs before each report and may raise."""

    sink: Sink
    stage: str = ""
    part: int = 0
    parts: int = 1
    check: Callable[[], None] | None = None

    def for_stage(self, key: str) -> "Reporter":
        """Returns a reporter of another stage."""
        return replace(self, stage=key)

    def for_part(self, part: int, parts: int) -> "Reporter":
        """Returns a reporter of part `part`, counted from 0, of a stage in `parts`."""
        return replace(self, part=part, parts=parts)

    def checked_by(self, check: Callable[[], None]) -> "Reporter":
        """Returns a reporter that runs `check` before each report."""
        return replace(self, check=check)

    def report(self, progress: Progress) -> bool:
        """Sends progress; returns True if this worker must stop. Raises what `check` raises."""
        if self.check:
            self.check()
        step, steps = self.part * progress.steps + progress.step, self.parts * progress.steps
        return bool(self.sink(self.stage, replace(progress, step=step, steps=steps)))


def as_result(stage: str, progress: Progress) -> dict[str, Any]:
    """Returns progress as a result of Ray; `from_result` reads it."""
    return {"stage": stage, **curve_records([progress])[0]}


def from_result(result: Mapping[str, Any]) -> tuple[str, Progress]:
    """Returns the stage's key and the progress of a result of `as_result`, to which Ray adds fields of its own."""
    return str(result["stage"]), _progress({field.name: result[field.name] for field in fields(Progress)})


def lines_apart(steps: int) -> int:
    """Returns how many steps lie between two lines of the curve of a stage of `steps` steps."""
    return max(1, steps // LINES)


class CurveLog:
    """The curve of a stage: one line every `every` steps, and one after the last of `steps` steps."""

    def __init__(self, steps: int, every: int, lines: Sequence[Progress] = ()) -> None:
        self.lines = list(lines)
        self._steps, self._every = steps, every

    def takes(self, step: int) -> bool:
        """Whether the curve has a line after `step` steps."""
        return step % self._every == 0 or step == self._steps

    def add(self, progress: Progress) -> None:
        """Adds a line, if the curve has one at this step."""
        if self.takes(progress.step):
            self.lines.append(progress)


@cache
def evaluation_steps(steps: int) -> frozenset[int]:
    """Returns the steps after which a training of `steps` steps is evaluated, the last one among them.

    They are evenly spaced in the logarithm, because accuracies move early: two thirds of them lie in the first tenth.
    """
    shares = (FIRST_EVALUATION ** (k / (EVALUATIONS - 1)) for k in range(EVALUATIONS))
    return frozenset(max(1, round(steps * share)) for share in shares)


def curve_records(curve: Sequence[Progress]) -> list[dict[str, Any]]:
    """Returns a curve as it is stored beside a result."""
    return [{**asdict(line), "tokens_per_second": line.tokens_per_second} for line in curve]


def curve_of(record: Mapping[str, Any]) -> list[Progress]:
    """Returns the curve that the record of a checkpoint holds."""
    return [_progress(line) for line in record["curve"]]


def _progress(line: Mapping[str, Any]) -> Progress:
    return Progress(**{**line, "members": tuple(line["members"])})
