"""Reading MLflow and folding seeds."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from analysis.measurements.cells import Axis, Cell, Results, group_replicates
from analysis.measurements.recorded import load_results, parse_param

MEAN = "qa/exact_match/test/mean"


def test_load_returns_the_plan_in_its_order_with_types(recorded: tuple[str, dict[str, Any]]) -> None:
    results = load_results(recorded[0], "demo", recorded[1])
    assert [cell.key for cell in results.cells] == ["first", "second", "blocked", "absent"]
    first, second, blocked, absent = results.cells
    assert first.state == "done", "a finished run must not be hidden by a later unfinished one"
    assert first.metrics[MEAN] == pytest.approx(0.021)
    assert first.n[MEAN] == 1500 and first.interval[MEAN] == pytest.approx((0.0, 0.051))
    assert second.params["corpus.fullname"] is False and second.params["corpus.multi"] == 5
    assert second.params["model.size"] == "124m" and second.params["model.dropout"] == 0.0
    assert second.scale == "mini" and second.stages == {"pretrain": "pretrain-1"}
    assert blocked.state == "blocked: recall 71 %" and MEAN not in blocked.metrics
    assert absent.state == "missing" and absent.axes["seed"] == 7 and not absent.metrics
    assert results.done == 2


def test_what_was_not_measured_is_no_metric(recorded: tuple[str, dict[str, Any]]) -> None:
    assert all(
        "speed/tokens_per_second" not in cell.metrics for cell in load_results(recorded[0], "demo", recorded[1]).cells
    )


def test_a_lost_piece_is_named(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    tags = {"ktrain.key": "a", "ktrain.kind": "cell", "ktrain.n.0": '{"x": 1', "ktrain.n.2": "}"}
    run = client.create_run(client.create_experiment("demo"), tags=tags).info.run_id
    assert load_results(uri, "demo", {"a": {}}).cells[0].n == {"x": 1}
    client.delete_tag(run, "ktrain.n.2")
    (cell,) = load_results(uri, "demo", {"a": {}}).cells
    assert cell.state == "missing" and not cell.n and not cell.metrics
    assert len(cell.doubts) == 1 and re.match(rf"a: MLflow holds what cannot be read: .*{run}.*ktrain\.n", *cell.doubts)


def test_an_unknown_sweep_is_all_missing(recorded: tuple[str, dict[str, Any]]) -> None:
    assert {cell.state for cell in load_results(recorded[0], "other", recorded[1]).cells} == {"missing"}


def test_reading_creates_no_database(missing_database: Path) -> None:
    results = load_results(f"sqlite:///{missing_database}", "demo", {"a": {"seed": 0}})
    assert results.cells[0].state == "missing" and not missing_database.exists()


def test_replicates_against_numbers_by_hand(make: Callable[..., Cell]) -> None:
    replicates = group_replicates(Results("s", tuple(make(v, seed=k) for k, v in enumerate((0.6, 0.7, 0.8)))))[0]
    assert replicates.metrics[MEAN] == pytest.approx(0.7)
    assert replicates.seeds == (0, 1, 2) and replicates.n[MEAN] == 4500 and replicates.state == "done"
    # s = 0.1, t(0.975, 2) = 4.302653: 0.7 -+ 4.302653 * 0.1 / sqrt(3)
    assert replicates.interval[MEAN] == pytest.approx((0.7 - 0.248414, 0.7 + 0.248414), abs=1e-6)


def test_one_seed_keeps_the_stored_interval(make: Callable[..., Cell]) -> None:
    assert group_replicates(Results("s", (make(0.5),)))[0].interval[MEAN] == pytest.approx((0.47, 0.53))


def test_equal_seeds_keep_the_stored_intervals_hull(make: Callable[..., Cell]) -> None:
    replicates = group_replicates(Results("s", (make(1.0, seed=0), make(1.0, seed=1))))[0]
    assert replicates.interval[MEAN] == pytest.approx((0.97, 1.0))


def test_unfinished_seeds_do_not_count_but_are_named(make: Callable[..., Cell]) -> None:
    replicates = group_replicates(Results("s", (make(0.5, seed=0), make(0.9, state="running", seed=1))))[0]
    assert replicates.metrics[MEAN] == pytest.approx(0.5) and replicates.seeds == (0,)
    assert replicates.state == "1 of 2 seeds; running"


def test_an_unfinished_cell_has_no_result_but_its_recall(make: Callable[..., Cell]) -> None:
    replicates = group_replicates(Results("s", (make(0.9, state="running"),)))[0]
    assert not replicates.done and MEAN not in replicates.metrics and "recall/attribute_tokens" in replicates.metrics


def test_settings_keep_plan_order(make: Callable[..., Cell]) -> None:
    cells = [make(0.5, seed=s, multi=m) for s in (0, 1) for m in (5, 1, 2)]
    assert [replicates.axes["corpus.multi"] for replicates in group_replicates(Results("s", tuple(cells)))] == [5, 1, 2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_a_fold_lies_among_its_seeds(values: list[float]) -> None:
    cells = [Cell(key=str(k), axes={"seed": k}, metrics={MEAN: v}, state="done") for k, v in enumerate(values)]
    (replicates,) = group_replicates(Results("s", tuple(cells)))
    assert min(values) - 1e-12 <= replicates.metrics[MEAN] <= max(values) + 1e-12
    if MEAN in replicates.interval:
        low, high = replicates.interval[MEAN]
        assert 0 <= low <= replicates.metrics[MEAN] + 1e-12 and replicates.metrics[MEAN] - 1e-12 <= high <= 1


@given(st.one_of(st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_params_come_back_as_they_were(value: Axis) -> None:
    back = parse_param(str(value))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("text", ["gpt2", "bpe-2048", "124m", "nan", "inf", "1_000"])
def test_names_stay_names(text: str) -> None:
    assert parse_param(text) == text


def test_frame_has_a_row_per_cell(contrast: Results) -> None:
    frame = contrast.frame()
    assert len(frame) == 4 and frame.loc[0, f"{MEAN}/n"] == 1500
    assert math.isnan(frame.loc[3, MEAN])  # type: ignore[arg-type]
