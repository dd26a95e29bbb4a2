"""How far the clocks of nodes are apart."""

import time
from collections.abc import Callable

from sweeps.checks.finding import FAIL, OK, WARN, Finding

SAMPLES = 5
SLIGHT, LARGE = 1.0, 10.0
"""Seconds from which a skew is worth a warning, and from which it is a fault."""
FIX = "start the time service there: systemctl enable --now chrony (or systemd-timesyncd)"


def now() -> float:
    """Seconds since 1970 by the clock of this machine."""
    return time.time()


def skew(remote: Callable[[], float]) -> tuple[float, float]:
    """By how many seconds the other clock is ahead of ours, and how wrong that may be: half of the round trip.

    Of several questions the one with the shortest round trip counts.
    """
    best = (0.0, float("inf"))
    for _ in range(SAMPLES):
        asked, began = now(), time.monotonic()
        there = remote()
        half = (time.monotonic() - began) / 2
        if half < best[1]:
            best = (there - (asked + half), half)
    return best


def judged(node: str, ahead: float, error: float) -> Finding:
    """`clock` of a node: only what cannot be the way's own time counts."""
    least = abs(ahead) - error
    side = "ahead of" if ahead > 0 else "behind"
    seen = f"{abs(ahead):.3f} s {side} the driver, to within {error:.3f} s"
    if least > LARGE:
        return Finding("clock", FAIL, f"{seen}: object storage and tokens refuse such clocks", FIX, node)
    return Finding("clock", WARN, seen, FIX, node) if least > SLIGHT else Finding("clock", OK, seen, "", node)
