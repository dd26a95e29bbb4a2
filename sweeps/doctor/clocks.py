"""The check `clock`: how far apart the clocks of the nodes are."""

import time
from collections.abc import Callable

from sweeps.doctor.finding import FAIL, OK, WARN, Finding

SAMPLES = 5
SLIGHT, LARGE = 1.0, 10.0
"""Seconds of skew above which the check warns, and above which it fails."""
FIX = "start the time service there: systemctl enable --now chrony (or systemd-timesyncd)"


def now() -> float:
    """Returns the seconds since 1970 by this machine's clock."""
    return time.time()


def measure_skew(remote: Callable[[], float]) -> tuple[float, float]:
    """Returns by how many seconds the remote clock is ahead of ours, and the error of that: half a round trip.

    Takes `SAMPLES` samples and keeps the one with the shortest round trip.
    """
    best = (0.0, float("inf"))
    for _ in range(SAMPLES):
        sent, began = now(), time.monotonic()
        there = remote()
        half = (time.monotonic() - began) / 2
        if half < best[1]:
            best = (there - (sent + half), half)
    return best


def judge(node: str, ahead: float, error: float) -> Finding:
    """Returns `clock` of a node. Only the part of the skew that the round trip cannot explain counts."""
    least = abs(ahead) - error
    side = "ahead of" if ahead > 0 else "behind"
    detail = f"{abs(ahead):.3f} s {side} the driver, to within {error:.3f} s"
    if least > LARGE:
        return Finding("clock", FAIL, f"{detail}: object storage and tokens refuse such clocks", FIX, node)
    return Finding("clock", WARN, detail, FIX, node) if least > SLIGHT else Finding("clock", OK, detail, "", node)
