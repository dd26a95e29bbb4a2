"""Cells of a sweep with their results: typed, in plan order, and grouped over seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.measurements.other_kinds import OtherKind

if TYPE_CHECKING:
    # A plan reads this module and does not wait for pandas and SciPy.
    import pandas as pd

STOPPED_EARLY = "stopped early"
"""How the state of a sample begins that a search has done with before the end of its training."""
Axis = bool | int | float | str | None
Interval = tuple[float, float]

CONFIDENCE = 0.95
KNOWN_BEFORE_READOUT = ("recall/", "baseline/", "start/", "forgetting/", "speed/", "windows/")
"""Prefixes of metrics that exist before the readout, so that a blocked cell still shows its recall."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One recorded cell; accuracies and intervals are fractions of 1."""

    key: str
    axes: Mapping[str, Axis]
    """The plan's axes of this cell."""
    params: Mapping[str, Axis] = field(default_factory=dict)
    """Every identity field; only the axes if the cell has no run."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    """Number of answers (or tokens) that a metric averages."""
    interval: Mapping[str, Interval] = field(default_factory=dict)
    """95 % interval (low, high) by metric."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage folders by kind."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """MLflow run ids of the finished stages by kind."""
    state: str = "missing"
    """`done`, `running`, `planned`, `missing`, `blocked: <why>`, `failed: <why>`, `damaged: <what>`, and, of samples of
    a search, `stopped early: <where>` or `paused: <where>`."""
    scale: str | None = None
    imported: str = ""
    """The file from which MLflow has the numbers; empty where a store of this project made them."""
    doubts: tuple[str, ...] = ()
    """A line for whatever was recorded of the cell and is not shown, because it cannot be right."""
    departures: tuple[str, ...] | None = None
    """Where the cell differs from the paper's experiment, a line each; `None` if its run does not record it."""

    @property
    def done(self) -> bool:
        """Whether the cell's numbers are final."""
        return self.state == "done"


@dataclass(frozen=True)
class Search:
    """Cells whose settings a search has drawn; of each of their other settings, only the best sample is shown."""

    axes: tuple[str, ...]
    """The axes that were drawn."""
    metric: str
    """The metric by which the best is chosen, which rests on no answer about people whose answers are reported."""
    lowest: bool
    """Whether the lowest value is the best; else the highest."""
    keys: frozenset[str]
    following: tuple[str, ...] = ()
    """Axes whose values follow from others, such as `model.size` from `model.layers`: samples may differ in them."""
    chosen_on: str = "the training half"
    """What the choice rests on, in words."""


@dataclass(frozen=True, kw_only=True)
class ReplicateGroup:
    """Cells that differ only in `seed`, averaged.

    `metrics` are means over the seeds that are done; if none is, over all, and only of metrics that precede the
    readout.
    """

    axes: Mapping[str, Axis]
    params: Mapping[str, Axis]
    seeds: tuple[Axis, ...]
    """Seeds that are done; empty where none is."""
    keys: tuple[str, ...]
    metrics: Mapping[str, float]
    n: Mapping[str, int]
    interval: Mapping[str, Interval]
    state: str
    counted: tuple[str, ...] = ()
    """Keys of the cells of `seeds`."""
    compared: int = 1
    """Number of settings of which this is the best (`best_settings.keep_best`)."""

    @property
    def done(self) -> bool:
        """Whether at least one seed has final numbers."""
        return bool(self.seeds)

    @property
    def final(self) -> bool:
        """Whether every seed is done, and every setting of which this is the best."""
        return self.state == "done" or (
            self.state.startswith("best of") and "; " not in self.state and "(of " not in self.state
        )


@dataclass(frozen=True)
class Results:
    """The cells of one sweep, in plan order."""

    sweep: str
    cells: tuple[Cell, ...]
    other_kinds: tuple[OtherKind, ...] = ()
    """Kinds of readout besides the paper's."""
    searches: tuple[Search, ...] = ()
    """Searches; each cell is in one at most."""

    @property
    def done(self) -> int:
        """How many cells have final numbers."""
        return sum(cell.done for cell in self.cells)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Those of all cells."""
        return tuple(doubt for cell in self.cells for doubt in cell.doubts)

    @property
    def origin(self) -> str:
        """Says in a line how many cells come from which files; empty if none does."""
        files = [cell.imported for cell in self.cells if cell.done and cell.imported]
        if not files:
            return ""
        return f"{len(files)} of {self.done} finished cells are imported from {', '.join(dict.fromkeys(files))}"

    def frame(self) -> "pd.DataFrame":
        """One row per cell: key, state, scale, axes, metrics with `<metric>/n|low|high`, and `stage/<kind>` folders."""
        import pandas as pd

        rows = []
        for cell in self.cells:
            row: dict[str, Any] = {"key": cell.key, "state": cell.state, "scale": cell.scale, **cell.axes}
            for name, value in sorted(cell.metrics.items()):
                row[name] = value
                row[f"{name}/n"] = cell.n.get(name)
                row[f"{name}/low"], row[f"{name}/high"] = cell.interval.get(name, (None, None))
            row |= {f"stage/{kind}": folder for kind, folder in cell.stages.items()}
            rows.append(row)
        frame = pd.DataFrame(rows)
        counts = [c for c in frame.columns if c.endswith("/n")]
        return frame.astype(dict.fromkeys(counts, "Int64")).dropna(axis="columns", how="all")


def group_replicates(results: Results) -> tuple[ReplicateGroup, ...]:
    """Groups cells that differ only in `seed`, in the order of first appearance."""
    groups: dict[str, list[Cell]] = {}
    for cell in results.cells:
        others = {name: value for name, value in cell.axes.items() if name != "seed"}
        groups.setdefault(json.dumps(others, sort_keys=True), []).append(cell)
    return tuple(_replicate_group(cells) for cells in groups.values())


def _replicate_group(cells: Sequence[Cell]) -> ReplicateGroup:
    done = [cell for cell in cells if cell.done]
    counted = done or cells
    names = dict.fromkeys(name for cell in counted for name in sorted(cell.metrics))
    if not done:
        names = dict.fromkeys(name for name in names if name.startswith(KNOWN_BEFORE_READOUT))
    metrics, n, interval = {}, {}, {}
    for name in names:
        having = [cell for cell in counted if name in cell.metrics]
        values = [cell.metrics[name] for cell in having]
        metrics[name] = math.fsum(values) / len(values)
        if sizes := [cell.n[name] for cell in having if name in cell.n]:
            n[name] = sum(sizes)
        if bounds := _interval(name, values, [cell.interval[name] for cell in having if name in cell.interval]):
            interval[name] = bounds
    fullest = max(counted, key=lambda cell: len(cell.params))
    return ReplicateGroup(
        axes={name: value for name, value in cells[0].axes.items() if name != "seed"},
        params={name: value for name, value in fullest.params.items() if name != "seed"},
        seeds=tuple(cell.axes.get("seed", cell.params.get("seed")) for cell in done),
        keys=tuple(cell.key for cell in cells),
        metrics=metrics,
        n=n,
        interval=interval,
        state=_group_state(cells),
        counted=tuple(cell.key for cell in done),
    )


def seed_interval(values: Sequence[float], stored: Sequence[Interval]) -> Interval | None:
    """Student's t interval over the seeds' values; of a single seed, its stored interval.

    Equal values would give a width of 0, so they get the hull of their stored intervals.
    """
    if len(set(values)) < 2:
        return (min(low for low, _ in stored), max(high for _, high in stored)) if stored else None
    from scipy.special import stdtrit

    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / count)
    return mean - half, mean + half


def _interval(name: str, values: Sequence[float], stored: Sequence[Interval]) -> Interval | None:
    """Clips an accuracy's interval to [0, 1], which it would often leave: with two seeds t is 12.7."""
    bounds = seed_interval(values, stored)
    if bounds is None or name.startswith("speed/"):
        return bounds
    return max(bounds[0], 0.0), min(bounds[1], 1.0)


def _group_state(cells: Sequence[Cell]) -> str:
    done = sum(cell.done for cell in cells)
    if done == len(cells):
        return "done"
    others = "; ".join(dict.fromkeys(cell.state for cell in cells if not cell.done))
    return f"{done} of {len(cells)} seeds; {others}" if done else others
