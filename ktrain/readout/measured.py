"""What a readout kind that trains nothing gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """Metrics by the columns of the kind, as fractions of 1.

    Where known, `counts` says over how many people a metric is the mean, and `intervals` its 95 % interval.
    """

    metrics: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
