"""Clocks of the training loop: how fast its steps are, when it syncs with the device next, when a checkpoint is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SYNC_SECONDS = 5.0
"""Seconds between two syncs where the lines of a curve lie further apart."""
FIRST_SYNC = 16
"""Steps from the first step of a start to its first sync, when their time is not known yet."""


class StepTimer:
    """Times the steps from one sync to the next. Compilation, saving and evaluation do not count: `start` follows."""

    def __init__(self, tokens_per_step: int, seconds: float = 0.0, tokens: int = 0) -> None:
        self._tokens_per_step = tokens_per_step
        self.seconds, self.tokens = seconds, tokens
        self.steps_to_sync = FIRST_SYNC

    def start(self, step: int) -> None:
        """Starts the clock after `step` steps."""
        self._last_sync, self._clock = step, time.monotonic()

    def sync(self, step: int) -> None:
        """Counts the steps since the last sync, and plans the next one `SYNC_SECONDS` ahead."""
        steps = step - self._last_sync
        began = self._clock
        self.start(step)
        elapsed = self._clock - began
        self.seconds += elapsed
        self.tokens += steps * self._tokens_per_step
        self.steps_to_sync = max(1, int(SYNC_SECONDS * steps / max(elapsed, 1e-6)))


class CheckpointPolicy:
    """Decides when a checkpoint is due: as many seconds after the last one as `interval` says, which gets the seconds
    that the last one took, None if this start has saved none."""

    def __init__(self, interval: Callable[[float | None], float]) -> None:
        self._interval = interval
        self._cost: float | None = None

    def start(self) -> None:
        """Starts the clock."""
        self._last_save = time.monotonic()

    @property
    def seconds_apart(self) -> float:
        """Seconds from one checkpoint to the next."""
        return self._interval(self._cost)

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last_save > self.seconds_apart

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measures what the checkpoint costs that is saved inside."""
        began = time.monotonic()
        yield
        self.start()
        self._cost = self._last_save - began
