"""Setbacks: why the workers of a trial ended before their work was done, and how often it is begun again."""

from dataclasses import dataclass

PREEMPTED, LOST, ROOM, TAKEN = "preempted", "node lost", "no room", "lease lost"
"""The machines' doing: the node goes and said so; it is gone; the cluster is full now; another driver took over."""
MEMORY, DIED, ERROR = "out of memory", "worker died", "error"
"""Perhaps the trial's doing."""
FAILURES = 3
"""How often a trial that may itself be at fault is begun again; each start continues from the latest resume points."""
LOSSES = 10
"""Nodes lost one after another, each soon after a start, before a trial is taken for what kills them."""
SOON = 600.0
"""Seconds."""
ROOMS = 5
"""Waits for room one after another, of a minute each, after which fewer workers will do."""
WAITS = (5.0, 20.0, 60.0)
"""Seconds before a trial whose storage failed is begun again, the first, second and third time."""
EXPECTED = 14_400.0
"""Seconds between two losses of a trial's nodes before any was seen."""


@dataclass(frozen=True)
class Setback:
    """Why workers ended, as one of the kinds above and one line; `storage` where reading or writing files failed."""

    kind: str
    line: str
    storage: bool = False

    @property
    def text(self) -> str:
        """Both, for a person."""
        return f"{self.kind}: {self.line}"


class Patience:
    """Counts the setbacks of one trial. Those that machines make never use up the budget of those of its own."""

    def __init__(self) -> None:
        self._failures = self._soon = self._rooms = self._losses = 0
        self._seconds = 0.0

    def bears(self, setback: Setback, lasted: float) -> bool:
        """Whether to begin again after a start that lasted so many seconds."""
        kind = setback.kind
        self._seconds += lasted
        self._rooms = self._rooms + 1 if kind == ROOM else 0
        self._losses += kind in (LOST, MEMORY, DIED)
        if kind in (MEMORY, DIED, ERROR):
            self._failures += 1
        if kind == LOST:
            self._soon = self._soon + 1 if lasted < SOON else 0
        return self._failures <= FAILURES and self._soon < LOSSES

    @property
    def crowded(self) -> bool:
        """Whether the workers that were asked for have found no room for long."""
        return self._rooms >= ROOMS

    @property
    def pause(self) -> float:
        """Seconds to wait before beginning again where storage failed."""
        return WAITS[min(self._failures, len(WAITS)) - 1]

    @property
    def between_losses(self) -> float:
        """Seconds between two losses, from what was seen and the guess, which counts as one more loss seen."""
        return (EXPECTED + self._seconds) / (1 + self._losses)
