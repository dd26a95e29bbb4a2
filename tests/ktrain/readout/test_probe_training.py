"""Probes from a cell to published results: every number can be recomputed from the examples that lie beside it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from ktrain import pipeline
from ktrain.config import (
    ATTRIBUTES,
    CellConfig,
    CorpusConfig,
    ModelConfig,
    PoolsConfig,
    ReadoutConfig,
    RuntimeConfig,
    TrainConfig,
)
from ktrain.data import corpus as corpora
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.model import networks
from ktrain.readout import adapter_batch_size, adapter_training, probe_checks
from ktrain.readout.probes import TASKS
from ktrain.readout.recomputed import contradiction
from ktrain.stages import grouped, stages_of
from ktrain.store.open import store_at
from ktrain.training.progress import Progress, StageLine, stage_lines

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)
POOLS = PoolsConfig(first_names=20, middle_names=20, last_names=20, **FEW)


def cell(kind: str, **readout: Any) -> CellConfig:
    asked = {"kind": kind, "rank_qv": 0, "rank_embedding": 2, "steps": 6, "batch": 8, "learning_rate": 0.02}
    asked |= {"precision": "fp32", "recall_gate": 0.0, "people_per_class": 1}
    return CellConfig(
        corpus=CorpusConfig(people=40, multi=2, permute=1, tokenizer="bpe-600", pools=POOLS),
        model=ModelConfig(size="mini", dropout=0.1),
        train=TrainConfig(steps=6, batch=4, context=64, warmup=2, precision="fp32"),
        readout=ReadoutConfig.model_validate(
            {**asked, "precision": "fp32", "recall_gate": 0.0, "people_per_class": 1} | readout
        ),
    )


P, WIDE, Q = cell("p_probe"), cell("p_probe", rank_embedding=4), cell("q_probe")
CONFINED = cell("q_probe", token_share=1.0)
UNDROPPED = cell("q_probe", dropout=0.0)
CORPUS = stages_of(P).corpus.key
KEYS = {
    name: stages_of(asked).readout.key for name, asked in (("p", P), ("wide", WIDE), ("q", Q), ("confined", CONFINED))
}


class Killed(Exception):
    """Stands for whatever ends a process."""


def runtime(store: Path) -> RuntimeConfig:
    return RuntimeConfig(store=str(store), compile=False, checkpoint_seconds=1e-9)


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 32))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Path:
    """A store with both ranks of a P-probe, and three Q-probes; read only."""
    store = tmp_path_factory.mktemp("whole")
    pipeline.run([P, Q, WIDE, CONFINED, UNDROPPED], runtime(store), lambda key, progress: None)
    return store


def stage(store: Path, name: str) -> Path:
    folder = store_at(store).fetch(KEYS.get(name, name))
    assert folder is not None, name
    return folder


def numbers(store: Path, name: str) -> dict[str, float]:
    return store_at(store).metrics(KEYS[name])


def test_ranks_of_one_probe_are_one_fleet_and_other_kinds_another() -> None:
    assert grouped([P, Q, WIDE]) == [[P, WIDE], [Q]]
    assert grouped([P, cell("p_probe", learning_rate=0.1)]) == [[P], [cell("p_probe", learning_rate=0.1)]]


def test_probes_train_with_the_dropout_of_the_readout(whole: Path) -> None:
    """Their network has had 0.1; data and initial values are the same at both rates."""
    with_dropout, without = (
        load_file(stage(whole, key) / "adapters.safetensors") for key in (KEYS["q"], stages_of(UNDROPPED).readout.key)
    )
    assert with_dropout.keys() == without.keys()
    heads = [name for name in without if name.endswith("head/weight")]
    assert len(heads) == len(TASKS) and not any((with_dropout[name] == without[name]).all() for name in heads)


def test_each_cell_is_published_and_the_work_is_cleared(whole: Path) -> None:
    for name in KEYS:
        files = {path.name for path in stage(whole, name).iterdir()}
        assert files >= {"adapters.safetensors", "predictions.parquet", "metrics.json", "curve.json", "counts.json"}
        assert json.loads((stage(whole, name) / "guards.json").read_text()) == dict.fromkeys(
            probe_checks.PROBE_GUARDS, "passed"
        )
    assert not list((whole / "work").iterdir())


@pytest.mark.parametrize("name", KEYS)
def test_metrics_can_be_recomputed_from_the_predictions(whole: Path, name: str) -> None:
    said = pd.read_parquet(stage(whole, name) / "predictions.parquet")
    said["right"] = said.expected == said.predicted
    found, wanted = numbers(whole, name), {}
    for task, examples in said.groupby("task"):
        measure, attribute = str(task).split("/")
        if name in ("q", "confined"):
            wanted[f"q_probe/{measure}/{attribute}"] = examples.right.mean()
            continue
        for place, at in examples.groupby("position"):
            wanted[f"p_probe/{measure}/{place}/{attribute}"] = at.right.mean()
        for read, at in examples.groupby("seen"):
            wanted[f"p_probe/seen/{measure}/{read}/{attribute}"] = at.right.mean()
        last = examples.loc[examples.groupby("entry").position.idxmax()]
        wanted[f"p_probe/{measure}/own/{attribute}"] = last.right.mean()
    kept = {n: v for n, v in found.items() if "_probe/" in n and not n.endswith("/mean")}
    assert kept == pytest.approx(wanted)
    assert contradiction(store_at(whole), KEYS[name]) is None
    counts = json.loads((stage(whole, name) / "counts.json").read_text())
    assert set(counts["n"]) == set(counts["interval"]) == {n for n in found if "_probe/" in n}
    for metric, (low, high) in counts["interval"].items():
        assert low - 1e-9 <= found[metric] <= high + 1e-9


@pytest.mark.parametrize("name", KEYS)
def test_predictions_are_about_held_out_people(whole: Path, name: str) -> None:
    corpus = corpora.load_corpus(stage(whole, CORPUS), P.corpus, 0)
    said = pd.read_parquet(stage(whole, name) / "predictions.parquet")
    assert set(said.person) == set(np.flatnonzero(~corpus.train).tolist())
    assert set(said.task) == {str(task) for task in TASKS}
    assert not said.duplicated(["person", "entry", "position", "task"]).any()
    for row in said.sample(200, random_state=0).itertuples():
        measure, attribute = row.task.split("/")
        value = corpus.people.value(row.person, attribute)
        assert f" {value}".startswith(row.expected) if measure == "first" else row.expected == value
        if name in ("p", "wide"):
            order = [ATTRIBUTES[a] for a in corpus.order[row.entry]]
            assert corpus.person[row.entry] == row.person and row.position <= order.index(attribute)
            assert set(row.seen.split("-")) - {"none"} == set(order[: row.position])


def test_adapters_and_heads_are_kept_at_their_own_sizes(whole: Path) -> None:
    for name, rank in (("p", 2), ("wide", 4), ("q", 2), ("confined", 2)):
        saved = load_file(stage(whole, name) / "adapters.safetensors")
        for task in map(str, TASKS):
            assert saved[f"{task}/embedding_b"].shape == (rank, 32)
            assert saved[f"{task}/head/bias"].shape[-1] == saved[f"{task}/head/weight"].shape[-1]
        assert ("whole/major/head/running_mean" in saved) == (name not in ("p", "wide"))
    assert saved["whole/major/head/weight"].shape == (32, 4)


def test_an_update_is_confined_to_common_tokens(whole: Path) -> None:
    corpus = corpora.load_corpus(stage(whole, CORPUS), P.corpus, 0)
    free, confined = (load_file(stage(whole, name) / "adapters.safetensors") for name in ("q", "confined"))
    for task in map(str, TASKS):
        rows = confined[f"{task}/embedding_a"].abs().sum(1).nonzero().flatten().tolist()
        assert corpus.eos in rows and len(rows) < 5
        assert (free[f"{task}/embedding_a"].abs().sum(1) > 0).sum() > 20


def test_the_curve_is_the_mean_of_the_tasks(whole: Path) -> None:
    for name in KEYS:
        curve = json.loads((stage(whole, name) / "curve.json").read_text())
        assert [line["step"] for line in curve] == list(range(1, 7))
        assert all(line["loss"] == pytest.approx(np.mean(line["members"])) for line in curve)
        assert all(len(line["members"]) == 11 for line in curve)


def test_the_size_of_waves_changes_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves of three cut through the tasks of a cell; killed in the second, the first is not trained again."""
    monkeypatch.setattr(adapter_batch_size, "choose_batch_size", lambda *_: 3)
    seen: list[int] = []
    streamed: dict[str, list[StageLine]] = {KEYS["p"]: [], KEYS["wide"]: []}

    def until(stop: int | None) -> Any:
        def report(key: str, progress: Progress) -> None:
            if key == KEYS["p"]:
                for own, line in stage_lines(key, progress).items():
                    streamed[own].append(line)
                seen.append(progress.step)
                if progress.step == stop:
                    raise Killed

        return report

    with pytest.raises(Killed):
        pipeline.run([P, WIDE], runtime(tmp_path), until(9))
    seen.clear()
    pipeline.run([P, WIDE], runtime(tmp_path), until(None))
    assert seen == list(range(9, 8 * 6 + 1)), "a wave that was done is not repeated"
    for name in ("p", "wide"):
        curve = json.loads((stage(tmp_path, name) / "curve.json").read_text())
        tasks = json.loads((stage(tmp_path, name) / "tasks.json").read_text())
        means = {line.step: line.loss for line in streamed[KEYS[name]] if line.loss is not None}
        assert means == {line["step"]: line["loss"] for line in curve}
        losses = {(line.step, task): loss for line in streamed[KEYS[name]] for task, loss in line.tasks.items()}
        assert losses == {
            (line["step"], t): loss for line in curve for t, loss in zip(tasks, line["members"], strict=True)
        }
        found, wanted = numbers(tmp_path, name), numbers(whole, name)
        assert found.keys() == wanted.keys()
        one, other = (load_file(stage(s, name) / "adapters.safetensors") for s in (tmp_path, whole))
        assert all((one[n] - other[n]).norm() <= 1e-3 * other[n].norm() + 1e-6 for n in other)
        frames = [pd.read_parquet(stage(s, name) / "predictions.parquet").predicted for s in (tmp_path, whole)]
        assert (frames[0] == frames[1]).mean() > 0.999
    assert not list((tmp_path / "work").iterdir())


def test_dropout_that_is_left_on_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_training.StackedAdapters, "eval", adapter_training.StackedAdapters.train)
    with pytest.raises(GuardFailure, match="guard dropout_off: the network is evaluated as if it were trained"):
        pipeline.run([Q], runtime(tmp_path), lambda key, progress: None)
    assert not store_at(tmp_path).exists(KEYS["q"])
    assert "dropout_off" in str(store_at(tmp_path).failure(KEYS["q"]))


def test_a_guard_speaks_before_a_probe_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe_checks.PROBE_GUARDS, "probe_places", lambda seen: "off by one")
    told: list[str] = []
    with pytest.raises(GuardFailure, match="guard probe_places: off by one"):
        pipeline.run([P], runtime(tmp_path), lambda key, progress: told.append(key))
    assert KEYS["p"] not in told


def test_a_cell_whose_tasks_are_all_refused_is_not_run(tmp_path: Path) -> None:
    asked = cell("q_probe", people_per_class=100)
    with pytest.raises(WrongRequest, match=r"not enough people: whole/company_city: 20 people for \d classes"):
        pipeline.run([asked], runtime(tmp_path), lambda key, progress: None)
