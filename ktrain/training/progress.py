"""Progress of a stage: the lines of its curve, and the reporter that carries them from the training loop to a sink."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any

LINES = 100
"""Lines of a stage's curve, or one per step where it has fewer steps."""
EVALUATIONS = 60
"""Most evaluations of a training that asks for them. Each takes as long as about forty steps of the miniature."""
DIVERGED = "Diverged: "
"""How the noted failure of a stage begins whose loss was no longer finite (`ktrain.training.loop.Diverged`)."""
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


@dataclass(frozen=True)
class StageLine:
    """What one line of progress adds to the curves of one stage.

    `loss` is that of the stage's curve in the store; it is None where adapters of the stage train in later batches, so
    that their mean is not known yet. `tasks` holds the loss of each adapter that trains now, by its name, where a stage
    has several.
    """

    step: int
    learning_rate: float
    seconds: float
    loss: float | None
    tasks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StackProgress(Progress):
    """Progress of stacked adapters, and the `lines` that it adds to the curves of their stages, by the stage's key:
    none at a step of which the curves have no line. `members` is empty, so that a report stays small."""

    lines: Mapping[str, StageLine] = field(default_factory=dict)


Lines = Callable[[Progress], Mapping[str, StageLine]]
"""Divides the progress of stacked adapters among their stages."""
Sink = Callable[[str, Progress], bool | None]
"""Receives a stage's key and its progress; returns True if this worker must stop. Every rank calls it at the same
steps; the answer of rank 0 counts."""


def pausing(sink: Sink, step: int) -> Sink:
    """Returns a sink that also tells the worker to stop once `step` steps are done."""

    def send(stage: str, progress: Progress) -> bool:
        return bool(sink(stage, progress)) or progress.step >= step

    return send


@dataclass(frozen=True)
class Reporter:
    """Sends the progress of one stage to `sink`. Where adapters train in `parts` one after another, the sink sees the
    steps of all of them, with the `lines` of each stage. `check` runs before each report and may raise."""

    sink: Sink
    stage: str = ""
    part: int = 0
    parts: int = 1
    lines: Lines | None = None
    check: Callable[[], None] | None = None

    def for_stage(self, key: str) -> "Reporter":
        """Returns a reporter of another stage."""
        return replace(self, stage=key)

    def for_batch(self, part: int, parts: int, lines: Lines) -> "Reporter":
        """Returns a reporter of a batch of stacked adapters, number `part`, counted from 0, of `parts`."""
        return replace(self, part=part, parts=parts, lines=lines)

    def pausing_at(self, step: int) -> "Reporter":
        """Returns a reporter by which the worker has to stop once `step` steps are done."""
        return replace(self, sink=pausing(self.sink, step))

    def checked_by(self, check: Callable[[], None]) -> "Reporter":
        """Returns a reporter that runs `check` before each report."""
        return replace(self, check=check)

    def report(self, progress: Progress) -> bool:
        """Sends progress; returns True if this worker must stop. Raises what `check` raises."""
        if self.check:
            self.check()
        step, steps = self.part * progress.steps + progress.step, self.parts * progress.steps
        shown = replace(progress, step=step, steps=steps)
        if self.lines:
            shown = StackProgress(**{**vars(shown), "members": ()}, lines=self.lines(progress))
        return bool(self.sink(self.stage, shown))


def as_result(stage: str, progress: Progress) -> dict[str, Any]:
    """Returns progress as a result of Ray; `from_result` reads it."""
    return {"stage": stage, **curve_records([progress])[0]}


def from_result(result: Mapping[str, Any]) -> tuple[str, Progress]:
    """Returns the stage's key and the progress of a result of `as_result`, to which Ray adds fields of its own."""
    stage, progress = str(result["stage"]), _progress({part.name: result[part.name] for part in fields(Progress)})
    if "lines" not in result:
        return stage, progress
    return stage, StackProgress(**vars(progress), lines={k: StageLine(**line) for k, line in result["lines"].items()})


def stage_lines(stage: str, progress: Progress) -> Mapping[str, StageLine]:
    """Returns what progress that was reported under the key `stage` adds to curves, by the key of their stage; nothing
    at a step of which they have no line in the store."""
    if isinstance(progress, StackProgress):
        return progress.lines
    if not on_curve(progress.step, progress.steps):
        return {}
    return {stage: StageLine(progress.step, progress.learning_rate, progress.seconds, progress.loss)}


def lines_apart(steps: int) -> int:
    """Returns how many steps lie between two lines of the curve of a stage of `steps` steps."""
    return max(1, steps // LINES)


def on_curve(step: int, steps: int) -> bool:
    """Whether the curve of a stage of `steps` steps has a line after `step` of them."""
    return step % lines_apart(steps) == 0 or step == steps


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
