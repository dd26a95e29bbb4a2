"""Records: all that MLflow is to hold of a stage or of a cell, as the store has it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ktrain.keys import digest
from ktrain.stages import Stage
from sweeps.plan import Plan, PlannedCell

Point = tuple[str, float, int]
"""A metric's name, value and step. None has a time: points that are written twice are one to MLflow."""

PIECE = 4_500
"""Characters of a text that one tag takes; MLflow takes 5,000."""
MOST_POINTS, MOST_PARAMS, MOST_TAGS = 800, 100, 100
"""What one request may hold, at most 1,000 in all (MLflow's REST interface, `runs/log-batch`)."""
_READ = ("metrics.json", "curve.json", "learning.json")
_CURVES = ("train/loss", "speed/tokens_per_second")


@dataclass(frozen=True)
class Record:
    """One run. `about` is on it from its first moment; `tags` are written last of all, so that a run that has them
    is whole."""

    key: str
    name: str
    status: str
    about: Mapping[str, str]
    points: tuple[Point, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[tuple[Sequence[Point], Sequence[tuple[str, str]], Sequence[tuple[str, str]]]]:
        """Points, params and tags for one request after the other."""
        parts = _parts(self.points, MOST_POINTS), _parts(tuple(self.params.items()), MOST_PARAMS)
        tags = _parts(tuple(self.tags.items()), MOST_TAGS)
        count = max(map(len, (*parts, tags)))
        points, params = (part + [()] * (count - len(part)) for part in parts)
        yield from zip(points, params, [()] * (count - len(tags)) + tags, strict=True)


def built(plan: Plan, key: str) -> str:
    """What a finished stage's record is made of, in a word: one that was damaged and made again has other speeds."""
    files = plan.seen.done[key].manifest["files"]
    return digest({name: files[name]["sha256"] for name in _READ if name in files})


def of_stage(plan: Plan, stage: Stage) -> Record:
    """A finished stage with its settings as params, its curves, and its final numbers at step 0."""
    curve = _file(plan, stage.key, "curve.json") or []
    curves = [
        (name, float(point[field]), int(point["step"]))
        for point in curve
        for name, field in (
            ("train/loss", "loss"),
            ("train/learning_rate", "learning_rate"),
            ("speed/tokens_per_second", "tokens_per_second"),
        )
    ]
    learned, people = _learning(_file(plan, stage.key, "learning.json"))
    drawn = {*_CURVES, *(name for name, *_ in learned)}
    # The last point of a curve is its final number, and one at step 0 would be another point of it.
    finals = [(name, float(value), 0) for name, value in plan.seen.done[stage.key].metrics.items() if name not in drawn]
    params = {name: str(value) for name, value in (_flat(stage.identity) | people).items()}
    about = {"ktrain.key": stage.key, "ktrain.kind": "stage", "ktrain.built": built(plan, stage.key)}
    return Record(stage.key, stage.kind, "FINISHED", about, (*curves, *learned, *finals), params)


def of_cell(plan: Plan, cell: PlannedCell, links: Mapping[str, str]) -> Record:
    """A cell with its axes as params, the numbers of its finished stages, and `links`: their runs by kind."""
    metrics: dict[str, float] = {}
    tags = {"ktrain.scale": plan.scale}
    keys = {stage.kind: stage.key for stage in cell.stages if stage.kind in links}
    for key in keys.values():
        # A name that two stages have, as of speed and memory, is the earlier one's: what the cell costs.
        metrics = {**plan.seen.done[key].metrics, **metrics}
        if about := _file(plan, key, "counts.json"):
            tags |= _pieces("ktrain.n", about["n"]) | _pieces("ktrain.interval", about["interval"])
    tags["ktrain.stages"] = json.dumps({kind: plan.seen.done[key].where for kind, key in keys.items()})
    tags |= state(cell, links)
    ended = cell.state == "done" or cell.blocked
    status = "FINISHED" if ended else "FAILED" if cell.state.startswith("failed") else "SCHEDULED"
    return Record(
        cell.key,
        cell.key,
        "RUNNING" if cell.state == "running" else status,
        {"ktrain.key": cell.key, "ktrain.kind": "cell"},
        tuple((name, float(value), 0) for name, value in metrics.items()),
        {axis: str(value) for axis, value in cell.axes.items()},
        tags,
    )


def state(cell: PlannedCell, links: Mapping[str, str]) -> dict[str, str]:
    """The tags by which it is seen whether the run of a cell is up to date."""
    return {**{f"ktrain.run.{kind}": run for kind, run in links.items()}, "ktrain.state": cell.state}


def _file(plan: Plan, key: str, name: str) -> Any:
    """A JSON file of a finished stage; None where the stage has none. Raises `FileNotFoundError` for a damaged one."""
    if name not in plan.seen.done[key].manifest["files"]:
        return None
    return json.loads(plan.store.read(key, name))


def _learning(found: Any) -> tuple[list[Point], dict[str, int]]:
    """Accuracies over the steps of a mixed training, and as params over how many people of each half they are."""
    if not found:
        return [], {}
    points = [
        (name, float(value), int(point["step"]))
        for point in found["curve"]
        for name, value in point.items()
        if name != "step"
    ]
    return points, {f"learning.n.{half}": people for half, people in found["n"].items()}


def _pieces(name: str, value: Any) -> dict[str, str]:
    """A JSON text as tags `name.0`, `name.1`, ..., each short enough."""
    text = json.dumps(_short(value), separators=(",", ":"))
    return {f"{name}.{k}": text[begin : begin + PIECE] for k, begin in enumerate(range(0, len(text), PIECE))}


def _short(value: Any) -> Any:
    """Bounds of intervals to six digits, which is more than any of them is worth."""
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return [round(x, 6) for x in value] if isinstance(value, list) else value


def _flat(identity: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return flat


def _parts(whole: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [whole[begin : begin + most] for begin in range(0, len(whole), most)]
