"""A trial whose people have a hobby: every readout asks for it, and every number of it follows from predictions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ktrain import pipeline
from ktrain.config import ATTRIBUTES, CellConfig, RuntimeConfig
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.data.packing import Windows
from ktrain.data.questions import QuestionRows
from ktrain.model import networks
from ktrain.readout import probe_checks, probes
from ktrain.readout.probes import ProbeTask, Stream
from ktrain.readout.recomputed import contradiction
from ktrain.stages import stages_of
from ktrain.store.base import Store
from ktrain.store.open import store_at

SEVEN = (*ATTRIBUTES, "hobby")
FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)
NAMES = dict.fromkeys(("first_names", "middle_names", "last_names"), 20)
READOUTS: dict[str, dict[str, Any]] = {
    "full": {"kind": "qa_finetune", "method": "full"},
    "lora": {"kind": "qa_finetune", "method": "lora"},
    "p_probe": {"kind": "p_probe"},
    "q_probe": {"kind": "q_probe"},
}


def cell(hobby: dict[str, str], readout: dict[str, Any], **train: Any) -> CellConfig:
    asked = {"rank_qv": 0, "rank_embedding": 2, "steps": 4, "batch": 8, "precision": "fp32", "recall_gate": 0.0}
    corpus = {"people": 24, "multi": 2, "permute": 1, "tokenizer": "bpe-600", "pools": FEW | NAMES}
    return CellConfig.model_validate(
        {
            "corpus": corpus | hobby,
            "model": {"size": "mini"},
            "train": {"steps": 4, "batch": 4, "context": 64, "warmup": 2, "precision": "fp32"} | train,
            "readout": asked | {"people_per_class": 1} | readout,
        }
    )


@pytest.fixture(autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 32))
        yield


def content(store: Store, key: str, name: str) -> Any:
    return json.loads(store.read(key, name))


def test_a_hobby_is_read_asked_and_probed(hobby: dict[str, str], tmp_path: Path) -> None:
    cells = {name: cell(hobby, readout) for name, readout in READOUTS.items()}
    mixed = cell(hobby, {"kind": "mixed"}, qa_ratio=0.5)
    runtime = RuntimeConfig(store=str(tmp_path / "store"), compile=False)
    pipeline.run(list(cells.values()), runtime, lambda key, progress: None)
    pipeline.run([mixed], runtime, lambda key, progress: None)
    store = store_at(runtime.store)
    keys = {name: stages_of(one).readout.key for name, one in (cells | {"mixed": mixed}).items()}
    pretrained = {stages_of(one).pretrain.key for one in (cells["full"], mixed)}
    assert [contradiction(store, key) for key in (*keys.values(), *pretrained)] == [None] * 7
    for key in pretrained:
        shares = [store.metrics(key)[f"baseline/test/{attribute}"] for attribute in SEVEN]
        assert store.metrics(key)["baseline/test/mean"] == pytest.approx(np.mean(shares))

    for name, prefix in (("full", "qa"), ("lora", "qa"), ("mixed", "mixed")):
        metrics, counts = store.metrics(keys[name]), content(store, keys[name], "counts.json")
        said = pd.read_parquet(tmp_path / "store" / "stages" / keys[name] / "predictions.parquet")
        assert said.groupby("attribute", sort=False).size().to_dict() == dict.fromkeys(SEVEN, 24)
        for half in ("train", "test"):
            shares = [metrics[f"{prefix}/exact_match/{half}/{attribute}"] for attribute in SEVEN]
            assert metrics[f"{prefix}/exact_match/{half}/mean"] == pytest.approx(np.mean(shares))
            assert counts["n"][f"{prefix}/exact_match/{half}/hobby"] == 12
            assert f"{prefix}/exact_match/{half}/hobby" in counts["interval"]

    names = store.metrics(keys["p_probe"])
    at_places = {f"p_probe/{m}/{p}/hobby" for m in ("first", "whole") for p in (*range(7), "own")}
    assert at_places <= names.keys() and "p_probe/first/6/birth_date" in names
    assert any("-hobby/" in name or "/hobby/" in name for name in names if name.startswith("p_probe/seen/"))
    assert {"q_probe/first/hobby", "q_probe/whole/hobby", "baseline/whole/hobby"} <= store.metrics(
        keys["q_probe"]
    ).keys()
    for name in ("p_probe", "q_probe"):
        tasks = content(store, keys[name], "tasks.json")
        assert tasks == [str(task) for task in probes.tasks(SEVEN)] and len(tasks) == 13


def test_checks_find_faults_in_a_hobby(hobby: dict[str, str]) -> None:
    """Planted in its span, in its question, in its place of a probe, and in how it is drawn."""
    one = cell(hobby, READOUTS["full"])
    corpus = corpora.build_corpus(one.corpus, 0)
    inputs = checks.CellInputs(corpus, QuestionRows(corpus, one.readout, "k", 0), Windows(corpus, "k", one.train, 0))
    assert checks.inspect(inputs) == {}
    corpus.entries.spans[5, 6] += 1
    assert list(checks.inspect(inputs)) == ["spans_decode"]
    assert "entry 5: hobby is ' " in checks.inspect(inputs)["spans_decode"]
    corpus.entries.spans[5, 6] -= 1
    corpus.questions.ids[corpus.questions.offsets[6] + corpus.questions.spans[6, 0, 0]] += 1
    assert "first_tokens" in checks.inspect(inputs)
    corpus.people.columns[:, -1] = 0
    assert "share one hobby" in checks.inspect(inputs)["class_counts"]


def test_checks_find_a_probe_that_reads_a_hobby_before_it_is_asked(hobby: dict[str, str]) -> None:
    one = cell(hobby, READOUTS["p_probe"])
    corpus = corpora.build_corpus(one.corpus, 0)
    rows, task = probes.biography_rows(corpus, 0), ProbeTask("first", "hobby")
    assert rows.places.shape[1] == rows.sentence.shape[1] == 7
    classes = {task: probes.classes(corpus, task)}
    streams = {task: Stream(rows, classes[task], corpus.train, 5, 0, str(task))}
    inputs = probe_checks.ProbeInputs(corpus, ~corpus.train, rows, streams, classes)
    probe_checks.enforce_probes(inputs)
    rows.sentence[3, 6] = (rows.sentence[3, 6] + 1) % 7
    assert "entry 3: hobby is" in str(probe_checks.probe_places(inputs))
    assert "first/hobby is counted at places after" in str(probe_checks.probe_targets(inputs))
