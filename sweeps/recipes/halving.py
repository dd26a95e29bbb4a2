"""Successive halving: which samples of a search train on at a rung, and which stop early there.

The rule is that of ASHA (Li et al., A system for massively parallel hyperparameter tuning, 2020), but samples are
compared in the order of their numbers, not in that in which their results arrive: at each rung, a sample goes on if it
is among the best third of those up to its own number. So what becomes of it follows from the losses alone, however many
trials run at once and however often a run is interrupted, and more samples leave the first ones as they were. Ray
Tune's own `ASHAScheduler` decides by what happens to have been reported, and ends a trial's process in mid-step.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ktrain.config import CellConfig
from ktrain.fingerprint import digest, flatten
from ktrain.training.progress import lines_apart
from sweeps.recipes.optuna_proposals import StoppedEarly

SCHEDULERS = ("asha",)
REDUCTION = 3
"""Of so many samples, one goes on at each rung."""
DIVISORS = (9, 3)
"""Rungs lie at the step count over each of these."""

LossAfter = Callable[[CellConfig, int], float | None]
"""Returns the loss of a cell's pretraining after so many steps; infinite where it has diverged before, None where it is
not known yet."""


@dataclass(frozen=True)
class Fate:
    """What a scheduler has decided about a cell, as far as it can by now; without one, every cell trains to the end."""

    step: int | None = None
    """The rung at which it stops, or to which it trains now; None for the end."""
    stopped: bool = False
    waits: bool = False
    """Whether it is at the rung, and waits for samples before it."""
    loss: float | None = None
    """The loss with which it was stopped, the mean over seeds."""
    scheduler: str = ""

    @property
    def told(self) -> StoppedEarly | None:
        """What a searcher is told of a sample that was stopped; None where it has failed."""
        if not self.stopped or self.step is None or self.loss is None or self.loss == math.inf:
            return None
        return StoppedEarly(self.step, self.loss)

    def state(self, steps: int) -> str:
        """Returns the state of a cell of `steps` steps that is stopped or waits."""
        place = f"at step {self.step:,} of {steps:,}"
        if self.stopped:
            return f"stopped early: {place} by {self.scheduler}"
        return f"paused: {place}, until {self.scheduler} knows the samples before it"

    @property
    def reach(self) -> tuple[bool, int, bool, bool]:
        """Sorts fates by how far they let a cell train."""
        return self.step is None, self.step or 0, not self.stopped, not self.scheduler


TO_THE_END = Fate()


def rungs(steps: int) -> tuple[int, ...]:
    """Returns the steps at which samples are compared, each with a line in the curve of a training of `steps` steps."""
    apart = lines_apart(steps)
    return tuple(sorted({steps // divisor // apart * apart for divisor in DIVISORS} - {0}))


class Bracket:
    """The samples of one point of a grid, which are compared with each other. They are added in order; all have the
    same number of steps."""

    def __init__(self, loss_after: LossAfter) -> None:
        self._loss_after = loss_after
        self._reached: dict[int, list[float]] = {}
        """The losses of samples at each rung."""
        self._incomplete: int | float = math.inf
        """The first rung at which a sample is missing; at it and after it, nobody can be ranked."""
        self._fates: dict[tuple[CellConfig, ...], Fate] = {}

    def add(self, sample: Sequence[CellConfig]) -> Fate:
        """Returns what becomes of the next sample, whose cells differ in their seed alone; of one that was added
        before, the same again."""
        cells = tuple(sample)
        if cells not in self._fates:
            self._fates[cells] = self._decide(cells)
            fate = self._fates[cells]
            if fate.step is not None and not fate.stopped:
                self._incomplete = min(self._incomplete, fate.step)
        return self._fates[cells]

    def _decide(self, cells: tuple[CellConfig, ...]) -> Fate:
        steps = cells[0].train.steps
        for rung in rungs(steps):
            loss = self._mean_loss(cells, rung)
            if loss is None:
                return Fate(rung)
            if loss == math.inf:
                return Fate(rung, stopped=True, loss=loss)
            if rung >= self._incomplete:
                return Fate(rung, waits=True)
            reached = self._reached.setdefault(rung, [])
            reached.append(loss)
            if loss > sorted(reached)[math.ceil(len(reached) / REDUCTION) - 1]:
                return Fate(rung, stopped=True, loss=loss)
        # Past the last rung nothing is compared, but a training may still diverge.
        diverged = self._mean_loss(cells, steps) == math.inf
        return Fate(steps, stopped=True, loss=math.inf) if diverged else TO_THE_END

    def _mean_loss(self, cells: tuple[CellConfig, ...], step: int) -> float | None:
        losses = [self._loss_after(cell, step) for cell in cells]
        if math.inf in losses:
            return math.inf
        known = [loss for loss in losses if loss is not None]
        return math.fsum(known) / len(known) if len(known) == len(losses) else None


def fates(cells: Iterable[CellConfig], drawn: Collection[str], loss_after: LossAfter) -> dict[CellConfig, Fate]:
    """Returns what becomes of the cells of a search, in their order, whose axes `drawn` it has drawn."""
    points: dict[str, dict[str, list[CellConfig]]] = {}
    for cell in cells:
        axes = flatten(cell.model_dump(mode="json"))
        of_sample = {axis: axes.pop(axis) for axis in drawn}
        axes.pop("seed")
        points.setdefault(digest(axes), {}).setdefault(digest(of_sample), []).append(cell)
    decided = {}
    for samples in points.values():
        bracket = Bracket(loss_after)
        for sample in samples.values():
            fate = replace(bracket.add(sample), scheduler="asha")
            for cell in sample:
                at_rung = fate.step is not None and not fate.stopped and loss_after(cell, fate.step) is not None
                decided[cell] = replace(fate, waits=fate.waits or at_rung)
    return decided
