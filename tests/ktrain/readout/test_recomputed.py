"""Metrics are compared with the predictions, intervals and ranges that they have to agree with."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ktrain.config import ATTRIBUTES
from ktrain.fingerprint import stage_key
from ktrain.readout.kinds.base import kind_of
from ktrain.readout.recomputed import contradiction
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "results")


def publish(store: Store, kind: str, metrics: dict[str, float], version: int | None = None, **files: Any) -> str:
    """Publishes a readout of a kind; `counts` and `predictions` are its files."""
    identity = {"kind": kind, "version": version or kind_of(kind).version}
    names = {"counts": "counts.json", "predictions": "predictions.parquet"}
    key = stage_key(kind.replace("_", "-"), identity)
    store.publish_files(
        Stage(kind, key, identity), {"metrics.json": metrics, **{names[name]: file for name, file in files.items()}}
    )
    return key


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def answers() -> pd.DataFrame:
    """Of 8 people, the first half trained on; each question of attribute k is answered by the first k people of its
    half, and its first token by all."""
    rows = [
        {"person": p, "attribute": a, "split": "train" if p < 4 else "test", "exact": p % 4 < k, "first_token": True}
        for p in range(8)
        for k, a in enumerate(ATTRIBUTES)
    ]
    return pd.DataFrame(rows)


def answered(prefix: str) -> dict[str, float]:
    shares = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    exact = dict(zip(ATTRIBUTES, shares, strict=True)) | {"mean": float(np.mean(shares))}
    metrics = {f"{prefix}/exact_match/{half}/{a}": share for half in ("train", "test") for a, share in exact.items()}
    return metrics | {f"{prefix}/first_token/{half}/{a}": 1.0 for half in ("train", "test") for a in exact}


@pytest.mark.parametrize(("kind", "prefix"), [("qa_finetune", "qa"), ("mixed", "mixed")])
def test_answers_give_every_accuracy(store: Store, kind: str, prefix: str) -> None:
    table, metrics = answers(), answered(prefix)
    assert kind_of(kind).recomputed(table) == pytest.approx(metrics) and len(metrics) == 28
    key = publish(store, kind, metrics | {"speed/tokens_per_second": 9.0}, predictions=parquet(table))
    assert contradiction(store, key) is None


@pytest.mark.parametrize("name", [f"qa/{m}/{h}/{a}" for m in ("exact_match", "first_token") for h in ("train", "test")
                                  for a in ("mean", "major")])  # fmt: skip
def test_an_accuracy_that_the_answers_do_not_give_is_named(store: Store, name: str) -> None:
    metrics = answered("qa")
    right = metrics[name]
    key = publish(store, "qa_finetune", metrics | {name: 0.99}, predictions=parquet(answers()))
    assert contradiction(store, key) == f"metrics.json has {name}=0.99, and predictions.parquet gives {right:g}"


def test_an_accuracy_that_is_left_out_is_named(store: Store) -> None:
    metrics = answered("qa")
    del metrics["qa/exact_match/test/mean"]
    key = publish(store, "qa_finetune", metrics, predictions=parquet(answers()))
    assert contradiction(store, key) == (
        "metrics.json has qa/exact_match/test/mean=nothing, and predictions.parquet gives 0.583333"
    )


def probed() -> pd.DataFrame:
    """Of two people with one entry each, the major and its university before and after each other."""
    rows = [
        (0, 0, 0, "first/major", "none", "Art", "Art"),
        (0, 0, 1, "first/major", "university", "Art", "Law"),
        (1, 1, 0, "first/major", "none", "Law", "Law"),
        (1, 1, 0, "first/university", "none", "MIT", "Yale"),
    ]
    columns = ("person", "entry", "position", "task", "seen", "expected", "predicted")
    return pd.DataFrame(rows, columns=pd.Index(columns))


PROBED = {
    "p_probe/first/0/major": 1.0,
    "p_probe/first/0/university": 0.0,
    "p_probe/first/0/mean": 0.5,
    "p_probe/first/1/major": 0.0,
    "p_probe/first/1/mean": 0.0,
    "p_probe/first/own/major": 0.5,
    "p_probe/first/own/university": 0.0,
    "p_probe/first/own/mean": 0.25,
    "p_probe/seen/first/none/major": 1.0,
    "p_probe/seen/first/none/university": 0.0,
    "p_probe/seen/first/university/major": 0.0,
}


def test_probes_give_every_accuracy_by_place_and_by_what_was_read(store: Store) -> None:
    assert kind_of("p_probe").recomputed(probed()) == PROBED
    assert contradiction(store, publish(store, "p_probe", PROBED, predictions=parquet(probed()))) is None


@pytest.mark.parametrize("name", PROBED)
def test_an_accuracy_that_the_probes_do_not_give_is_named(store: Store, name: str) -> None:
    key = publish(store, "p_probe", PROBED | {name: 0.75}, predictions=parquet(probed()))
    assert contradiction(store, key) == f"metrics.json has {name}=0.75, and predictions.parquet gives {PROBED[name]:g}"


TABLES = [b"", b"PAR1", b"PAR1 PAR1", parquet(pd.DataFrame({"a": [1]})), parquet(answers().assign(exact="yes"))]


@pytest.mark.parametrize("content", TABLES)
def test_predictions_that_are_none_are_named(store: Store, content: bytes) -> None:
    key = publish(store, "qa_finetune", answered("qa"), predictions=content)
    assert contradiction(store, key) == "predictions.parquet is not readable as the predictions of its kind"


def test_predictions_of_an_older_version_are_left_alone(store: Store) -> None:
    key = publish(store, "qa_finetune", {"qa/exact_match/test/mean": 0.5}, version=1, predictions=parquet(answers()))
    assert contradiction(store, key) is None


@pytest.mark.parametrize("name", ["recall/attribute_tokens", "baseline/test/mean"])
def test_a_share_above_one_is_named(store: Store, name: str) -> None:
    assert contradiction(store, publish(store, "q_probe", {name: 7.0})) == (
        f"metrics.json has {name}=7, which is no share of 1"
    )


@pytest.mark.parametrize("metrics", [{"q_probe/first/mean": 0.99}, {}])
def test_an_interval_without_its_metric_is_named(store: Store, metrics: dict[str, float]) -> None:
    counts = {"n": {"q_probe/first/mean": 9}, "interval": {"q_probe/first/mean": [0.7, 0.8]}}
    finding = contradiction(store, publish(store, "q_probe", metrics, counts=counts))
    assert finding == "counts.json has an interval of q_probe/first/mean from 0.7 to 0.8, which does not hold it"


def test_a_stage_that_is_gone_is_no_contradiction(store: Store) -> None:
    assert contradiction(store, "qa-finetune-00000000") is None
