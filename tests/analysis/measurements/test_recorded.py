"""Numbers in MLflow that cannot be right are left out and named, and no run hides another."""

import json
import warnings
from collections.abc import Mapping

import pytest
from mlflow import MlflowClient

import analysis
from analysis.measurements.cells import Cell
from analysis.measurements.recorded import load_results

MEAN = "qa/exact_match/test/mean"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('recorded') / 'mlflow.db'}")


def recorded(
    client: MlflowClient, sweep: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
) -> tuple[Cell, ...]:
    """The cells `good` and `odd` of a sweep; `odd` has these metrics and tags."""
    experiment = client.create_experiment(sweep)
    for key, own in (("good", {MEAN: 0.5}), ("odd", metrics)):
        named = {"ktrain.key": key, "ktrain.kind": "cell", "ktrain.state": "done"}
        run = client.create_run(experiment, tags=named | (dict(tags or {}) if key == "odd" else {})).info.run_id
        for name, value in own.items():
            client.log_metric(run, name, value)
    return load_results(client.tracking_uri, sweep, {"good": {}, "odd": {}}).cells


SHARES = [MEAN, "mixed/first_token/test/major", "recall/attribute_tokens", "baseline/test/mean"]
SHARES += ["q_probe/first/mean", "p_probe/whole/0/mean", "bio/first_token/test/mean"]


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [7.0, 1.001, -0.5])
def test_an_accuracy_is_a_share_of_one(client: MlflowClient, name: str, value: float) -> None:
    good, odd = recorded(client, f"{name} {value}", {name: value, "speed/tokens_per_second": 900.0})
    assert odd.metrics == {"speed/tokens_per_second": 900.0} and odd.done
    assert odd.doubts == (f"odd: MLflow has {name}={value:g}, which is no share of 1; it is left out",)
    assert good.metrics == {MEAN: 0.5} and not good.doubts


@pytest.mark.parametrize(("value", "right"), [(0.99, False), (0.7, False), (0.781, True), (0.8, True), (0.823, True)])
def test_a_value_lies_inside_its_own_interval(client: MlflowClient, value: float, right: bool) -> None:
    tags = {"ktrain.n.0": json.dumps({MEAN: 30}), "ktrain.interval.0": json.dumps({MEAN: [0.781, 0.823]})}
    _, odd = recorded(client, f"interval {value}", {MEAN: value}, tags)
    assert (MEAN in odd.metrics) == right == (not odd.doubts)
    if not right:
        assert f"{MEAN}={value:g}, outside its own interval from 0.781 to 0.823" in odd.doubts[0]


MALFORMED = {
    "ktrain.n.0": ["{", "[1]", "7", '{"a": "x"}', '{"a": null}', "[" * 4_000],
    "ktrain.interval.0": ["{", '{"a": 1}', '{"a": ["x", "y"]}', '{"a": [1]}', '{"a": {"b": 1}}'],
    "ktrain.stages": ["{", "[" * 4_000],
    "ktrain.departures.0": ["{", "7"],
}


@pytest.mark.parametrize(("tag", "text"), [(tag, text) for tag, texts in MALFORMED.items() for text in texts])
def test_a_malformed_run_is_named_and_hides_no_other(client: MlflowClient, tag: str, text: str) -> None:
    good, odd = recorded(client, f"{tag} {text[:20]}", {MEAN: 0.5}, {tag: text})
    assert good.metrics == {MEAN: 0.5} and not good.doubts
    assert odd.state == "missing" and not odd.metrics
    assert len(odd.doubts) == 1 and odd.doubts[0].startswith("odd: MLflow holds what cannot be read: ")


def test_a_notebook_is_warned(client: MlflowClient) -> None:
    recorded(client, "notebook", {MEAN: 7.0})
    with pytest.warns(UserWarning, match=f"^odd: MLflow has {MEAN}=7, which is no share of 1"):
        frame = analysis.results("notebook", client.tracking_uri)
    assert frame.set_index("key")[MEAN].dropna().to_dict() == {"good": 0.5}
    recorded(client, "sound", {MEAN: 0.25})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysis.results("sound", client.tracking_uri)
