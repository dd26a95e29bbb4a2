"""Random search: the settings that are drawn from Ray Tune's distributions when a sweep is expanded.

A draw is a pure function of the sweep's name, its `search_seed`, the sample's number and the axis. So a sweep has the
same cells whenever it is expanded, more samples leave the first ones as they were, and another axis does, too.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ktrain.config import CellConfig
from ktrain.errors import WrongRequest, nearest, shorten
from ktrain.readout.kinds.base import kind_of
from ktrain.rng import generator
from sweeps.planning.axes import check_axis

METRICS = {
    "train/loss": "lowest",
    "recall/attribute_tokens": "highest",
    "qa/exact_match/train/mean": "highest",
    "mixed/exact_match/train/mean": "highest",
}
"""The metrics by which the best sample may be chosen, and which value is best. None rests on an answer about the people
of the test half, whose answers are reported."""
MOST_SAMPLES = 100_000
UNDRAWN = ("seed", "readout.kind")
"""Axes whose values are no settings to choose the best of: every sample has all seeds and kinds of readout."""
_MODULE = "ray.tune.search.sample"
_DRAWABLE = "tune.uniform, loguniform, randint, lograndint, their quantized forms and choice can"
_NAMES = {
    ("Float", "Uniform"): "uniform",
    ("Float", "LogUniform"): "loguniform",
    ("Integer", "Uniform"): "randint",
    ("Integer", "LogUniform"): "lograndint",
    ("Categorical", "Uniform"): "choice",
}
"""Ray Tune's functions by domain and sampler."""


@dataclass(frozen=True)
class Search:
    """A random search of a plan."""

    part: str
    """The part of the sweep whose cells it has drawn; without parts, the sweep."""
    samples: int
    axes: tuple[str, ...]
    """The axes that are drawn."""
    metric: str
    """The metric by which the best sample is chosen; empty where all are shown."""

    @property
    def lowest(self) -> bool:
        """Whether the lowest value of the metric is the best."""
        return METRICS.get(self.metric) == "lowest"

    def __str__(self) -> str:
        """Returns `8 random samples of train.learning_rate; the best by train/loss (lowest) is reported`."""
        chosen = (
            f"the best by {self.metric} ({METRICS[self.metric]}) is reported" if self.metric else "all are reported"
        )
        return f"{self.samples} random samples of {', '.join(self.axes)}; {chosen}"


def is_distribution(value: Any) -> bool:
    """Whether a value is one of Ray Tune's distributions. Imports no Ray: who has such a value has imported it."""
    return any(base.__module__ == _MODULE and base.__name__ == "Domain" for base in type(value).__mro__)


def request_fault(samples: Any, metric: Any, search_seed: Any) -> str:
    """Returns the first of these fields of a sweep that is wrong, and what is allowed; empty if there is none."""
    if isinstance(samples, bool) or not isinstance(samples, int) or not 0 <= samples <= MOST_SAMPLES:
        return f"samples={shorten(samples)}: must be a whole number from 0 to {MOST_SAMPLES:,}"
    if isinstance(search_seed, bool) or not isinstance(search_seed, int) or not 0 <= search_seed < 2**31:
        return f"search_seed={shorten(search_seed)}: must be a whole number from 0, below 2**31"
    if not isinstance(metric, str) or metric not in ("", *METRICS):
        name = shorten(metric)
        held_out = "is measured on the people that are reported; " if "/test/" in name else ""
        return f"metric={name}: {held_out}must be one of {', '.join(METRICS)}{nearest(name, METRICS)}"
    if not samples and (metric or search_seed):
        return "has a metric or a search_seed, which are for random search: it needs samples=N too"
    return ""


def check_metric(sweep: str, metric: str, cells: Iterable[CellConfig]) -> None:
    """Raises `WrongRequest` if a cell's kind of readout does not measure the metric of a search."""
    prefix = metric.partition("/")[0]
    for kind in dict.fromkeys(cell.readout.kind for cell in cells):
        if prefix in ("qa", "mixed") and kind_of(kind).metric_prefix != prefix:
            every = ", ".join(name for name in METRICS if not name.startswith(("qa/", "mixed/")))
            line = f"metric={metric}: cells of readout.kind={kind} do not measure it; all have {every}"
            raise WrongRequest(f"sweep {sweep}: {line}")


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


def describe(distribution: Any) -> str:
    """Returns the call that has made a distribution, such as `tune.loguniform(0.0001, 0.01)`."""
    kind = type(distribution).__name__
    name = _NAMES.get((kind, _sampler(distribution)))
    if name is None:
        return "tune.sample_from(...)" if kind == "Function" else "tune.randn(...)"
    if name == "choice":
        return f"tune.choice({shorten(distribution.categories)})"
    step = _step(distribution)
    limits = f"{shorten(distribution.lower, 20)}, {shorten(distribution.upper, 20)}"
    return f"tune.{name}({limits})" if step is None else f"tune.q{name}({limits}, {shorten(step, 20)})"


def samples_of(
    drawn: Mapping[str, Any], *, sweep: str, search_seed: int, count: int
) -> list[dict[str, bool | int | float | str | None]]:
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


def draw(distribution: Any, share: float) -> Any:
    """Returns the value below which a `share` from 0 to 1 (1 excluded) of the distribution lies."""
    if type(distribution).__name__ == "Categorical":
        # In an order of their own: a set of texts has another one in every process.
        return sorted(distribution.categories, key=repr)[int(share * len(distribution.categories))]
    low, high = float(distribution.lower), float(distribution.upper)
    is_log = _sampler(distribution) == "LogUniform"
    value = low * (high / low) ** share if is_log else low + (high - low) * share
    value = min(max(value, low), high)
    if (step := _step(distribution)) is not None:
        # Ray Tune draws from between the limits, then rounds to a multiple, so both limits can be reached.
        value = min(max(round(value / step) * step, low), high)
        return round(value) if type(distribution).__name__ == "Integer" else float(f"{value:.12g}")
    if type(distribution).__name__ == "Integer":
        return min(math.floor(value), distribution.upper - 1)
    return _rounded(value, low, high, in_itself=is_log and high >= 2 * low)


def _rounded(value: float, low: float, high: float, *, in_itself: bool) -> float:
    """The value with three significant digits of it, or of the distribution's width, if it is still in there."""
    digits = 2 - _magnitude(value) if in_itself else 3 - _magnitude(high - low)
    for short in (round(value, digits), round(value - 0.5 * 10.0**-digits, digits)):
        if low <= short < high:
            return short
    return value


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def _check(axis: str, distribution: Any) -> None:
    """Raises `WrongRequest` for an axis that this distribution cannot draw, or only beyond its limits."""
    said, kind = f"{axis}={describe(distribution)}", type(distribution).__name__
    if (kind, _sampler(distribution)) not in _NAMES:
        raise WrongRequest(f"{said}: it cannot be drawn from a sweep's own seed; {_DRAWABLE}")
    if axis in UNDRAWN:
        raise WrongRequest(f"{said}: {axis} is no setting to draw; {axis}=A,B gives every sample each value")
    field = _field(axis)
    if kind == "Categorical":
        ends = list(distribution.categories)
    elif {"Float": float, "Integer": int}[kind] in (types := _types(field)) or (kind == "Integer" and float in types):
        ends = _ends(distribution)
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


def _ends(distribution: Any) -> list[int | float]:
    """The lowest and the highest number that can be drawn; the upper limit itself only by a quantized one."""
    low, high = distribution.lower, distribution.upper
    if not (_is_finite(low) and _is_finite(high)) or low > high or (low == high and _step(distribution) is None):
        return []
    if _step(distribution) is not None:
        return [low, high]
    return [low, high - 1 if type(distribution).__name__ == "Integer" else math.nextafter(high, low)]


def _is_finite(limit: Any) -> bool:
    return isinstance(limit, int | float) and abs(limit) <= sys.float_info.max


def _sampler(distribution: Any) -> str:
    """`Uniform` or `LogUniform`, or the name of another sampler; that inside a quantized one. Empty of a function."""
    if not hasattr(distribution, "get_sampler"):
        return ""
    sampler = distribution.get_sampler() if type(distribution).__name__ != "Function" else None
    return type(getattr(sampler, "sampler", sampler)).__name__.lstrip("_")


def _step(distribution: Any) -> float | None:
    """The multiple to which a quantized distribution rounds; None of another one."""
    return getattr(distribution.sampler, "q", None)


def _field(axis: str) -> FieldInfo:
    config: Any = CellConfig
    *path, last = axis.split(".")
    for part in path:
        config = config.model_fields[part].annotation
    field: FieldInfo = config.model_fields[last]
    return field


def _types(field: FieldInfo) -> tuple[Any, ...]:
    return (field.annotation, *get_args(field.annotation))
