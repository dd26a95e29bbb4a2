"""Metrics are compared with the predictions, intervals and ranges that they have to agree with."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ktrain import readout_registry
from ktrain.config import ATTRIBUTES
from ktrain.fingerprint import stage_key
from ktrain.readout.kinds.base import kind_of, register
from ktrain.readout.kinds.qa_finetune import QaFinetune
from ktrain.readout.recomputed import contradiction
from ktrain.stages import VERSIONS, Stage
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


def asked() -> pd.DataFrame:
    """Of two people, the major from a name."""
    rows = [(0, -1, 0, "first/major", "Art", "Art"), (1, -1, 0, "first/major", "Law", "Art")]
    columns = ("person", "entry", "position", "task", "expected", "predicted")
    return pd.DataFrame(rows, columns=pd.Index(columns))


PUBLISHED = {
    "qa_finetune": (answers(), answered("qa") | {"baseline/test/mean": 0.2, "baseline/test/company_city": 0.3}),
    "mixed": (answers(), answered("mixed") | {"baseline/test/mean": 0.2}),
    "p_probe": (probed(), PROBED | {"baseline/first/birth_date": 0.1, "baseline/whole/mean": 0.2}),
    "q_probe": (asked(), {"q_probe/first/major": 0.5, "q_probe/first/mean": 0.5, "baseline/first/mean": 0.5}),
}
"""Predictions and metrics of each kind."""
TRAINED = {"speed/tokens_per_second": 9.0, "speed/peak_memory_bytes": 9.0, "speed/gpus": 0.0}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_a_kind_writes_is_no_damage(store: Store, kind: str) -> None:
    table, metrics = PUBLISHED[kind]
    assert contradiction(store, publish(store, kind, metrics | TRAINED, predictions=parquet(table))) is None
    assert contradiction(store, publish(store, kind, metrics | TRAINED)) is None


EVERYWHERE = ("accuracy", "speed/tokens_per_second/mean", "recall/attribute_tokens", "baseline", "train/loss")
PLANTED = {
    "qa_finetune": (
        "qa/mean", "qa/exact_match/test", "qa/exact_match/test/name", "qa/exact_match/valid/mean", "qa/f1/test/mean",
        "qa_finetune/exact_match/test/mean", "mixed/exact_match/test/mean", "baseline/first/major",
    ),
    "mixed": ("mixed/exact_match/all/mean", "qa/exact_match/test/mean", "mixed/first_token/test/seen"),
    "p_probe": (
        "p_probe/first/mean", "p_probe/first/6/major", "p_probe/whole/0/birth_date", "p_probe/first/own/name",
        "p_probe/seen/first/none/mean", "p_probe/seen/first/major/major", "p_probe/seen/first/major-university/company",
        "q_probe/first/major", "baseline/whole/birth_date", "baseline/test/mean",
    ),
    "q_probe": (
        "q_probe/first/0/mean", "q_probe/whole/birth_date", "q_probe/seen/first/none/major", "p_probe/first/0/mean",
        "baseline/test/major",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in PLANTED.items() for name in (*names, *EVERYWHERE)]
)
def test_a_metric_that_the_kind_cannot_have_written_is_named(store: Store, kind: str, name: str) -> None:
    table, metrics = PUBLISHED[kind]
    key = publish(store, kind, metrics | {name: 0.75}, predictions=parquet(table))
    assert contradiction(store, key) == f"metrics.json has {name}=0.75, which no {kind} writes"


@pytest.mark.parametrize(("kind", "name"), [("p_probe", "p_probe/first/2/major"), ("q_probe", "q_probe/whole/major")])
def test_an_accuracy_of_which_there_are_no_predictions_is_named(store: Store, kind: str, name: str) -> None:
    table, metrics = PUBLISHED[kind]
    key = publish(store, kind, metrics | {name: 0.75}, predictions=parquet(table))
    assert contradiction(store, key) == f"metrics.json has {name}=0.75, and predictions.parquet gives nothing"


BEFORE_READOUTS = {
    "corpus": {"corpus/entries": 9.0, "corpus/tokens": 90.0, "corpus/tokens_per_entry": 10.0, "corpus/acceptance": 0.9},
    "pretrain": TRAINED
    | {"train/loss": 2.0, "recall/attribute_tokens": 0.9, "recall/minority": 0.9, "recall/celebrity": 0.9}
    | {"baseline/test/mean": 0.1, "baseline/test/company_city": 0.1, "windows/nameless_attribute_tokens": 0.5}
    | {"bio/first_token/train/mean": 0.5, "bio/first_token/test/mean": 0.5},
}
"""Every sort of metric that the stages before a readout write."""


def publish_before(store: Store, kind: str, metrics: dict[str, float]) -> str:
    """Publishes a corpus or a pretraining of today's version."""
    identity = {"kind": kind, "version": VERSIONS[kind]}
    key = stage_key(kind, identity)
    store.publish_files(Stage(kind, key, identity), {"metrics.json": metrics})
    return key


@pytest.mark.parametrize("kind", BEFORE_READOUTS)
def test_what_the_stages_before_a_readout_write_is_no_damage(store: Store, kind: str) -> None:
    assert contradiction(store, publish_before(store, kind, BEFORE_READOUTS[kind])) is None


@pytest.mark.parametrize("kind", BEFORE_READOUTS)
@pytest.mark.parametrize("name", ["accuracy", "qa/exact_match/test/mean", "bio/first_token/mean", "corpus/people"])
def test_a_metric_that_no_stage_before_a_readout_writes_is_named(store: Store, kind: str, name: str) -> None:
    key = publish_before(store, kind, BEFORE_READOUTS[kind] | {name: 0.75})
    assert contradiction(store, key) == f"metrics.json has {name}=0.75, which no {kind} writes"


def test_a_number_of_people_that_belongs_to_no_metric_is_named(store: Store) -> None:
    counts = {"n": {"q_probe/first/mean": 9, "q_probe/first/major": 9}, "interval": {}}
    assert contradiction(store, publish(store, "q_probe", {"q_probe/first/mean": 0.5}, counts=counts)) == (
        "counts.json has 9 people of q_probe/first/major, which metrics.json does not have"
    )


@pytest.mark.parametrize("count", [0, -3, 0.5])
def test_a_number_that_is_none_of_people_is_named(store: Store, count: float) -> None:
    counts = {"n": {"q_probe/first/mean": count}, "interval": {}}
    assert contradiction(store, publish(store, "q_probe", {"q_probe/first/mean": 0.5}, counts=counts)) == (
        f"counts.json has {count:g} people of q_probe/first/mean, which is no number of people"
    )


@pytest.fixture
def own_kind() -> Iterator[str]:
    """A kind of the user's own, derived from a built-in one, as its contract in docs/extending.md allows."""

    @register
    class Shouted(QaFinetune):
        name = "shouted"
        title = "Shouted"
        prefix = "loud"

        def metric_names(self) -> frozenset[str]:
            return frozenset({"recall/shouted"})

    yield "shouted"
    readout_registry._kinds.pop("shouted")
    readout_registry._sources.pop("shouted")


def test_a_kind_of_the_users_own_writes_what_begins_with_its_prefix_or_as_it_says(store: Store, own_kind: str) -> None:
    metrics = answered("loud") | TRAINED | {"loud/decibels": 90.0, "baseline/test/mean": 0.2, "recall/shouted": 1.0}
    key = publish(store, own_kind, metrics, predictions=parquet(answers()))
    assert contradiction(store, key) is None


@pytest.mark.parametrize("name", ["qa/exact_match/test/mean", "shouted/mean", "recall/attribute_tokens", "loud"])
def test_any_other_metric_of_a_kind_of_the_users_own_is_named(store: Store, own_kind: str, name: str) -> None:
    key = publish(store, own_kind, answered("loud") | {name: 0.5}, predictions=parquet(answers()))
    assert contradiction(store, key) == f"metrics.json has {name}=0.5, which no shouted writes"


TABLES = [b"", b"PAR1", b"PAR1 PAR1", parquet(pd.DataFrame({"a": [1]})), parquet(answers().assign(exact="yes"))]


@pytest.mark.parametrize("content", TABLES)
def test_predictions_that_are_none_are_named(store: Store, content: bytes) -> None:
    key = publish(store, "qa_finetune", answered("qa"), predictions=content)
    assert contradiction(store, key) == "predictions.parquet is not readable as the predictions of its kind"


def test_names_and_predictions_of_an_older_version_are_left_alone(store: Store) -> None:
    metrics = {"qa/exact_match/test/mean": 0.5, "qa/f1": 0.5}
    key = publish(store, "qa_finetune", metrics, version=1, predictions=parquet(answers()))
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
