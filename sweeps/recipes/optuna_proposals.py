"""Proposals of Optuna's TPE sampler as a pure function of what has been measured, so that a rerun proposes the same."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sweeps.recipes.distributions import categories_of, kind_of, sampler_of, settle, step_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Sample = dict[str, Any]
"""The value of each axis that is drawn."""


class StoppedEarly(NamedTuple):
    """In place of the value of a sample: its training was stopped after `step` steps, with this loss."""

    step: int
    loss: float


def propose(
    drawn: Mapping[str, Any],
    told: Sequence[tuple[Sample, float | StoppedEarly | None]],
    count: int,
    *,
    seed: int,
    lowest: bool,
) -> list[Sample]:
    """Returns the next `count` samples after those of `told`, each with its measured value.

    None in place of a value tells the sampler that the sample has failed. The first proposals are the same for a larger
    `count`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {axis: _distribution(distribution) for axis, distribution in drawn.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0)
    study = optuna.create_study(direction="minimize" if lowest else "maximize", sampler=sampler)
    for sample, value in told:
        result: dict[str, Any] = {"state": optuna.trial.TrialState.COMPLETE, "value": value}
        if value is None:
            result["state"] = optuna.trial.TrialState.FAIL
        elif isinstance(value, StoppedEarly):
            result = {"state": optuna.trial.TrialState.PRUNED, "intermediate_values": {value.step: value.loss}}
        study.add_trial(optuna.trial.create_trial(params=sample, distributions=distributions, **result))
    asked = [study.ask(distributions).params for _ in range(count)]
    return [{axis: _settled(drawn[axis], value) for axis, value in params.items()} for params in asked]


def _settled(distribution: Any, value: Any) -> Any:
    return value if kind_of(distribution) == "Categorical" else settle(distribution, value)


def _distribution(distribution: Any) -> "BaseDistribution":
    """Optuna's distribution for one of Ray Tune's."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind_of(distribution) == "Categorical":
        return CategoricalDistribution(categories_of(distribution))
    low, high, step = distribution.lower, distribution.upper, step_of(distribution)
    is_log = sampler_of(distribution) == "LogUniform"
    # Optuna has no steps on a logarithmic scale; what it proposes there is rounded afterwards.
    if kind_of(distribution) == "Integer":
        # It counts steps from the lower limit, Ray Tune from zero; where they differ, too, rounding comes afterwards.
        aligned = step and not is_log and low % step == 0 and high % step == 0
        return IntDistribution(low, high if step else high - 1, log=is_log, step=step if aligned else 1)
    return FloatDistribution(
        low, high if step else math.nextafter(high, low), log=is_log, step=None if is_log else step
    )
