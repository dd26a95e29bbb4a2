"""Reads from MLflow what it holds about the cells of a plan; numbers that cannot be right are left out and named."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.measurements.cells import Axis, Cell, Interval, Results
from analysis.measurements.names import GROUPS
from analysis.measurements.other_kinds import other_kinds
from analysis.measurements.tracking_client import tracking_client

if TYPE_CHECKING:
    from mlflow.entities import Run

ACCURACIES = ("recall/", "baseline/", "start/", "bio/", *(f"{group}/" for group in GROUPS))
"""Prefixes of metrics that are fractions of 1."""
ROUNDED = 1e-6
"""Recorded bounds of intervals are rounded to this."""


def load_results(tracking_uri: str, sweep: str, keys: Mapping[str, Mapping[str, Axis]] | None = None) -> Results:
    """Read the cells `keys` (key -> axes) of experiment `sweep`; a cell without a run is `missing`.

    Without `keys`, returns every cell ever recorded, the oldest first, with all its params as axes. A value in `keys`
    takes precedence over the recorded text, so it keeps the plan's type. Creates nothing: without the SQLite file or
    the experiment, all cells are missing. Raises MLflow's own exception if the tracking server does not answer.
    """
    recorded: dict[str, Run] = {}
    kinds = other_kinds(_experiment_tags(tracking_uri, sweep))
    for run in find_runs(tracking_uri, sweep, "cell"):
        key = run.data.tags.get("ktrain.key", "")
        # Runs come newest first; a later unfinished run must not hide a finished one.
        if key not in recorded or (_state(run) == "done" and _state(recorded[key]) != "done"):
            recorded[key] = run
    if keys is None:
        return Results(sweep, tuple(_cell(key, _params(run), run) for key, run in reversed(recorded.items())), kinds)
    return Results(sweep, tuple(_cell(key, axes, recorded.get(key)) for key, axes in keys.items()), kinds)


def _experiment(tracking_uri: str, sweep: str) -> tuple[Any, Any]:
    """A client and the sweep's experiment, which is None if there is none."""
    local = tracking_uri.removeprefix("sqlite:///")
    if local != tracking_uri and not Path(local).exists():
        return None, None  # MLflow would create the database, which takes seconds, only to find it empty.
    client = tracking_client(tracking_uri)
    return client, client.get_experiment_by_name(sweep)


def _experiment_tags(tracking_uri: str, sweep: str) -> dict[str, str]:
    _, experiment = _experiment(tracking_uri, sweep)
    return dict(experiment.tags) if experiment else {}


def find_runs(tracking_uri: str, sweep: str, kind: Literal["cell", "stage"]) -> Iterable["Run"]:
    """Yields all runs of cells, or of stages, in the experiment, newest first."""
    client, experiment = _experiment(tracking_uri, sweep)
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
    """One malformed run must not hide the others."""
    empty = Cell(key=key, axes=dict(axes), params=dict(axes))
    if run is None:
        return empty
    try:
        return _recorded_cell(key, axes, run)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        return replace(empty, doubts=(f"{key}: MLflow holds what cannot be read: {str(e)[:200]}",))


def _recorded_cell(key: str, axes: Mapping[str, Axis], run: "Run") -> Cell:
    """Leaves out numbers that cannot be right. Raises `ValueError` and others for a tag that does not hold what it
    should."""
    tags = run.data.tags
    intervals = _joined_tags(run, "ktrain.interval").items()
    interval = {k: (v[0], v[1]) for k, v in intervals if v and math.isfinite(v[0]) and math.isfinite(v[1])}
    # Backends store infinities as the largest double; neither is a measurement.
    metrics = {k: v for k, v in run.data.metrics.items() if math.isfinite(v) and abs(v) < 1e300}
    doubts = {name: line for name, v in metrics.items() if (line := _doubt(name, v, interval.get(name)))}
    return Cell(
        key=key,
        axes=dict(axes),
        params=_params(run) | dict(axes),
        metrics={name: value for name, value in metrics.items() if name not in doubts},
        n={name: int(count) for name, count in _joined_tags(run, "ktrain.n").items()},
        interval=interval,
        doubts=tuple(f"{key}: MLflow has {line}; it is left out" for line in doubts.values()),
        stages=json.loads(tags.get("ktrain.stages", "{}")),
        runs={tag.removeprefix("ktrain.run."): run_id for tag, run_id in tags.items() if tag.startswith("ktrain.run.")},
        state=_state(run),
        scale=tags.get("ktrain.scale"),
        imported=tags.get("ktrain.imported", ""),
        departures=_departures(run),
    )


def _doubt(name: str, value: float, interval: Interval | None) -> str | None:
    """What cannot be right about a metric, in words."""
    if name.startswith(ACCURACIES) and not 0 <= value <= 1:
        return f"{name}={value:g}, which is no share of 1"
    if interval and not interval[0] - ROUNDED <= value <= interval[1] + ROUNDED:
        return f"{name}={value:g}, outside its own interval from {interval[0]:g} to {interval[1]:g}"
    return None


def _departures(run: "Run") -> tuple[str, ...] | None:
    lines = _joined_tags(run, "ktrain.departures").get("lines")
    return None if lines is None else tuple(map(str, lines))


def _params(run: "Run") -> dict[str, Axis]:
    return {name: parse_param(text) for name, text in run.data.params.items()}


def _joined_tags(run: "Run", name: str) -> dict[str, Any]:
    """The JSON object whose text is split over the tags `<name>.0`, `<name>.1` and so on.

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


def parse_param(text: str) -> Axis:
    """Converts a param's text back to the bool, None, int, float or str that it was written from."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text in ("None", "null", ""):
        return None
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # `int` accepts underscores and `float` accepts "nan"; such texts are names, not numbers.
        return value if math.isfinite(value) and "_" not in text else text
    return text
