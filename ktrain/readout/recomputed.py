"""Compares the metrics of a stage with what they rest on: its predictions, its intervals, the range of an accuracy."""

import io
import math

import pandas as pd

from ktrain import readout_registry
from ktrain.readout.kinds.base import kind_of
from ktrain.store.base import Store
from ktrain.store.json_files import Damage, parse_counts

ROUNDING = 1e-9
"""A mean that is computed in another order differs by less."""
_SHARES = ("recall/", "baseline/")
"""Metrics of any stage that are fractions of 1."""


def contradiction(store: Store, key: str) -> str | None:
    """Returns what the files of an intact stage contradict in its metrics, or None; also where the stage is gone.

    Predictions of a kind's older version are left alone: its code may have counted otherwise.
    """
    try:
        header, metrics = store.manifest(key), store.metrics(key)
        counts = parse_counts(store.read(key, "counts.json")) if "counts.json" in header["files"] else {}
        _require_ranges(metrics, counts.get("interval", {}))
        kind, version = header["kind"], header["config"].get("version")
        current = kind in readout_registry.names() and version == kind_of(kind).version
        if current and "predictions.parquet" in header["files"]:
            _require_predicted(metrics, _recomputed(kind, store.read(key, "predictions.parquet")))
    except FileNotFoundError:
        return None
    except Damage as damage:
        return str(damage)
    return None


def _require_ranges(metrics: dict[str, float], intervals: dict[str, list[float]]) -> None:
    """Raises `Damage` for a metric that is no share, or outside its own interval."""
    for name, value in metrics.items():
        if name.startswith(_SHARES) and not 0 <= value <= 1:
            raise Damage(f"metrics.json has {name}={value:g}, which is no share of 1")
    for name, (low, high) in intervals.items():
        if name not in metrics or not low - ROUNDING <= metrics[name] <= high + ROUNDING:
            raise Damage(f"counts.json has an interval of {name} from {low:g} to {high:g}, which does not hold it")


def _recomputed(kind: str, content: bytes) -> dict[str, float]:
    """The metrics that follow from a kind's predictions. Raises `Damage` for predictions that cannot be read."""
    try:
        return kind_of(kind).recomputed(pd.read_parquet(io.BytesIO(content)))
    except (ValueError, TypeError, LookupError, AttributeError, OSError):
        raise Damage("predictions.parquet is not readable as the predictions of its kind") from None


def _require_predicted(metrics: dict[str, float], recomputed: dict[str, float]) -> None:
    """Raises `Damage` for the first metric that does not follow from the predictions."""
    for name, value in recomputed.items():
        if name not in metrics or not math.isclose(metrics[name], value, rel_tol=0, abs_tol=ROUNDING):
            stored = f"{metrics[name]:g}" if name in metrics else "nothing"
            raise Damage(f"metrics.json has {name}={stored}, and predictions.parquet gives {value:g}")
