"""Reads the JSON files of a stage: whatever is not what it should be is `Damage`."""

import json
import math
from collections.abc import Callable
from typing import Any, TypeGuard


class Damage(Exception):
    """Names the file of a stage that is wrong, and how."""


def parse_json(content: bytes, name: str) -> Any:
    """Parses a file in UTF-8. Raises `Damage` for anything but JSON, for NaN and infinities, and for numbers of
    thousands of digits and values nested a thousand deep, which no stage writes."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Damage(f"{name} is not readable as JSON") from None


def parse_metrics(content: bytes, name: str = "metrics.json") -> dict[str, float]:
    """Parses the metrics of a stage, which are finite numbers by name. Raises `Damage`."""
    metrics = parse_json(content, name)
    if not _numbers(metrics):
        raise Damage(f"{name} does not hold numbers by name")
    return metrics


def parse_curve(content: bytes, name: str = "curve.json") -> list[dict[str, Any]]:
    """Parses the curve of a training, a list of points. Raises `Damage`."""
    curve = parse_json(content, name)
    fields = ("step", "loss", "learning_rate", "tokens_per_second")
    if not isinstance(curve, list) or not all(
        is_mapping(point) and all(is_number(point.get(field)) for field in fields) for point in curve
    ):
        raise Damage(f"{name} does not hold the points of a curve")
    return curve


def parse_losses(content: bytes, name: str = "paused.json") -> dict[int, float]:
    """Parses the losses of a training by step. Raises `Damage`."""
    losses = parse_json(content, name)
    if not _numbers(losses) or not all(step.isdecimal() for step in losses):
        raise Damage(f"{name} does not hold losses by step")
    return {int(step): float(loss) for step, loss in losses.items()}


def parse_learning(content: bytes, name: str = "learning.json") -> dict[str, Any]:
    """Parses learning curves: `n`, how many people each half has, and `curve`, a list of points. Raises `Damage`."""
    learning = parse_json(content, name)
    if (
        not is_mapping(learning)
        or not _numbers(learning.get("n"))
        or not isinstance(learning.get("curve"), list)
        or not all(_numbers(point) and "step" in point for point in learning["curve"])
    ):
        raise Damage(f"{name} does not hold learning curves")
    return learning


def parse_counts(content: bytes, name: str = "counts.json") -> dict[str, Any]:
    """Parses what belongs to metrics: `n`, the number of people, and `interval`, two bounds. Raises `Damage`."""
    counts = parse_json(content, name)
    if (
        not is_mapping(counts)
        or not _numbers(counts.get("n"))
        or not is_mapping(counts.get("interval"), list)
        or not all(len(bounds) == 2 and all(map(is_number, bounds)) for bounds in counts["interval"].values())
    ):
        raise Damage(f"{name} does not hold the counts and intervals of metrics")
    return counts


def parse_tasks(content: bytes, name: str = "tasks.json") -> list[str]:
    """Parses the tasks of a stage's adapters, in the order of the losses in its curve. Raises `Damage`."""
    tasks = parse_json(content, name)
    if not isinstance(tasks, list) or not all(isinstance(task, str) and task.isprintable() for task in tasks):
        raise Damage(f"{name} does not hold the names of tasks")
    return tasks


PARSERS: dict[str, Callable[[bytes], object]] = {
    "metrics.json": parse_metrics,
    "curve.json": parse_curve,
    "learning.json": parse_learning,
    "counts.json": parse_counts,
    "tasks.json": parse_tasks,
}
"""The files that numbers are shown from, by their names in every stage."""


def is_mapping(value: Any, of: type = object) -> TypeGuard[dict[str, Any]]:
    """Whether a parsed value is an object with printable names and values of the type `of`."""
    return isinstance(value, dict) and all(
        name.isprintable() and isinstance(inner, of) for name, inner in value.items()
    )


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a parsed value is a finite number; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _numbers(value: Any) -> TypeGuard[dict[str, float]]:
    """Whether a parsed value is an object with finite numbers."""
    return is_mapping(value) and all(map(is_number, value.values()))


def _refuse(constant: str) -> None:
    raise ValueError(constant)
