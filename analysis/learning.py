"""Learning curves: how accuracies, or the loss, went over a pretraining, tidy and folded over seeds."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.special import ndtri

from analysis.cells import CONFIDENCE, Interval, Results, over_seeds, runs
from analysis.names import LEARNING, PROBES, QUESTIONS
from analysis.rows import rows

if TYPE_CHECKING:
    from mlflow.entities import Run

COLUMNS = (
    "key",
    "setting",
    "train.qa_ratio",
    "seed",
    "run",
    "metric",
    "step",
    "fraction",
    "value",
    "n",
    "low",
    "high",
)


def read(tracking_uri: str, results: Results, metrics: Iterable[str] = tuple(LEARNING)) -> pd.DataFrame:
    """The curves of the pretrainings behind these cells, one row per cell, metric and step.

    `setting` is the row's name in tables, `run` the pretraining's own run in MLflow (cells that share one repeat its
    curves), `fraction` the part of `train.steps` that is done. `value` is a fraction of 1 for accuracies, with `n`
    people and Wilson's 95 % interval `low`, `high`; several answers of one person count as one, which is on the safe
    side. Of other metrics these three are missing. One request finds all runs, one each fetches a curve that is there.
    """
    curves = _curves(tracking_uri, results, tuple(metrics))
    names = {
        key: row.name
        for kinds in (QUESTIONS, PROBES)
        for row in rows(results, kinds)
        for fold in row.folds.values()
        for key in fold.keys
    }
    lines = []
    for cell in results.cells:
        steps = cell.params.get("train.steps")
        about = {
            "key": cell.key,
            "setting": names[cell.key],
            "train.qa_ratio": cell.params.get("train.qa_ratio"),
            "seed": cell.params.get("seed"),
        }
        for point in curves.get(cell.runs.get("pretrain", ""), ()):
            fraction = point["step"] / steps if isinstance(steps, int) and steps else None
            lines.append({**about, "fraction": fraction, **point})
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"n": "Int64"})


def folded(curves: pd.DataFrame) -> pd.DataFrame:
    """Seeds folded: one row per setting, `train.qa_ratio`, metric and step, with the mean of `seeds` trainings.

    `low` and `high` are Student's t over the seeds, of one seed its own interval; `n` is of all seeds together.
    """
    names = ["setting", "train.qa_ratio", "metric", "step"]
    # Cells that share a pretraining have the same curve, not two.
    alone = curves.drop_duplicates([*names, "run"])
    groups: dict[Any, list[Any]] = {}
    values = zip(*(alone[name].tolist() for name in ("fraction", "value", "n", "low", "high")), strict=True)
    for place, point in zip(alone[names].itertuples(index=False, name=None), values, strict=True):
        groups.setdefault(place, []).append(point)
    lines = [[*place, *_mean(points)] for place, points in groups.items()]
    columns = [*names, "fraction", "value", "n", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns).astype({"n": "Int64", "low": float, "high": float})


def _mean(points: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Fraction, mean, people, low, high and number of the points of some seeds."""
    values = [value for _, value, *_ in points]
    accuracy = not any(pd.isna(n) for _, _, n, _, _ in points)
    low, high = over_seeds(values, [(low, high) for *_, low, high in points if accuracy]) or (None, None)
    if accuracy and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    people = sum(n for _, _, n, _, _ in points) if accuracy else None
    return points[0][0], math.fsum(values) / len(values), people, low, high, len(points)


def wilson(share: float, n: float) -> Interval:
    """Wilson's score interval, 95 %, of a share of `n` (Journal of the American Statistical Association 22, 1927)."""
    z = float(ndtri((1 + CONFIDENCE) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _curves(tracking_uri: str, results: Results, metrics: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """All points by the run of the pretraining."""
    wanted = {cell.runs["pretrain"] for cell in results.cells if "pretrain" in cell.runs}
    if not wanted:
        return {}
    from mlflow import MlflowClient  # Takes a second to import, and whoever only draws does not need it.

    client = MlflowClient(tracking_uri=tracking_uri)
    found = {run.info.run_id: run for run in runs(tracking_uri, results.sweep, "stage") if run.info.run_id in wanted}
    return {
        run_id: [point for metric in metrics if metric in run.data.metrics for point in _points(client, run, metric)]
        for run_id, run in found.items()
    }


def _points(client: Any, run: "Run", metric: str) -> Iterator[dict[str, Any]]:
    n = _people(run, metric)
    # A run that was cut short and continued may hold a step twice, with the same value.
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}
    for step, value in sorted(history.items()):
        low, high = wilson(value, n) if n else (None, None)
        yield {"run": run.info.run_id, "metric": metric, "step": step, "value": value, "n": n, "low": low, "high": high}


def _people(run: "Run", metric: str) -> int | None:
    """How many people a learning curve is over: those of its half."""
    if metric not in LEARNING:
        return None
    half = "train" if "/train/" in metric else "test"
    return int(run.data.params.get(f"learning.n.{half}", 0)) or None
