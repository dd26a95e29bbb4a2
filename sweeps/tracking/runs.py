"""Builds the MLflow run of a stage or a cell from the store: its params, metrics and tags."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ktrain.config import CellConfig
from ktrain.fingerprint import digest, flatten
from ktrain.stages import Stage, active_axes
from ktrain.store.json_files import Damage, is_number, parse_counts, parse_curve, parse_learning, parse_tasks
from ktrain.store.manifest import STARTED
from sweeps.planning.departures import departures
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.tracking import titles
from sweeps.tracking.run_record import LINK, Point, RunRecord, chunks, differ

TAG_LENGTH = 4_500
"""Characters that go into one tag; MLflow accepts 5,000."""
_SOURCES = ("metrics.json", "curve.json", "learning.json", "tasks.json")
V = TypeVar("V")
CURVES = {"train/loss": "loss", "train/learning_rate": "learning_rate", "speed/tokens_per_second": "tokens_per_second"}
"""Metrics of a training, and their fields in `curve.json`."""
TASK_LOSS = "train/task_loss/"
"""Prefix of the loss of each adapter of a stage that trains several."""


class UndeliverableStage(Exception):
    """A stage in the store whose numbers cannot be read; the message names stage and file."""


@dataclass(frozen=True)
class CellNumbers:
    """The numbers of a cell by metric, as its finished stages have them: values, people and intervals."""

    metrics: Mapping[str, float]
    n: Mapping[str, int]
    interval: Mapping[str, Sequence[float]]


def describes(run: Any, plan: Plan, stage: Stage) -> bool:
    """Whether a run of MLflow comes from this finished stage, and if it is complete, ends with its numbers."""
    if run.data.tags.get("ktrain.built") not in (None, source_digest(plan, stage.key)):
        return False
    # The last point of a curve is its final value in `metrics.json`.
    return run.info.status != "FINISHED" or not differ(run.data.metrics, plan.snapshot.done[stage.key].metrics)


def source_digest(plan: Plan, key: str) -> str:
    """Identifies the files that a finished stage's run is made from: a stage that was rebuilt has other speeds."""
    files = plan.snapshot.done[key].manifest["files"]
    return digest({name: files[name]["sha256"] for name in _SOURCES if name in files})


def stage_record(plan: Plan, cell: PlannedCell, stage: Stage) -> RunRecord:
    """The run of a finished stage: its settings as params, its curves, and its final metrics at step 0. `cell` is the
    first that has it.

    Raises `UndeliverableStage`.
    """
    done = plan.snapshot.done[stage.key]
    curve = _file(plan, stage.key, "curve.json", parse_curve) or []
    training = [
        Point(name, float(line[field]), int(line["step"]), _seconds(line))
        for line in curve
        for name, field in CURVES.items()
    ]
    training += _task_points(curve, _file(plan, stage.key, "tasks.json", parse_tasks) or [])
    points, people = learning_points(plan, stage.key)
    if curve:
        steps, seconds = [line["step"] for line in curve], [_seconds(line) for line in curve]
        points = [p._replace(seconds=float(np.interp(p.step, steps, seconds))) for p in points]
    # The last point of a curve is its final value; one more at step 0 would become a point of the curve.
    with_curve = {"train/loss", "speed/tokens_per_second", *(point.name for point in points)}
    finals = [Point(name, float(value), 0) for name, value in done.metrics.items() if name not in with_curve]
    start, end = _span(done.manifest)
    if start is None and end is not None:
        # From before manifests held it.
        start = end - round(1000 * _seconds(curve[-1])) if curve else end
    live = live_record(plan, cell, stage, start, done.manifest["versions"])
    return replace(
        live,
        status="FINISHED",
        initial_tags={**live.initial_tags, "ktrain.built": source_digest(plan, stage.key)},
        end=end,
        points=(*training, *points, *finals),
        params={**live.params, **{name: str(count) for name, count in people.items()}},
    )


def live_record(
    plan: Plan, cell: PlannedCell, stage: Stage, start: int | None, versions: Mapping[str, Any]
) -> RunRecord:
    """The run of a stage that trains, without any of its points."""
    tags = {"ktrain.key": stage.key, "ktrain.kind": "stage", titles.NOTE: titles.stage_note(cell, stage)}
    params = {name: str(value) for name, value in flatten(stage.identity).items()}
    tags |= titles.source_tags(plan, versions)
    return RunRecord(stage.key, titles.stage_name(plan, cell, stage), "RUNNING", tags, start, params=params)


def cell_record(plan: Plan, cell: PlannedCell, links: Mapping[str, str]) -> RunRecord:
    """The run of a cell: its active axes as params, the metrics of its finished stages, and `links`, their run ids by
    kind. It spans its stages.

    Raises `UndeliverableStage`.
    """
    finished = [stage for stage in cell.stages if stage.kind in links]
    numbers, keys = cell_numbers(plan, finished), {stage.kind: stage.key for stage in finished}
    tags = {"ktrain.scale": plan.scale}
    if numbers.n:
        tags |= _text_tags("ktrain.n", numbers.n) | _text_tags("ktrain.interval", numbers.interval)
    tags["ktrain.stages"] = json.dumps({kind: plan.snapshot.done[key].where for kind, key in keys.items()})
    tags |= state_tags(cell, links)
    manifests = [plan.snapshot.done[stage.key].manifest for stage in finished]
    starts, ends = zip(*map(_span, manifests), strict=True) if manifests else ((), ())
    versions = manifests[-1]["versions"] if manifests else {}
    tags |= titles.commit_tags(str(versions.get("commit", "")))
    initial = {"ktrain.key": cell.key, "ktrain.kind": "cell", titles.NOTE: titles.cell_note(plan, cell)}
    return RunRecord(
        cell.key,
        cell.key,
        _status(cell),
        initial | titles.source_tags(plan, None),
        min(filter(None, (*starts, *ends)), default=None),
        max(filter(None, ends), default=None) if cell.state == "done" else None,
        tuple(Point(name, float(value), 0) for name, value in numbers.metrics.items()),
        {axis: str(value) for axis, value in active_axes(cell.cell).items()},
        tags,
    )


def cell_numbers(plan: Plan, stages: Sequence[Stage]) -> CellNumbers:
    """The numbers of a cell from some of its stages, all of them finished. Raises `UndeliverableStage`."""
    metrics: dict[str, float] = {}
    n: dict[str, int] = {}
    interval: dict[str, Sequence[float]] = {}
    for stage in stages:
        # Of a metric that two stages have (speed, memory), the earlier stage's value is the cost of the cell.
        metrics = {**plan.snapshot.done[stage.key].metrics, **metrics}
        if counts := _file(plan, stage.key, "counts.json", parse_counts):
            n |= counts["n"]
            interval |= _rounded(counts["interval"])
    return CellNumbers(metrics, n, interval)


def state_tags(cell: PlannedCell, links: Mapping[str, str]) -> dict[str, str]:
    """The tags that show whether the run of a cell is up to date."""
    tags = {f"{LINK}{kind}": run for kind, run in links.items()} | {"ktrain.state": cell.state}
    return tags | dict(_departure_tags(cell.cell))


@lru_cache(maxsize=10_000)
def _departure_tags(cell: CellConfig) -> tuple[tuple[str, str], ...]:
    """The tags that list where a cell departs from the paper; by them the analysis knows the same experiment."""
    return tuple(_text_tags("ktrain.departures", {"lines": departures([cell])}).items())


def _status(cell: PlannedCell) -> str:
    """MLflow's word for the state of a cell."""
    if cell.state == "running":
        return "RUNNING"
    if cell.state == "done" or cell.blocked:
        return "FINISHED"
    if cell.stopped_early:
        return "KILLED"
    return "FAILED" if cell.state.startswith("failed") else "SCHEDULED"


def _file(plan: Plan, key: str, name: str, parse: Callable[[bytes], V]) -> V | None:
    """A JSON file of a finished stage, or None if the stage has none. Raises `UndeliverableStage` if damaged."""
    if name not in plan.snapshot.done[key].manifest["files"]:
        return None
    try:
        return parse(plan.store.read(key, name))
    except FileNotFoundError:
        raise UndeliverableStage(f"{key}: {name} is missing or damaged") from None
    except Damage as damage:
        raise UndeliverableStage(f"{key}: {damage}") from None


def _task_points(curve: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[Point]:
    """The loss of each adapter of a stage. Stages of older versions do not say which is whose."""
    return [
        Point(f"{TASK_LOSS}{task}", float(loss), int(line["step"]), _seconds(line))
        for line in curve
        for task, loss in zip(tasks, line.get("members", ()), strict=False)
        if is_number(loss)
    ]


def learning_points(plan: Plan, key: str) -> tuple[list[Point], dict[str, int]]:
    """Accuracies over the steps of a mixed training; and, as params, how many people of each half they average.

    Raises `UndeliverableStage`.
    """
    content = _file(plan, key, "learning.json", parse_learning)
    if not content:
        return [], {}
    points = [
        Point(name, float(value), int(point["step"]))
        for point in content["curve"]
        for name, value in point.items()
        if name != "step"
    ]
    return points, {f"learning.n.{half}": people for half, people in content["n"].items()}


def stored_losses(plan: Plan, key: str) -> dict[int, float]:
    """The training loss of a finished stage by step. Raises `UndeliverableStage`."""
    curve = _file(plan, key, "curve.json", parse_curve) or []
    return {int(line["step"]): float(line["loss"]) for line in curve}


def _span(manifest: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Begin and end of a stage in milliseconds since the epoch, each None where its manifest does not say it."""
    return _milliseconds(manifest.get(STARTED, "")), _milliseconds(manifest["created"])


def _milliseconds(text: str) -> int | None:
    try:
        return round(1000 * datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def _seconds(line: Mapping[str, Any]) -> float:
    """Seconds of training up to a line of a curve; older curves lack them."""
    return float(line["seconds"]) if is_number(line.get("seconds")) else 0.0


def _text_tags(name: str, value: Any) -> dict[str, str]:
    """A value as JSON, divided into tags `name.0`, `name.1`, ... that are short enough."""
    text = json.dumps(_rounded(value), separators=(",", ":"))
    return {f"{name}.{k}": "".join(part) for k, part in enumerate(chunks(text, TAG_LENGTH))}


def _rounded(value: Any) -> Any:
    """The bounds of intervals to six digits, more than their precision."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [round(x, 6) if isinstance(x, float) else x for x in value] if isinstance(value, list) else value
