"""Taking turns: loops that are compared run one after the other, round after round, so that a machine whose speed
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
"""Steps before the clock starts: compilation, allocation, autotuning."""
BETWEEN = 0.2
"""Seconds between two looks at the clock."""

Loop = Callable[[float], float]
"""Runs for about so many seconds and returns what is measured."""


@dataclass(frozen=True)
class Row:
    """One line of a table: the median of the rounds and their spread, the largest minus the smallest."""

    name: str
    median: float
    spread: float
    unit: str
    note: str = ""


def row(name: str, values: list[float], unit: str, note: str = "") -> Row:
    """The row of what was measured, one value a round."""
    return Row(name, statistics.median(values), max(values) - min(values), unit, note)


def rounds(loops: Mapping[str, Loop], seconds: float, what: str = "") -> dict[str, list[float]]:
    """What each loop measures, one value a round; a line on stderr says which is at work, the first time compiling."""
    measured: dict[str, list[float]] = {name: [] for name in loops}
    began, count = time.monotonic(), 0
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            passed, count = int(time.monotonic() - began), count + 1
            of = f"{count} of {ROUNDS * len(loops)}"
            print(f"[{passed // 60}:{passed % 60:02}] {what}{of}: {name}", file=sys.stderr, flush=True)
            measured[name].append(loop(seconds))
    return measured


def repeated(step: Callable[[int], Any], seconds: float) -> tuple[int, float]:
    """How often `step` was done in about so many seconds, and in how many exactly; it gets its number.

    A GPU is waited for a few times a second only, as in training.
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
    about: dict[str, Any],
    setting: dict[str, Any],
    flops: str = "",
) -> dict[str, Any]:
    """What a benchmark returns; `about` is `machine.told()`, `flops` the formula by which they are counted."""
    found = {"rows": [asdict(row) for row in rows], "ratios": ratios, "share_of_peak": share_of_peak}
    return {**found, "machine": about, "setting": setting, **({"flops": flops} if flops else {})}


def text(found: dict[str, Any]) -> str:
    """The result as a table: each row with the ratio of ours over it and its share of the machine's peak."""
    width = max(len(row["name"]) for row in found["rows"])
    told = "  ".join(f"{name} {value}" for name, value in found["setting"].items())
    lines = [machine.line(found["machine"]), told, ""]
    for row in found["rows"]:
        ratio, share = found["ratios"].get(row["name"]), found["share_of_peak"].get(row["name"])
        parts = [
            f"  {row['name']:<{width}}{_number(row['median']):>12} ± {_number(row['spread'] / 2):<9} {row['unit']:<12}",
            f"{ratio:>7.2f}x" if ratio else " " * 8,
            f"{share:>8.1%} of peak" if share else " " * 16,
            f"  {row['note']}" if row["note"] else "",
        ]
        lines.append("".join(parts).rstrip())
    return "\n".join([*lines, "", found["flops"]] if "flops" in found else lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
