"""Why the workers of a trial ended early, and how often they are started again."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Why workers ended. The first four come from machines, the next three perhaps from the trial itself, and the last
    two from the sweep's own process for a trial."""

    PREEMPTED = "preempted"
    """Their node went, or will, and said so."""
    LOST = "node lost"
    NO_CAPACITY = "no room"
    LEASE_LOST = "lease lost"
    """Another driver does the stage."""
    MEMORY = "out of memory"
    DIED = "worker died"
    ERROR = "error"
    DRIVER_LOST = "driver lost"
    """The process that waits for the workers is gone."""
    GIVEN_UP = "given up"
    """No other start follows."""


FAILURES = 3
"""How often a trial is started again that may itself be at fault; each start continues from the latest checkpoints."""
SOON_LOSSES = 10
"""Nodes lost in a row, each soon after a start, after which the trial counts as the cause."""
SOON = 600.0
"""Seconds after a start."""
WAITS = 5
"""Waits for capacity in a row, a minute each, after which the trial goes on with fewer workers."""
PAUSES = (5.0, 20.0, 60.0)
"""Seconds before a trial whose storage failed is started again, the first, second and third time."""
PRIOR_SECONDS = 14_400.0
"""Seconds between two losses of a trial's nodes that are expected before any loss was observed."""


@dataclass(frozen=True)
class Interruption:
    """Why workers ended, as a kind and one line; `storage` if reading or writing files failed."""

    kind: str
    line: str
    storage: bool = False

    @property
    def text(self) -> str:
        """Kind and line, for a person."""
        return f"{self.kind}: {self.line}"


class RestartPolicy:
    """Counts the interruptions of one trial. Those from machines never use up the budget of those from the trial."""

    def __init__(self) -> None:
        self._failures = self._soon_losses = self._waits = self._losses = 0
        self._seconds = 0.0

    def should_restart(self, interruption: Interruption, lasted: float) -> bool:
        """Counts an interruption `lasted` seconds after a start; returns True if the workers should start again."""
        kind = interruption.kind
        self._seconds += lasted
        self._waits = self._waits + 1 if kind == Kind.NO_CAPACITY else 0
        self._losses += kind in (Kind.LOST, Kind.MEMORY, Kind.DIED)
        self._failures += kind in (Kind.MEMORY, Kind.DIED, Kind.ERROR)
        if kind == Kind.LOST:
            self._soon_losses = self._soon_losses + 1 if lasted < SOON else 0
        return self._failures <= FAILURES and self._soon_losses < SOON_LOSSES

    @property
    def starved(self) -> bool:
        """Whether the trial has waited long for as many workers as it asked for."""
        return self._waits >= WAITS

    @property
    def pause(self) -> float:
        """Seconds to wait before the next start if storage failed."""
        return PAUSES[min(self._failures, len(PAUSES)) - 1]

    @property
    def between_losses(self) -> float:
        """Estimated seconds between two losses; the prior counts as one observed loss."""
        return (PRIOR_SECONDS + self._seconds) / (1 + self._losses)
