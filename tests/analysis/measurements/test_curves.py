"""Learning curves from a real MLflow, averaged over seeds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from scipy.stats import binomtest

from analysis.measurements.cells import Cell, Results
from analysis.measurements.curves import CURVE_COLUMNS, mean_over_seeds, read_curves, wilson
from analysis.measurements.names import LEARNING, LOSS

BIO, WHOLE = "bio/first_token/train/mean", "mixed/exact_match/test/mean"
STEPS = (0, 450, 900)


@pytest.fixture(scope="module")
def trained(recorded: tuple[str, Any], make: Callable[..., Cell]) -> tuple[str, Results]:
    """Two seeds of a mixed training, a probe of the first one's network, and one that was never mixed."""
    uri = recorded[0]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("trained")

    def stage(shift: float, curves: Mapping[str, float]) -> dict[str, str]:
        run = client.create_run(experiment, tags={"ktrain.key": f"pretrain-{shift}", "ktrain.kind": "stage"})
        for half, people in (("train", 30), ("test", 20)) if WHOLE in curves else ():
            client.log_param(run.info.run_id, f"learning.n.{half}", people)
        for name, end in curves.items():
            for step in STEPS:
                client.log_metric(run.info.run_id, name, end * step / STEPS[-1], step=step)
        return {"corpus": "other", "pretrain": run.info.run_id}

    mixed = {"readout": "mixed", "qa_ratio": 0.5}
    ends = {name: 0.6 for name in LEARNING} | {LOSS: 2.0}
    first, second = stage(0.0, ends), stage(0.1, ends | {WHOLE: 0.8})
    # A fault would be to take a curve again from a second attempt, or from a run that no cell points to.
    client.log_metric(first["pretrain"], BIO, 0.3, step=450)
    stage(0.5, ends)
    cells = (
        replace(make(0.6, **mixed), runs=first, params=dict(make(0.6, **mixed).params) | {"train.steps": 900}),
        replace(make(0.8, seed=1, **mixed), runs=second),
        replace(make(0.5, readout="q_probe", qa_ratio=0.5), runs=first),
        replace(make(0.1), runs=stage(0.2, {LOSS: 1.0})),
        make(state="planned", multi=5, **mixed),
    )
    return uri, Results("trained", cells)


def test_a_row_for_each_cell_metric_and_step(trained: tuple[str, Results]) -> None:
    frame = read_curves(*trained)
    assert tuple(frame.columns) == CURVE_COLUMNS
    first, second, probe = (cell.key for cell in trained[1].cells[:3])
    assert set(frame["key"]) == {first, second, probe}
    assert not frame.duplicated(["key", "metric", "step"]).any() and len(frame) == 3 * 5 * 3
    curve = frame[(frame["key"] == second) & (frame["metric"] == WHOLE)]
    assert curve["step"].tolist() == list(STEPS) and curve["fraction"].tolist() == [0, 0.5, 1]
    assert curve["value"].tolist() == pytest.approx([0, 0.4, 0.8])
    assert set(curve["n"]) == {20} and set(frame[frame["metric"] == BIO]["n"]) == {30}
    assert set(curve["setting"]) == {"bioS single"} and set(curve["seed"]) == {1}
    assert set(curve["train.qa_ratio"]) == {0.5}
    assert curve["low"].tolist()[1:] == pytest.approx([wilson(0.4, 20)[0], wilson(0.8, 20)[0]])


def test_losses_have_no_people(trained: tuple[str, Results]) -> None:
    frame = read_curves(*trained, [LOSS])
    assert set(frame["metric"]) == {LOSS} and frame["key"].nunique() == 4
    assert frame["n"].isna().all() and frame["low"].isna().all()
    replicates = mean_over_seeds(frame)
    plain = replicates[replicates["train.qa_ratio"] == 0]
    assert plain["value"].tolist() == [0, 0.5, 1] and plain["low"].isna().all() and plain["n"].isna().all()


def test_nothing_is_asked_of_a_server_for_nothing(contrast: Results) -> None:
    frame = read_curves("nonsense://nowhere", contrast)
    assert frame.empty and tuple(frame.columns) == CURVE_COLUMNS
    assert mean_over_seeds(frame).empty


def test_seeds_are_folded_and_shared_trainings_count_once(trained: tuple[str, Results]) -> None:
    replicates = mean_over_seeds(read_curves(*trained))
    assert not replicates.duplicated(["setting", "train.qa_ratio", "metric", "step"]).any() and len(replicates) == 5 * 3
    end = replicates[(replicates["metric"] == WHOLE) & (replicates["step"] == 900)].iloc[0]
    assert end["value"] == pytest.approx(0.7) and end["seeds"] == 2 and end["n"] == 40
    # Two seeds at 0.6 and 0.8: t(0.975, 1) = 12.7 leaves the range of an accuracy, and is cut.
    assert (end["low"], end["high"]) == (0.0, 1.0)
    same = replicates[(replicates["metric"] == BIO) & (replicates["step"] == 900)].iloc[0]
    assert (same["low"], same["high"]) == pytest.approx(wilson(0.6, 30)), "equal seeds keep the stored interval"


def test_one_seed_keeps_its_own_interval(trained: tuple[str, Results]) -> None:
    alone = Results("trained", trained[1].cells[1:2])
    end = mean_over_seeds(read_curves(trained[0], alone)).query("metric == @WHOLE and step == 900").iloc[0]
    assert end["seeds"] == 1 and (end["low"], end["high"]) == pytest.approx(wilson(0.8, 20))


def test_losses_may_leave_the_range_of_accuracies() -> None:
    lines = [["k", "s", 0.0, seed, f"r{seed}", LOSS, 1, 0.5, 2.0 + seed, None, None, None] for seed in (0, 1)]
    replicates = mean_over_seeds(
        pd.DataFrame(lines, columns=list(CURVE_COLUMNS)).astype({"n": "Int64", "low": float, "high": float})
    )
    # Of 2 and 3: t(0.975, 1) / 2 = 6.353 on either side.
    assert replicates["value"].item() == 2.5 and replicates["low"].item() == pytest.approx(2.5 - 6.3531, abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(pair: tuple[int, int]) -> None:
    right, n = pair
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
