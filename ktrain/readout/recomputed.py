"""Compares the metrics of a stage with what they rest on: its kind, its predictions, its intervals, the range of an
accuracy."""

import io
import math
from collections.abc import Callable

import pandas as pd

from ktrain import readout_registry
from ktrain.config import ATTRIBUTES
from ktrain.readout.kinds.base import TRAINING_METRICS, ReadoutKind, kind_of
from ktrain.stages import VERSIONS
from ktrain.store.base import Store
from ktrain.store.json_files import Damage, parse_counts

ROUNDING = 1e-9
"""A mean that is computed in another order differs by less."""
_SHARES = ("recall/", "baseline/", "start/")
"""Metrics of any stage that are fractions of 1."""
_HALVES = [f"first_token/{half}/mean" for half in ("train", "test")]
_CORPUS = frozenset(f"corpus/{name}" for name in ("entries", "tokens", "tokens_per_entry", "acceptance"))
_PRETRAIN = (
    TRAINING_METRICS
    | {f"recall/{whose}" for whose in ("attribute_tokens", "minority", "celebrity")}
    | {f"bio/{column}" for column in _HALVES}
    | {"train/loss", "windows/nameless_attribute_tokens", "forgetting/loss_before", "forgetting/loss_after"}
)
"""Every metric that a stage of these kinds can hold (`ktrain.pipeline`), besides those of `_BY_ATTRIBUTE`."""
_BY_ATTRIBUTE = "baseline/test", "start/exact_match/test", "start/first_token/test"
"""What a pretraining holds of each attribute, and as a mean."""


def contradiction(store: Store, key: str) -> str | None:
    """Returns what the files of an intact stage contradict in its metrics, or None; also where the stage is gone.

    Names and predictions of an older version are left alone: its code may have counted otherwise.
    """
    try:
        header, metrics = store.manifest(key), store.metrics(key)
        counts = parse_counts(store.read(key, "counts.json")) if "counts.json" in header["files"] else {}
        _require_ranges(metrics, counts.get("interval", {}))
        _require_counted(metrics, counts.get("n", {}))
        name, version = header["kind"], header["config"].get("version")
        attributes = (*ATTRIBUTES, *header["config"].get("attributes", ()))
        if name == "corpus" and version == VERSIONS[name]:
            _require_names(name, _CORPUS.__contains__, metrics)
        elif name == "pretrain" and version == VERSIONS[name]:
            held = _PRETRAIN | {f"{of}/{column}" for of in _BY_ATTRIBUTE for column in ("mean", *attributes)}
            _require_names(name, held.__contains__, metrics)
        elif name in readout_registry.names() and version == kind_of(name).version:
            kind = kind_of(name)
            _require_names(name, lambda metric: kind.writes(metric, attributes), metrics)
            if "predictions.parquet" in header["files"]:
                _require_predicted(kind, metrics, store.read(key, "predictions.parquet"))
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


def _require_counted(metrics: dict[str, float], people: dict[str, float]) -> None:
    """Raises `Damage` for a number of people that belongs to no metric or is not a whole number from 1."""
    for name, count in people.items():
        if name not in metrics:
            raise Damage(f"counts.json has {count:g} people of {name}, which metrics.json does not have")
        if count < 1 or count != int(count):
            raise Damage(f"counts.json has {count:g} people of {name}, which is no number of people")


def _require_names(kind: str, writes: Callable[[str], bool], metrics: dict[str, float]) -> None:
    """Raises `Damage` for the first metric that no stage of the kind can hold."""
    for name, value in metrics.items():
        if not writes(name):
            raise Damage(f"metrics.json has {name}={value:g}, which no {kind} writes")


def _require_predicted(kind: ReadoutKind, metrics: dict[str, float], predictions: bytes) -> None:
    """Raises `Damage` for the first metric that does not follow from the predictions, and for predictions that cannot
    be read. Of a built-in kind, every metric with its prefix follows from them."""
    recomputed = _recomputed(kind, predictions)
    for name, value in recomputed.items():
        if name not in metrics or not math.isclose(metrics[name], value, rel_tol=0, abs_tol=ROUNDING):
            stored = f"{metrics[name]:g}" if name in metrics else "nothing"
            raise Damage(f"metrics.json has {name}={stored}, and predictions.parquet gives {value:g}")
    if kind.name not in readout_registry.BUILT_IN:
        return
    for name, value in metrics.items():
        if name.startswith(f"{kind.metric_prefix}/") and name not in recomputed:
            raise Damage(f"metrics.json has {name}={value:g}, and predictions.parquet gives nothing")


def _recomputed(kind: ReadoutKind, predictions: bytes) -> dict[str, float]:
    """The metrics that follow from a kind's predictions. Raises `Damage` for predictions that cannot be read."""
    try:
        return kind.recomputed(pd.read_parquet(io.BytesIO(predictions)))
    except (ValueError, TypeError, LookupError, AttributeError, OSError):
        raise Damage("predictions.parquet is not readable as the predictions of its kind") from None
