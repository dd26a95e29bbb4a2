"""Learning curves: accuracies, or the loss, over a pretraining; tidy, and averaged over seeds."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.measurements.cells import CONFIDENCE, Interval, Results, seed_interval
from analysis.measurements.names import LEARNING, LOSS
from analysis.measurements.recorded import find_runs
from analysis.measurements.table_rows import row_names
from analysis.measurements.tracking_client import tracking_client

if TYPE_CHECKING:
    from mlflow.entities import Run

CURVE_COLUMNS = (
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


def read_curves(tracking_uri: str, results: Results, metrics: Iterable[str] = tuple(LEARNING)) -> pd.DataFrame:
    """Reads the curves of the pretrainings behind these cells: one row per cell, metric and step.

    `setting` is the row's name in tables, `run` the pretraining's own run in MLflow (cells that share one repeat its
    curves), `fraction` the completed part of `train.steps`. An accuracy's `value` is a fraction of 1, with `n` people
    and Wilson's 95 % interval `low`, `high`, which counts all answers of a person as one and so errs on the wide side;
    other metrics lack these three. Sends one request for all runs and one for each existing curve.
    """
    curves = _curves(tracking_uri, results, tuple(metrics))
    names = row_names(results)
    lines = []
    for cell in results.cells:
        steps = cell.params.get("train.steps")
        of_cell = {
            "key": cell.key,
            "setting": names[cell.key],
            "train.qa_ratio": cell.params.get("train.qa_ratio"),
            "seed": cell.params.get("seed"),
        }
        for point in curves.get(cell.runs.get("pretrain", ""), ()):
            fraction = point["step"] / steps if isinstance(steps, int) and steps else None
            lines.append({**of_cell, "fraction": fraction, **point})
    return pd.DataFrame(lines, columns=list(CURVE_COLUMNS)).astype({"n": "Int64"})


def why_empty(results: Results, metrics: Collection[str]) -> str:
    """Returns why no pretraining of these cells has recorded any of the `metrics`, and what to ask for instead."""
    if not any("pretrain" in cell.runs for cell in results.cells):
        return f"sweep {results.sweep}: no pretraining is finished yet"
    loss = f'metrics=["{LOSS}"] has the loss of each'
    if set(metrics) <= LEARNING.keys() and not any(cell.params.get("train.qa_ratio") for cell in results.cells):
        return (
            f"sweep {results.sweep}: none of its trainings has questions mixed in (train.qa_ratio=0), and only those "
            f"are asked while they train; {loss}"
        )
    return f"sweep {results.sweep}: none of its finished pretrainings recorded {', '.join(metrics)}; {loss}"


def mean_over_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """Averages over seeds: one row per setting, `train.qa_ratio`, metric and step, with the mean of `seeds` trainings.

    `low` and `high` are Student's t over the seeds, or a single seed's own interval; `n` sums over the seeds.
    """
    names = ["setting", "train.qa_ratio", "metric", "step"]
    # Cells that share a pretraining share one curve; it must count once.
    alone = curves.drop_duplicates([*names, "run"])
    by_point: dict[Any, list[Any]] = {}
    values = zip(*(alone[name].tolist() for name in ("fraction", "value", "n", "low", "high")), strict=True)
    for place, point in zip(alone[names].itertuples(index=False, name=None), values, strict=True):
        by_point.setdefault(place, []).append(point)
    lines = [[*place, *_mean(points)] for place, points in by_point.items()]
    columns = [*names, "fraction", "value", "n", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns).astype({"n": "Int64", "low": float, "high": float})


def _mean(points: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Fraction, mean, people, low, high and count of one point over some seeds."""
    values = [value for _, value, *_ in points]
    accuracy = not any(pd.isna(n) for _, _, n, _, _ in points)
    low, high = seed_interval(values, [(low, high) for *_, low, high in points if accuracy]) or (None, None)
    if accuracy and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    people = sum(n for _, _, n, _, _ in points) if accuracy else None
    return points[0][0], math.fsum(values) / len(values), people, low, high, len(points)


def wilson(share: float, n: float) -> Interval:
    """95 % Wilson score interval of a share among `n` (Journal of the American Statistical Association 22, 1927)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _curves(tracking_uri: str, results: Results, metrics: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """All points, by run id of the pretraining."""
    wanted = {cell.runs["pretrain"] for cell in results.cells if "pretrain" in cell.runs}
    if not wanted:
        return {}
    client = tracking_client(tracking_uri)
    by_id = {
        run.info.run_id: run for run in find_runs(tracking_uri, results.sweep, "stage") if run.info.run_id in wanted
    }
    return {
        run_id: [point for metric in metrics if metric in run.data.metrics for point in _points(client, run, metric)]
        for run_id, run in by_id.items()
    }


def _points(client: Any, run: "Run", metric: str) -> Iterator[dict[str, Any]]:
    n = _people(run, metric)
    # A run that was cut short and continued may hold a step twice, with the same value.
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}
    for step, value in sorted(history.items()):
        low, high = wilson(value, n) if n else (None, None)
        yield {"run": run.info.run_id, "metric": metric, "step": step, "value": value, "n": n, "low": low, "high": high}


def _people(run: "Run", metric: str) -> int | None:
    """Number of people in the half that a learning curve measures; `None` for other metrics."""
    if metric not in LEARNING:
        return None
    half = "train" if "/train/" in metric else "test"
    return int(run.data.params.get(f"learning.n.{half}", 0)) or None
