"""Ray Tune's distributions as data: what they are called, where they end, and the value at a share of them.

They are read without an import of Ray: whoever has such a value has imported it.
"""

import math
import sys
from typing import Any

from ktrain.errors import shorten

_MODULE = "ray.tune.search.sample"
_NAMES = {
    ("Float", "Uniform"): "uniform",
    ("Float", "LogUniform"): "loguniform",
    ("Integer", "Uniform"): "randint",
    ("Integer", "LogUniform"): "lograndint",
    ("Categorical", "Uniform"): "choice",
}
"""Ray Tune's functions by domain and sampler."""


def is_distribution(value: Any) -> bool:
    """Whether a value is one of Ray Tune's distributions."""
    return any(base.__module__ == _MODULE and base.__name__ == "Domain" for base in type(value).__mro__)


def is_drawable(distribution: Any) -> bool:
    """Whether `draw` can draw from it: from all but functions and normal distributions."""
    return (kind_of(distribution), sampler_of(distribution)) in _NAMES


def kind_of(distribution: Any) -> str:
    """Returns `Float`, `Integer` or `Categorical`; `Function` of `tune.sample_from`."""
    return type(distribution).__name__


def sampler_of(distribution: Any) -> str:
    """Returns `Uniform` or `LogUniform`, that inside a quantized one; another name where it is another sampler."""
    sampler = None if kind_of(distribution) == "Function" else distribution.get_sampler()
    return type(getattr(sampler, "sampler", sampler)).__name__.lstrip("_")


def step_of(distribution: Any) -> float | None:
    """Returns the multiple to which a quantized distribution rounds; None of another one."""
    return getattr(distribution.sampler, "q", None)


def describe(distribution: Any) -> str:
    """Returns the call that has made a distribution, such as `tune.loguniform(0.0001, 0.01)`."""
    name = _NAMES.get((kind_of(distribution), sampler_of(distribution)))
    if name is None:
        return "tune.sample_from(...)" if kind_of(distribution) == "Function" else "tune.randn(...)"
    if name == "choice":
        return f"tune.choice({shorten(distribution.categories)})"
    step = step_of(distribution)
    limits = f"{shorten(distribution.lower, 20)}, {shorten(distribution.upper, 20)}"
    return f"tune.{name}({limits})" if step is None else f"tune.q{name}({limits}, {shorten(step, 20)})"


def ends_of(distribution: Any) -> list[int | float]:
    """Returns the lowest and the highest number that can be drawn; nothing where there is none.

    The upper limit itself can be drawn from a quantized distribution only.
    """
    low, high, step = distribution.lower, distribution.upper, step_of(distribution)
    if not (_is_finite(low) and _is_finite(high)) or low > high or (low == high and step is None):
        return []
    if step is not None:
        return [low, high]
    return [low, high - 1 if kind_of(distribution) == "Integer" else math.nextafter(high, low)]


def categories_of(distribution: Any) -> list[Any]:
    """Returns the values of a choice in an order of their own: a set of texts has another one in every process."""
    return sorted(distribution.categories, key=repr)


def draw(distribution: Any, share: float) -> Any:
    """Returns the value below which a `share` from 0 to 1 (1 excluded) of the distribution lies."""
    if kind_of(distribution) == "Categorical":
        categories = categories_of(distribution)
        return categories[int(share * len(categories))]
    low, high = float(distribution.lower), float(distribution.upper)
    if sampler_of(distribution) == "LogUniform":
        return settle(distribution, low * (high / low) ** share)
    return settle(distribution, low + (high - low) * share)


def settle(distribution: Any, value: float) -> int | float:
    """Returns the number next to `value` that can be drawn: a whole one, a multiple, or one of about three digits."""
    low, high = float(distribution.lower), float(distribution.upper)
    value = min(max(value, low), high)
    if (step := step_of(distribution)) is not None:
        # Ray Tune draws from between the limits, then rounds to a multiple, so both limits can be reached.
        value = min(max(round(value / step) * step, low), high)
        return round(value) if kind_of(distribution) == "Integer" else float(f"{value:.12g}")
    if kind_of(distribution) == "Integer":
        return int(min(math.floor(value), distribution.upper - 1))
    in_itself = sampler_of(distribution) == "LogUniform" and high >= 2 * low
    return _rounded(value, low, high, in_itself=in_itself)


def _rounded(value: float, low: float, high: float, *, in_itself: bool) -> float:
    """The value with three significant digits of it, or of the distribution's width, if it is still in there."""
    digits = 2 - _magnitude(value) if in_itself else 3 - _magnitude(high - low)
    for short in (round(value, digits), round(value - 0.5 * 10.0**-digits, digits)):
        if low <= short < high:
            return short
    return value


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def _is_finite(limit: Any) -> bool:
    return isinstance(limit, int | float) and abs(limit) <= sys.float_info.max
