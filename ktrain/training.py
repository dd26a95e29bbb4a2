"""The training loop: the same for pretraining, mixed training and finetuning."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ktrain.device import moved
from ktrain.engine import Engine
from ktrain.resume import Point, ResumePoints

Batches = Callable[[int], tuple[Tensor, ...]]
"""The batch of this rank at a step: token ids and target weights, on any device."""


@dataclass(frozen=True)
class Progress:
    """One line of a stage's curve, and what the live view shows. `loss` is the mean over targets, in nats.

    `members` are the losses of a fleet's members, whose mean is `loss`; empty where one network is trained. `apart` is
    how many seconds lie between two resume points now.
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
        """Tokens of all ranks a second, the compilation at each start left out."""
        return self.tokens / self.seconds if self.seconds else 0.0


Report = Callable[[Progress], bool | None]
"""Takes news, and says whether this place has to be left; rank 0's answer counts."""
WATCHED = 4
"""A line in so many of a curve is looked at more closely, where that is asked for."""
LOOK = 5.0
"""Seconds between two looks up from the work where the lines of a curve lie further apart."""
FIRST_LOOK = 16
"""Steps to the first look, when nothing is known of their time."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine or a line to `final` of the peak (paper, appendices B and C)."""

    peak: float
    final: float
    warmup: int
    steps: int
    decay: str = "cosine"

    def rate(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.peak * (self.final + (1 - self.final) * left)


class Diverged(RuntimeError):
    """The loss is no longer a finite number; of a fleet, that of no member."""


class Leaving(Exception):
    """This place had to be left; there is a resume point to go on from elsewhere."""


def train(
    engine: Engine,
    batches: Batches,
    schedule: Schedule,
    tokens_per_step: int,
    points: ResumePoints,
    report: Report,
    *,
    resumed: Point | None,
    every: int,
    apart: Callable[[float | None], float],
    watch: Callable[[int], None] | None = None,
) -> list[Progress]:
    """Runs all steps that `resumed` has not done and returns the whole curve, one `Progress` every `every` steps.

    `resumed` is the point whose weights the engine's module already holds. `apart` says how many seconds lie between
    two resume points, from those that the last one took; there is one after the last step too, because what comes then
    may take long. `watch` is called with every `WATCHED`-th line's step, and may read the weights. Raises `Diverged`,
    and `Leaving` where `report` says so.
    """
    curve = curve_of(resumed.record) if resumed else []
    first = resumed.step if resumed else 0
    if resumed:
        _restore_generator(resumed.record)
    seconds = float(resumed.record["seconds"]) if resumed else 0.0
    timed = int(resumed.record["timed"]) if resumed else 0
    cost: float | None = None
    clock = saved = time.monotonic()
    look = looked = first
    for step in range(first, schedule.steps):
        batch = tuple(moved(t, engine.device) for t in batches(step))
        if step == first and resumed:
            engine.restore(resumed.tensors, resumed.step, *batch)
            _restore_generator(resumed.record)
        loss = engine.step(*batch, learning_rate=schedule.rate(step))
        if step == first:
            # The first step compiles; the clock starts after it.
            loss.sum().item()
            clock = saved = time.monotonic()
            timed -= tokens_per_step
            look = step + FIRST_LOOK
            looked = step + 1
        timed += tokens_per_step
        done, last = step + 1, step + 1 == schedule.steps
        line = done % every == 0 or last
        if not line and done < look:
            continue
        values = _mean(loss)
        finite = [v for v in values if math.isfinite(v)]
        if not finite:
            raise Diverged(f"the loss is {values[0]} at step {done}")
        now = time.monotonic()
        value, members = sum(finite) / len(finite), tuple(values) if loss.dim() else ()
        ahead = int(LOOK * (done - looked) / max(now - clock, 1e-6))
        seconds, clock, looked = seconds + now - clock, now, done
        news = Progress(done, schedule.steps, value, schedule.rate(step), timed, seconds, members, apart(cost))
        curve += [news] if line else []
        leave = bool(report(news))
        if watch and line and (len(curve) % WATCHED == 0 or last):
            with engine.whole():
                watch(done)
            clock = time.monotonic()
        ahead, leaving, saving = agree(max(1, ahead), leave, leave or last or now - saved > apart(cost))
        look = done + ahead
        if saving:
            begin = time.monotonic()
            record = {"curve": [vars(p) for p in curve], "seconds": seconds, "timed": timed, **_generator()}
            state = engine.state()
            if not dist.get_rank():
                points.save(Point(done, state, record))
            clock = saved = time.monotonic()
            cost = saved - begin
        if leaving:
            raise Leaving(f"at step {done}")
    return curve


def curve_of(record: dict[str, Any]) -> list[Progress]:
    """The curve that a resume point holds."""
    return [Progress(**{**line, "members": tuple(line["members"])}) for line in record["curve"]]


def share(rows: Tensor, dimension: int = 0) -> Tensor:
    """This rank's rows of a batch, which lie along `dimension`."""
    if dist.get_world_size() == 1:
        return rows
    return rows.movedim(dimension, 0)[dist.get_rank() :: dist.get_world_size()].movedim(0, dimension).contiguous()


def _mean(loss: Tensor) -> list[float]:
    """The losses of the whole batch. Each rank's weights are scaled so that the mean over ranks is right."""
    if dist.get_world_size() > 1:
        loss = loss.clone()
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return [float(value) for value in loss.flatten().tolist()]


def agree(*mine: int) -> tuple[int, ...]:
    """Rank 0's answers: saving is collective, and the clocks of two ranks differ."""
    if dist.get_world_size() == 1:
        return mine
    words = torch.tensor(mine)
    if torch.cuda.is_available():
        words = words.cuda()
    dist.broadcast(words, 0)
    return tuple(words.tolist())


def _generator() -> dict[str, Any]:
    """State of the generators that dropout draws from, on each rank: rank 0 saves for all."""
    mine = {"cpu": torch.get_rng_state().tolist()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state().tolist()
    states = [mine]
    if dist.get_world_size() > 1:
        states = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(states, mine)
    return {"generators": states}


def _restore_generator(record: dict[str, Any]) -> None:
    """A rank that the run had not when it was saved keeps the stream that it was started with."""
    states = record["generators"]
    if dist.get_rank() >= len(states):
        return
    mine = states[dist.get_rank()]
    torch.set_rng_state(torch.tensor(mine["cpu"], dtype=torch.uint8))
    if "cuda" in mine and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(mine["cuda"], dtype=torch.uint8))
