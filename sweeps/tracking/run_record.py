"""One run of MLflow as it should be, and whether one that exists is it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

MOST_POINTS, MOST_PARAMS, MOST_TAGS = 800, 100, 100
"""Limits of one request; MLflow's `runs/log-batch` accepts 1,000 items in all."""
LINK = "ktrain.run."
"""Prefix of a cell's tags with the run IDs of its stages, by kind."""
_NUMBERS = ("ktrain.n.", "ktrain.interval.")
K = TypeVar("K")
_PLACES = ("ktrain.scale", "ktrain.stages")


class Point(NamedTuple):
    """A value of a metric. Its time is that of the run's start plus `seconds` of training, and not that of its
    delivery, so that MLflow stores a point that is written twice once."""

    name: str
    value: float
    step: int
    seconds: float = 0.0


@dataclass(frozen=True)
class RunRecord:
    """One run. It is created with `initial_tags`; `tags` are written last, so that a run that has them is complete.
    `start` and `end` are in milliseconds since the epoch; None is the moment of writing."""

    key: str
    name: str
    status: str
    initial_tags: Mapping[str, str]
    start: int | None = None
    end: int | None = None
    points: tuple[Point, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[tuple[Sequence[Point], Sequence[tuple[str, str]], Sequence[tuple[str, str]]]]:
        """Points, params and tags of each request, in order; tags come last."""
        points = chunks(self.points, MOST_POINTS)
        params = chunks(tuple(self.params.items()), MOST_PARAMS)
        tags = chunks(tuple(self.tags.items()), MOST_TAGS)
        count = max(len(points), len(params), len(tags))
        points += [()] * (count - len(points))
        params += [()] * (count - len(params))
        tags = [()] * (count - len(tags)) + tags
        yield from zip(points, params, tags, strict=True)

    def contradicts(self, run: Any) -> bool:
        """Whether a run of MLflow holds another value of a final metric, or other people or intervals: its stage was
        rebuilt, or somebody edited the database. MLflow would keep both values, so such a run has to be removed."""
        numbers = {name: text for name, text in run.data.tags.items() if name.startswith(_NUMBERS)}
        return differ(run.data.metrics, self._finals) or not numbers.items() <= self.tags.items()

    def is_claimed_by(self, run: Any) -> bool:
        """Whether a run of MLflow says that it holds the record; where the stages lie may differ between machines."""
        tags = {name: text for name, text in self.tags.items() if name not in _PLACES and not name.startswith(_NUMBERS)}
        return bool(tags) and tags.items() <= run.data.tags.items()

    def is_in(self, run: Any) -> bool:
        """Whether a run that claims the record holds its numbers."""
        # Of a stage that is no longer in the store, the run may have numbers that the record cannot have.
        if any(name.startswith(LINK) and name not in self.tags for name in run.data.tags):
            return True
        numbers = {name for name in self.tags if name.startswith(_NUMBERS)}
        missing = self._finals.keys() - run.data.metrics.keys() or numbers - run.data.tags.keys()
        return not missing and not self.contradicts(run)

    @property
    def _finals(self) -> dict[str, float]:
        """The final metrics, which are not points of a curve."""
        return {point.name: point.value for point in self.points if point.step == 0}


def differ(recorded: Mapping[K, float], metrics: Mapping[K, float]) -> bool:
    """Whether a run has other values of some metrics, or of some points of their curves."""
    # Databases have no infinity, and MLflow stores the largest number instead.
    return any(
        name in recorded and recorded[name] != value and math.isfinite(value) and math.isfinite(recorded[name])
        for name, value in metrics.items()
    )


def chunks(whole: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The parts of a sequence, each at most `size` long."""
    return [whole[begin : begin + size] for begin in range(0, len(whole), size)]
