"""Search: the settings that are drawn from Ray Tune's distributions when a sweep is expanded.

A random draw is a pure function of the sweep's name, its `search_seed`, the sample's number and the axis. So a sweep
has the same cells whenever it is expanded, more samples leave the first ones as they were, and another axis does, too.
What Optuna proposes is a pure function of these and of the results of earlier samples, which the store keeps.
"""

import importlib.util
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ktrain.config import MASKING, CellConfig
from ktrain.errors import WrongRequest, nearest, shorten
from ktrain.readout.kinds.base import kind_of as readout_kind
from ktrain.rng import generator
from sweeps.planning.axes import check_axis
from sweeps.recipes.distributions import describe, draw, ends_of, is_distribution, is_drawable, kind_of
from sweeps.recipes.halving import SCHEDULERS, rungs
from sweeps.recipes.optuna_proposals import Sample, StoppedEarly, propose

METRICS = {
    "train/loss": "lowest",
    "recall/attribute_tokens": "highest",
    "qa/exact_match/train/mean": "highest",
    "mixed/exact_match/train/mean": "highest",
    "qa/exact_match/validation/mean": "highest",
    "mixed/exact_match/validation/mean": "highest",
}
"""The metrics by which the best sample may be chosen, and which value is best. None rests on an answer about the people
whose answers are reported."""
SET_ASIDE = "/validation/"
"""What the name of a metric about people who are set aside to choose by contains (`corpus.validation_share`)."""
SEARCHERS = ("random", "optuna")
STARTUP, ROUND = 8, 4
"""Optuna proposes from the results of so many random samples, and then so many at a time."""
MOST_SAMPLES = 100_000
UNDRAWN = ("seed", "readout.kind", "corpus.validation_share")
"""Axes whose values are no settings to choose the best of: every sample has all seeds and kinds of readout, and is
chosen by the same people."""
READ = ("corpus.", "train.qa_ratio", "train.windows", "train.context", "train.mask", "model.start")
"""Axes that change what a network reads, or in which tokens, so that the losses of two samples are of other texts."""
_DRAWABLE = "tune.uniform, loguniform, randint, lograndint, their quantized forms and choice can"


@dataclass(frozen=True)
class Observation:
    """What is known of the result of a sample."""

    final: bool
    """Whether it will not change any more."""
    value: float | StoppedEarly | None = None
    """The metric of the search; None where there is none, or none that counts."""


Observe = Callable[[CellConfig, str], Observation]
"""Returns what is known of a metric of a cell. `train/loss@40` is the loss of its pretraining after 40 steps, infinite
where it has diverged before."""


def unknown(cell: CellConfig, metric: str) -> Observation:
    """Knows of no result."""
    return Observation(final=False)


def loss_after(observe: Observe, cell: CellConfig, step: int) -> float | None:
    """Returns the loss of a cell's pretraining after so many steps; None where it is not known."""
    value = observe(cell, f"train/loss@{step}").value
    return value if isinstance(value, float) else None


@dataclass(frozen=True)
class Search:
    """A search of a plan."""

    part: str
    """The part of the sweep whose cells it has drawn; without parts, the sweep."""
    samples: int
    axes: tuple[str, ...]
    """The axes that are drawn."""
    metric: str
    """The metric by which the best sample is chosen; empty where all are shown."""
    searcher: str = "random"
    cells: int = 0
    """How many cells it has in the end, at most."""
    scheduler: str = ""
    """What stops samples early; empty if all train to the end."""

    @property
    def lowest(self) -> bool:
        """Whether the lowest value of the metric is the best."""
        return METRICS.get(self.metric) == "lowest"

    @property
    def chosen_on(self) -> str:
        """What the choice rests on, in words."""
        if SET_ASIDE in self.metric:
            return "people set aside for that"
        return "the training half" if "/train/" in self.metric else "what pretraining reads"

    def __str__(self) -> str:
        """Returns `8 random samples of train.learning_rate; all are reported`, for one."""
        chosen = "all are reported"
        if self.metric:
            chosen = f"the best by {self.metric} ({METRICS[self.metric]}), on {self.chosen_on}, is reported"
        if self.scheduler:
            chosen = f"{self.scheduler} stops most after a ninth or a third of their steps; {chosen}"
        axes = ", ".join(self.axes)
        if self.searcher == "random":
            return f"{self.samples} random samples of {axes}; {chosen}"
        first = min(self.samples, STARTUP)
        return f"{self.samples} samples of {axes}, {first} at random, then by Optuna {ROUND} at a time; {chosen}"


def request_fault(samples: Any, searcher: Any, metric: Any, search_seed: Any, scheduler: Any) -> str:
    """Returns the first of these fields of a sweep that is wrong, and what is allowed; empty if there is none."""
    if isinstance(samples, bool) or not isinstance(samples, int) or not 0 <= samples <= MOST_SAMPLES:
        return f"samples={shorten(samples)}: must be a whole number from 0 to {MOST_SAMPLES:,}"
    if isinstance(search_seed, bool) or not isinstance(search_seed, int) or not 0 <= search_seed < 2**31:
        return f"search_seed={shorten(search_seed)}: must be a whole number from 0, below 2**31"
    if not isinstance(metric, str) or metric not in ("", *METRICS):
        name = shorten(metric)
        held_out = "is measured on the people that are reported; " if "/test/" in name else ""
        return f"metric={name}: {held_out}must be one of {', '.join(METRICS)}{nearest(name, METRICS)}"
    if not isinstance(searcher, str) or searcher not in SEARCHERS:
        name = shorten(searcher)
        return f"searcher={name}: must be one of {', '.join(SEARCHERS)}{nearest(name, SEARCHERS)}"
    if not isinstance(scheduler, str) or scheduler not in ("", *SCHEDULERS):
        name = shorten(scheduler)
        return f"scheduler={name}: must be a text, {' or '.join(SCHEDULERS)}{nearest(name, SCHEDULERS)}"
    if not samples and (metric or search_seed or scheduler or searcher != "random"):
        return "has a metric, a searcher, a scheduler or a search_seed, which are for a search: it needs samples=N too"
    if scheduler and metric != "train/loss":
        wrong = f"{metric} is measured after the training" if metric else "it compares samples by a metric"
        return f"scheduler={scheduler}: {wrong}; a training that runs reports metric=train/loss"
    if searcher == "optuna" and not metric:
        return f"searcher=optuna: learns from a metric, which is one of {', '.join(METRICS)}"
    if searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        return "searcher=optuna: optuna is not installed: pip install -c constraints.txt -e '.[optuna]'"
    return ""


def check_metric(sweep: str, metric: str, drawn: Collection[str], cells: Iterable[CellConfig]) -> None:
    """Raises `WrongRequest` if a cell does not measure the metric of a search, and if the axes that are `drawn` change
    what it measures."""
    predicted = {"train.qa_ratio", *(f"train.{field}" for field in MASKING)}
    if metric == "train/loss" and (mixture := sorted(predicted & {*drawn})):
        raise WrongRequest(f"sweep {sweep}: metric={metric}: {mixture[0]} is drawn, which changes what the loss is of")
    prefix, cells = metric.partition("/")[0], list(cells)
    families = {cell.model.family for cell in cells}
    if metric == "train/loss" and "model.family" in drawn and "gbert" in families and len(families) > 1:
        line = "model.family is drawn, and the loss of gbert is of masked words alone"
        raise WrongRequest(f"sweep {sweep}: metric={metric}: {line}")
    if SET_ASIDE in metric and not all(cell.corpus.validation_share for cell in cells):
        line = f"metric={metric}: nobody is set aside to choose by; corpus.validation_share=0.2 would set a fifth aside"
        raise WrongRequest(f"sweep {sweep}: {line}")
    for kind in dict.fromkeys(cell.readout.kind for cell in cells):
        if prefix in ("qa", "mixed") and readout_kind(kind).metric_prefix != prefix:
            every = ", ".join(name for name in METRICS if not name.startswith(("qa/", "mixed/")))
            line = f"metric={metric}: cells of readout.kind={kind} do not measure it; all have {every}"
            raise WrongRequest(f"sweep {sweep}: {line}")


def check_scheduler(sweep: str, scheduler: str, drawn: Collection[str], cells: Iterable[CellConfig]) -> None:
    """Raises `WrongRequest` if a scheduler cannot compare the trainings of a search whose axes are `drawn`."""
    if not scheduler or not drawn:
        return
    line = ""
    if "train.steps" in drawn:
        line = "train.steps is drawn, and losses are compared after equally many steps"
    elif text := next((axis for axis in drawn if axis.startswith(READ)), ""):
        line = f"{text} is drawn, and losses are compared on the same text"
    elif all(axis.startswith("readout.") for axis in drawn):
        line = f"no axis that is drawn ({', '.join(drawn)}) changes the pretraining, which it would stop"
    elif short := next((cell.train.steps for cell in cells if not rungs(cell.train.steps)), None):
        line = f"train.steps={short}: too few to compare after a third of them"
    if line:
        raise WrongRequest(f"sweep {sweep}: scheduler={scheduler}: {line}")


def distributions(grid: Mapping[Any, Any], samples: int) -> dict[str, Any]:
    """Returns the axes of a grid that are drawn, with their distributions.

    Raises `WrongRequest` where there are samples and no such axis, or the other way round; for an axis that cannot be
    drawn from its distribution; and for a distribution that reaches beyond the axis' limits.
    """
    drawn = {axis: value for axis, value in grid.items() if is_distribution(value)}
    for axis, distribution in drawn.items():
        if not isinstance(axis, str):
            raise WrongRequest(f"{shorten(axis)}: must be the name of an axis")
        check_axis(axis)
        if not samples:
            raise WrongRequest(f"{axis}={describe(distribution)}: drawing it needs Sweep(samples=N)")
        _check(axis, distribution)
    if samples and not drawn:
        raise WrongRequest(
            f"samples={samples}: no axis of the grid is drawn from a distribution (tune.loguniform, ...)"
        )
    return drawn


def samples_of(drawn: Mapping[str, Any], *, sweep: str, search_seed: int, count: int) -> list[Sample]:
    """Returns the axes of each of `count` samples, or one without axes where none is drawn.

    Numbers are rounded to about three digits, so that tables read well.
    """
    if not drawn:
        return [{}]
    return [
        {
            axis: draw(distribution, float(generator(search_seed, "search", sweep, number, axis).random()))
            for axis, distribution in drawn.items()
        }
        for number in range(count)
    ]


def joined(sweep: str, sample: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the axes of a sample and those of a point of the grid. Raises `WrongRequest` for an axis of both."""
    if both := sorted(sample.keys() & fixed.keys()):
        raise WrongRequest(f"sweep {sweep}: {both[0]}: is drawn, and a row of the grid sets it too")
    return {**sample, **fixed}


def proposed_samples(
    drawn: Mapping[str, Any],
    observed: Callable[[Sample], Observation],
    *,
    sweep: str,
    search_seed: int,
    count: int,
    lowest: bool,
    point: str,
) -> list[Sample]:
    """Returns up to `count` samples for one point of the grid, named `point`: at first those of `samples_of`, then what
    Optuna proposes, round by round, as long as the results of all samples before are known."""
    samples = samples_of(drawn, sweep=sweep, search_seed=search_seed, count=min(count, STARTUP))
    told: list[tuple[Sample, float | StoppedEarly | None]] = []
    while True:
        for sample in samples[len(told) :]:
            observation = observed(sample)
            if not observation.final:
                return samples
            told.append((sample, observation.value))
        if len(samples) >= count:
            return samples
        seed = int(generator(search_seed, "optuna", sweep, point, len(samples)).integers(2**31))
        samples += propose(drawn, told, min(ROUND, count - len(samples)), seed=seed, lowest=lowest)


def _check(axis: str, distribution: Any) -> None:
    """Raises `WrongRequest` for an axis that this distribution cannot draw, or only beyond its limits."""
    said, kind = f"{axis}={describe(distribution)}", kind_of(distribution)
    if not is_drawable(distribution):
        raise WrongRequest(f"{said}: it cannot be drawn from a sweep's own seed; {_DRAWABLE}")
    if axis in UNDRAWN:
        raise WrongRequest(f"{said}: {axis} is no setting to draw; {axis}=A,B gives every sample each value")
    field = _field(axis)
    if kind == "Categorical":
        ends = list(distribution.categories)
    elif {"Float": float, "Integer": int}[kind] in (types := _types(field)) or (kind == "Integer" and float in types):
        ends = ends_of(distribution)
    else:
        instead = "tune.randint or tune.lograndint" if int in types else "tune.choice"
        raise WrongRequest(f"{said}: is no such number; {instead} can draw {axis}")
    if not ends:
        raise WrongRequest(f"{said}: has nothing to draw")
    limited: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter = TypeAdapter(limited)
    for value in ends:
        try:
            adapter.validate_python(str(value) if hasattr(value, "__fspath__") else value)
        except ValidationError as e:
            allowed = e.errors()[0]["msg"].replace("Input should be", "must be")
            raise WrongRequest(f"{said}: draws {shorten(value)}, and {axis} {allowed}") from e


def _field(axis: str) -> FieldInfo:
    config: Any = CellConfig
    *path, last = axis.split(".")
    for part in path:
        config = config.model_fields[part].annotation
    field: FieldInfo = config.model_fields[last]
    return field


def _types(field: FieldInfo) -> tuple[Any, ...]:
    return (field.annotation, *get_args(field.annotation))
