"""bioR from people to published answers: finetuning, mixed training and both probes, on text written by rules."""

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
from ktrain.model.sizes import SIZES, NetworkSize
from ktrain.readout import probe_checks
from ktrain.stages import stages_of
from ktrain.store.open import store_at

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)


def cell(multi: int, corpus: dict[str, Any] | None = None, qa_ratio: float = 0.0, **readout: Any) -> CellConfig:
    """A cell of a few steps."""
    pools = {"first_names": 20, "middle_names": 20, "last_names": 20, **FEW}
    told = {"kind": "bioR", "writer": {"backend": "rules"}, "people": 24, "multi": multi, "tokenizer": "bpe-400"}
    asked = {"method": "full", "steps": 4, "batch": 8, "precision": "fp32", "recall_gate": 0.0, "people_per_class": 0}
    return CellConfig.model_validate(
        {
            "corpus": {**told, "pools": pools, **(corpus or {})},
            "model": {"size": "mini"},
            "train": {"steps": 6, "batch": 4, "context": 96, "warmup": 2, "precision": "fp32", "qa_ratio": qa_ratio},
            "readout": {**asked, **readout},
        }
    )


PROBE = {"rank_qv": 0, "rank_embedding": 2}
KINDS: dict[str, dict[str, Any]] = {
    "qa_finetune": {},
    "p_probe": {"kind": "p_probe", **PROBE},
    "q_probe": {"kind": "q_probe", **PROBE},
    "mixed": {"kind": "mixed", "qa_ratio": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "mini", NetworkSize(2, 2, 64))
        yield


@pytest.fixture(scope="module", params=[1, 5], ids=["single", "multi5"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[CellConfig, Path]]:
    """The folder of each readout, and of what they start from."""
    folder = tmp_path_factory.mktemp("bior")
    cells = {kind: cell(request.param, **changes) for kind, changes in KINDS.items()}
    runtime = RuntimeConfig(store=str(folder), compile=False)
    mixed = [cells["mixed"]]
    for trials in ([each for each in cells.values() if each not in mixed], mixed):
        pipeline.run(trials, runtime, lambda key, progress: None)
    found: dict[str, tuple[CellConfig, Path]] = {}
    for kind, each in cells.items():
        for name, stage in zip(("corpus", "pretrain", kind), stages_of(each), strict=True):
            at = store_at(folder).fetch(stage.key)
            assert at is not None, stage.key
            found.setdefault(name, (each, at))
    return found


def test_every_readout_has_its_numbers(done: dict[str, tuple[CellConfig, Path]]) -> None:
    assert done["corpus"][1].name.startswith("corpus-bior.rules.")
    for kind in KINDS:
        metrics = json.loads((done[kind][1] / "metrics.json").read_text())
        wanted = {
            "qa_finetune": "qa/exact_match/test/mean", "mixed": "mixed/exact_match/test/mean",
            "p_probe": "p_probe/first/own/mean", "q_probe": "q_probe/first/mean",
        }[kind]  # fmt: skip
        assert 0 <= metrics[wanted] <= 1 and all(np.isfinite(list(metrics.values())))
    for name, of in (("pretrain", checks.GUARDS), ("p_probe", probe_checks.PROBE_GUARDS)):
        assert json.loads((done[name][1] / "guards.json").read_text()) == dict.fromkeys(of, "passed")
    told = json.loads((done["corpus"][1] / "metrics.json").read_text())
    assert 0.9 < told["corpus/acceptance"] <= 1 and told["corpus/entries"] == done["corpus"][0].corpus.entries


def test_a_probe_is_counted_on_entries_that_begin_like_the_answer(done: dict[str, tuple[CellConfig, Path]]) -> None:
    each, folder = done["p_probe"]
    corpus = corpora.load_corpus(done["corpus"][1], each.corpus, each.seed)
    asked = pd.read_parquet(folder / "predictions.parquet")
    for task, examples in asked.groupby("task"):
        column = ATTRIBUTES.index(str(task).partition("/")[2])
        begins = corpus.entries.offsets[examples.entry] + corpus.entries.spans[examples.entry, column, 0]
        question = examples.person.to_numpy() * 6 + column
        answers = corpus.questions.offsets[question] + corpus.questions.spans[question, 0, 0]
        assert (corpus.entries.ids[begins] == corpus.questions.ids[answers]).all()
        assert (examples.position <= np.argsort(corpus.order[examples.entry], axis=1)[:, column]).all()


def test_celebrities_of_bior_are_read_and_asked_about(tmp_path: Path) -> None:
    famous = {"celebrity_fraction": 0.5, "celebrity": {"multi": 5, "permute": 0}}
    each = cell(1, famous, people="celebrity")
    pipeline.run([each], RuntimeConfig(store=str(tmp_path), compile=False), lambda key, progress: None)
    folder = store_at(tmp_path).fetch(stages_of(each).readout.key)
    assert folder is not None
    asked = pd.read_parquet(folder / "predictions.parquet")
    assert set(asked.person[asked.split == "train"]) == set(range(24, 48))
