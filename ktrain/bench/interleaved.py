"""Interleaved timing: the compared loops run one after the other, round after round, so that a machine whose speed
drifts slows all of them alike."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ktrain.bench import machine

ROUNDS = 3
WARM = 3
"""Untimed first steps: compilation, allocation, autotuning."""
BETWEEN = 0.2
"""Seconds between two readings of the clock, for which a GPU has to be synchronized."""

Loop = Callable[[float], float]
"""Runs for about the given seconds and returns its measurement."""


@dataclass(frozen=True)
class Row:
    """One line of a table: the median of the rounds and their spread, the largest minus the smallest."""

    name: str
    median: float
    spread: float
    unit: str
    note: str = ""


def row(name: str, values: list[float], unit: str, note: str = "") -> Row:
    """Returns the row of measurements, one value a round."""
    return Row(name, statistics.median(values), max(values) - min(values), unit, note)


def interleave(
    loops: Mapping[str, Loop], seconds: float, what: str = "", host: dict[str, Any] | None = None
) -> dict[str, list[float]]:
    """Returns each loop's measurements, one a round. Prints on stderr which loop runs; the first round compiles.

    Each round also measures the peaks of `host`, which `machine.describe` has returned; the best ones stay in it.
    """
    measured: dict[str, list[float]] = {name: [] for name in loops}
    began, count = time.monotonic(), 0
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            passed, count = int(time.monotonic() - began), count + 1
            of = f"{count} of {ROUNDS * len(loops)}"
            print(f"[{passed // 60}:{passed % 60:02}] {what}{of}: {name}", file=sys.stderr, flush=True)
            measured[name].append(loop(seconds))
        if host is not None:
            machine.measure_peaks(host)
    return measured


def repeated(step: Callable[[int], Any], seconds: float) -> tuple[int, float]:
    """Calls `step(number)` for about `seconds`; returns the number of steps and the exact seconds.

    Synchronizes a GPU only a few times a second, as training does.
    """
    machine.wait()
    begin, steps, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        chunk = int(min(BETWEEN, seconds - passed) * steps / passed) if steps else 1
        for _ in range(max(1, chunk)):
            step(steps)
            steps += 1
        machine.wait()
        passed = time.perf_counter() - begin
    return steps, passed


def result(
    rows: list[Row],
    ratios: dict[str, float],
    share_of_peak: dict[str, float],
    host: dict[str, Any],
    setting: dict[str, Any],
    flops: str = "",
) -> dict[str, Any]:
    """Returns the result of a benchmark. `host` is `machine.describe()`, `flops` the formula that counts them.

    `disturbed` names the rows above the peak: other work must have slowed the measurement of the peak.
    """
    disturbed = [name for name, share in share_of_peak.items() if share > 1]
    measured = {
        "rows": [asdict(row) for row in rows],
        "ratios": ratios,
        "share_of_peak": share_of_peak,
        "disturbed": disturbed,
    }
    return {**measured, "machine": host, "setting": setting, **({"flops": flops} if flops else {})}


def text(measured: dict[str, Any]) -> str:
    """Formats a result as a table: each row with our ratio over it and its share of the machine's peak."""
    width = max(len(row["name"]) for row in measured["rows"])
    setting = "  ".join(f"{name} {value}" for name, value in measured["setting"].items())
    lines = [machine.line(measured["machine"]), setting, ""]
    for row in measured["rows"]:
        ratio, share = measured["ratios"].get(row["name"]), measured["share_of_peak"].get(row["name"])
        parts = [
            f"  {row['name']:<{width}}{_number(row['median']):>12} ± {_number(row['spread'] / 2):<9} {row['unit']:<12}",
            f"{ratio:>7.2f}x" if ratio else " " * 8,
            f"{share:>8.1%} of peak" if share else " " * 16,
            f"  {row['note']}" if row["note"] else "",
        ]
        lines.append("".join(parts).rstrip())
    if "flops" in measured:
        lines += ["", measured["flops"]]
    if measured["disturbed"]:
        names = ", ".join(measured["disturbed"])
        lines.append(f"a disturbed run: above the peak ({names}), which other work must have slowed; measure again")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
