"""From recorded runs to tables, figures and one report; the paper's own numbers as data.

In a notebook: `analysis.results("demo")` and `analysis.curves("fig1")` are DataFrames; docs/analysis.md has examples.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Importing this package stays cheap; whoever calls pays for pandas and MLflow.
    import pandas as pd

    from analysis.cells import Results


def results(sweep: str, tracking_uri: str | None = None) -> "pd.DataFrame":
    """Every cell recorded of a sweep, one row each; accuracies are fractions of 1.

    Columns: `key`, `state` and `scale`; each axis under its name, such as `corpus.multi`; each metric under its name,
    such as `qa/exact_match/test/mean`, with `<metric>/n` (people), `/low` and `/high` (95 % interval) where it has
    them; and `stage/<kind>`, the folders of the stages, with `predictions.parquet` in those of readouts.

    `tracking_uri` is by default that of `MLFLOW_TRACKING_URI`, else of `results/mlflow.db` in the current folder.
    Raises `LookupError` where nothing is recorded of the sweep.
    """
    return _recorded(sweep, _address(tracking_uri)).frame()


def curves(sweep: str, tracking_uri: str | None = None, metrics: Iterable[str] | None = None) -> "pd.DataFrame":
    """The learning curves of a sweep's pretrainings, one row per cell, metric and step.

    By default the five of mixed training (the paper's Fig. 1b and c); `metrics=["train/loss"]` are the losses, which
    every pretraining has. Columns as in `analysis.learning.read`, and errors as in `results`.
    """
    from analysis import learning
    from analysis.names import LEARNING

    uri = _address(tracking_uri)
    return learning.read(uri, _recorded(sweep, uri), tuple(LEARNING if metrics is None else metrics))


def _address(tracking_uri: str | None) -> str:
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('results/mlflow.db').absolute()}"


def _recorded(sweep: str, tracking_uri: str) -> "Results":
    from analysis import cells

    found = cells.load(tracking_uri, sweep)
    if not found.cells:
        raise LookupError(f"sweep {sweep}: nothing is recorded at {tracking_uri}")
    return found
