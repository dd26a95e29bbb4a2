"""Results: what MLflow holds about the cells of a plan, typed, in plan order, and folded over seeds."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from scipy.special import stdtrit

if TYPE_CHECKING:
    from mlflow.entities import Run

Axis = bool | int | float | str | None
Interval = tuple[float, float]

CONFIDENCE = 0.95
KNOWN_BEFORE_READOUT = ("recall/", "baseline/", "speed/")
"""Metrics that a cell may show although it was never read out; a blocked cell has its recall."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell as it was recorded; accuracies and intervals are fractions of 1."""

    key: str
    axes: Mapping[str, Axis]
    """The axes that the plan gave for this cell."""
    params: Mapping[str, Axis] = field(default_factory=dict)
    """Every identity field; of a cell without a run, the axes alone."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    """How many answers (or tokens) a metric is the mean of."""
    interval: Mapping[str, Interval] = field(default_factory=dict)
    """95 % interval of a metric, low and high."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage folders by kind."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """MLflow run ids of the finished stages by kind."""
    state: str = "missing"
    """`done`, `running`, `planned`, `missing`, `blocked: <why>` or `failed: <why>`."""
    scale: str | None = None

    @property
    def done(self) -> bool:
        """Whether the cell's numbers are final."""
        return self.state == "done"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Cells that are equal in every axis but `seed`, as one result.

    `metrics` are means over the seeds that count: those done, or, where none is, all of them.
    """

    axes: Mapping[str, Axis]
    params: Mapping[str, Axis]
    seeds: tuple[Axis, ...]
    """Seeds behind `metrics`; empty where no cell is done."""
    keys: tuple[str, ...]
    metrics: Mapping[str, float]
    n: Mapping[str, int]
    interval: Mapping[str, Interval]
    state: str
    counted: tuple[str, ...] = ()
    """Keys of the cells of `seeds`."""
    compared: int = 1
    """Of how many settings this is the best one (`analysis.best`)."""

    @property
    def done(self) -> bool:
        """Whether at least one seed has final numbers."""
        return bool(self.seeds)


@dataclass(frozen=True)
class Results:
    """The cells of one sweep, in plan order."""

    sweep: str
    cells: tuple[Cell, ...]

    @property
    def done(self) -> int:
        """How many cells have final numbers."""
        return sum(cell.done for cell in self.cells)

    def frame(self) -> pd.DataFrame:
        """One row per cell: key, state, scale, axes, metrics with `<metric>/n|low|high`, and `stage/<kind>` folders."""
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


def load(tracking_uri: str, sweep: str, keys: Mapping[str, Mapping[str, Axis]] | None = None) -> Results:
    """Read the cells `keys` (key -> axes) of experiment `sweep`; those without a run come out as `missing`.

    Without `keys`, all cells that were ever recorded, the oldest first, with all their params as axes. A value given in
    `keys` wins over the recorded text, so its type is the plan's. Nothing is created: an SQLite file or an experiment
    that is not there means that all cells are missing. A tracking server that does not answer raises MLflow's own
    exception.
    """
    recorded: dict[str, Run] = {}
    for run in runs(tracking_uri, sweep, "cell"):
        key = run.data.tags.get("ktrain.key", "")
        # Runs come newest first; a finished run is never hidden by a later one that is not.
        if key not in recorded or (_state(run) == "done" and _state(recorded[key]) != "done"):
            recorded[key] = run
    if keys is None:
        return Results(sweep, tuple(_cell(key, _params(run), run) for key, run in reversed(recorded.items())))
    return Results(sweep, tuple(_cell(key, axes, recorded.get(key)) for key, axes in keys.items()))


def replicates(results: Results) -> tuple[Fold, ...]:
    """Fold `seed`: one `Fold` per combination of the other axes, in the order of first appearance."""
    groups: dict[str, list[Cell]] = {}
    for cell in results.cells:
        others = {name: value for name, value in cell.axes.items() if name != "seed"}
        groups.setdefault(json.dumps(others, sort_keys=True), []).append(cell)
    return tuple(_fold(cells) for cells in groups.values())


def _fold(cells: Sequence[Cell]) -> Fold:
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
    return Fold(
        axes={name: value for name, value in cells[0].axes.items() if name != "seed"},
        params={name: value for name, value in fullest.params.items() if name != "seed"},
        seeds=tuple(cell.axes.get("seed", cell.params.get("seed")) for cell in done),
        keys=tuple(cell.key for cell in cells),
        metrics=metrics,
        n=n,
        interval=interval,
        state=_folded_state(cells),
        counted=tuple(cell.key for cell in done),
    )


def over_seeds(values: Sequence[float], stored: Sequence[Interval]) -> Interval | None:
    """Student's t over the seeds' values; of a single seed, the interval that was stored with it.

    Equal values have no spread and would give a width of 0, so there the hull of the stored intervals stands in.
    """
    if len(set(values)) < 2:
        return (min(low for low, _ in stored), max(high for _, high in stored)) if stored else None
    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / count)
    return mean - half, mean + half


def _interval(name: str, values: Sequence[float], stored: Sequence[Interval]) -> Interval | None:
    """An accuracy's interval ends at 0 and 1; with two seeds t is 12.7 and would leave that range often."""
    bounds = over_seeds(values, stored)
    if bounds is None or name.startswith("speed/"):
        return bounds
    return max(bounds[0], 0.0), min(bounds[1], 1.0)


def _folded_state(cells: Sequence[Cell]) -> str:
    done = sum(cell.done for cell in cells)
    if done == len(cells):
        return "done"
    others = "; ".join(dict.fromkeys(cell.state for cell in cells if not cell.done))
    return f"{done} of {len(cells)} seeds; {others}" if done else others


def runs(tracking_uri: str, sweep: str, kind: Literal["cell", "stage"]) -> Iterable["Run"]:
    """All runs of cells, or of stages, in the experiment, newest first."""
    local = tracking_uri.removeprefix("sqlite:///")
    if local != tracking_uri and not Path(local).exists():
        return  # MLflow would create the database, which takes seconds, only to find it empty.
    from mlflow import MlflowClient  # Takes a second to import, and whoever only draws does not need it.

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`ktrain.kind` = '{kind}'",
            order_by=["attributes.start_time DESC"],
            max_results=1000,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _cell(key: str, axes: Mapping[str, Axis], run: "Run | None") -> Cell:
    if run is None:
        return Cell(key=key, axes=dict(axes), params=dict(axes))
    tags = run.data.tags
    intervals = _joined(run, "ktrain.interval").items()
    return Cell(
        key=key,
        axes=dict(axes),
        params=_params(run) | dict(axes),
        # A backend stores infinities as the largest double; neither is a number that anybody measured.
        metrics={k: v for k, v in run.data.metrics.items() if math.isfinite(v) and abs(v) < 1e300},
        n={name: int(count) for name, count in _joined(run, "ktrain.n").items()},
        interval={k: (v[0], v[1]) for k, v in intervals if v and math.isfinite(v[0]) and math.isfinite(v[1])},
        stages=json.loads(tags.get("ktrain.stages", "{}")),
        runs={tag.removeprefix("ktrain.run."): run_id for tag, run_id in tags.items() if tag.startswith("ktrain.run.")},
        state=_state(run),
        scale=tags.get("ktrain.scale"),
    )


def _params(run: "Run") -> dict[str, Axis]:
    return {name: parse(text) for name, text in run.data.params.items()}


def _joined(run: "Run", name: str) -> dict[str, Any]:
    """The JSON object that stands in pieces in the tags `<name>.0`, `<name>.1` and so on.

    Raises `ValueError` naming run and tag where a piece is missing or damaged.
    """
    tags = run.data.tags
    numbers = sorted(int(tag[len(name) + 1 :]) for tag in tags if re.fullmatch(re.escape(name) + r"\.\d+", tag))
    if not numbers:
        return {}
    try:
        return dict(json.loads("".join(tags[f"{name}.{number}"] for number in numbers)))
    except ValueError as e:
        raise ValueError(f"run {run.info.run_id}: the pieces of its tag {name} are no JSON object: {e}") from e


def _state(run: "Run") -> str:
    return str(run.data.tags.get("ktrain.state", "running"))


def parse(text: str) -> Axis:
    """A param's text back as the bool, None, int, float or str that it was written from."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text in ("None", "null", ""):
        return None
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # `int` takes underscores and `float` takes names such as "nan": a text that is not its number is a name.
        return value if math.isfinite(value) and "_" not in text else text
    return text
