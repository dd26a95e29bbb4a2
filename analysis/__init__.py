"""From recorded runs to tables, figures and one report; the paper's own numbers as data.

In a notebook: `analysis.results("demo")` and `analysis.curves("fig1")` are DataFrames; docs/analysis.md has examples.
"""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Importing this package stays cheap; only its functions import pandas and MLflow.
    import pandas as pd

    from analysis.measurements.cells import Results


def results(sweep: str, tracking_uri: str | None = None, *, compact: bool = False) -> "pd.DataFrame":
    """Returns every recorded cell of a sweep, one row each; accuracies are fractions of 1.

    With `compact`, some thirty columns under short names: the setting, the common axes and those that vary, the main
    number with its interval, people, attributes and baseline, recall, loss, speed, and two folders.

    Otherwise the columns are: `key`, `state` and `scale`; each axis under its name, such as `corpus.multi`; each metric
    under its name, such as `qa/exact_match/test/mean`, with `<metric>/n` (people), `/low` and `/high` (95 % interval)
    where it has them; and `stage/<kind>`, the folders of the stages; those of readouts hold `predictions.parquet`.

    `tracking_uri` defaults to `MLFLOW_TRACKING_URI`, else to `results/mlflow.db` in the current folder.
    Raises `LookupError` if nothing is recorded of the sweep.
    """
    from analysis.measurements import compact_frame

    recorded = _recorded(sweep, _address(tracking_uri))
    return compact_frame.compact(recorded) if compact else recorded.frame()


def curves(sweep: str, tracking_uri: str | None = None, metrics: Iterable[str] | None = None) -> "pd.DataFrame":
    """Returns the learning curves of a sweep's pretrainings, one row per cell, metric and step.

    `metrics` defaults to the five of mixed training (the paper's Fig. 1b and c); `metrics=["train/loss"]` returns the
    loss, which every pretraining records. Warns why there is no row where there is none. Columns as in
    `curves.read_curves`, and errors as in `results`.
    """
    from analysis.measurements import curves
    from analysis.measurements.names import LEARNING

    uri, wanted = _address(tracking_uri), tuple(LEARNING if metrics is None else metrics)
    recorded = _recorded(sweep, uri)
    frame = curves.read_curves(uri, recorded, wanted)
    if frame.empty:
        warnings.warn(curves.why_empty(recorded, wanted), stacklevel=2)
    return frame


def _address(tracking_uri: str | None) -> str:
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('results/mlflow.db').absolute()}"


def _recorded(sweep: str, tracking_uri: str) -> "Results":
    from analysis.measurements.recorded import load_results

    recorded = load_results(tracking_uri, sweep)
    if not recorded.cells:
        raise LookupError(f"sweep {sweep}: nothing is recorded at {tracking_uri}")
    for doubt in recorded.doubts:
        warnings.warn(doubt, stacklevel=3)
    return recorded
