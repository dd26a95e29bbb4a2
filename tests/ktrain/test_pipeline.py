"""A trial from people to published answers, in this process and on one rank; `test_workers` has two."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXForCausalLM

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
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.data.names_seen import nameless_share
from ktrain.data.packing import Windows
from ktrain.errors import GuardFailure
from ktrain.fingerprint import sha256
from ktrain.model import networks
from ktrain.model.lora import Adapters, AdapterSpec, merged
from ktrain.readout.recomputed import contradiction
from ktrain.stages import stages_of
from ktrain.store import manifest
from ktrain.store.base import Store
from ktrain.store.lease import Lease, LeaseLost
from ktrain.store.object_client import ObjectClient
from ktrain.store.open import store_at
from ktrain.system import retry
from ktrain.training.loop import Preempted
from ktrain.training.progress import Progress, StageLine, stage_lines

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
POOLS = PoolsConfig(first_names=20, middle_names=20, last_names=20, **FEW)
FULL = CellConfig(
    corpus=CorpusConfig(people=12, multi=2, permute=1, tokenizer="bpe-600", pools=POOLS),
    model=ModelConfig(size="mini", dropout=0.05),
    train=TrainConfig(steps=10, batch=4, context=64, warmup=2, precision="fp32"),
    readout=ReadoutConfig(method="full", steps=100, batch=24, learning_rate=5e-3, precision="fp32", recall_gate=0.0),
)
"""Its readout is long enough to know some answers and too short for all of them."""


def changed(cell: CellConfig, **sections: dict[str, Any]) -> CellConfig:
    """The cell with some fields of some sections at other values."""
    tree = cell.model_dump()
    for section, fields in sections.items():
        tree[section] |= fields
    return CellConfig.model_validate(tree)


LORA = changed(FULL, readout={"method": "lora", "rank_qv": 2, "rank_embedding": 4, "steps": 12, "learning_rate": 0.05})
MIXED = changed(FULL, train={"qa_ratio": 0.5}, readout={"kind": "mixed"})
CORPUS, PRETRAIN, READOUT = (stage.key for stage in stages_of(FULL))
ADAPTED = stages_of(LORA).readout.key


class Killed(Exception):
    """Stands for whatever ends a process."""


@dataclass
class Watch:
    """A report that remembers, and that kills the run, or tells it to stop, when a stage comes to a step."""

    stop: tuple[str, int] | None = None
    reported: list[tuple[str, int]] = field(default_factory=list)
    leave: tuple[str, int] | None = None
    lines: dict[str, list[StageLine]] = field(default_factory=dict)

    def __call__(self, key: str, progress: Progress) -> bool:
        self.reported.append((key, progress.step))
        for own, line in stage_lines(key, progress).items():
            self.lines.setdefault(own, []).append(line)
        if self.stop == (key, progress.step):
            raise Killed(f"at step {progress.step}\nand more")
        return self.leave == (key, progress.step)

    def steps(self, key: str) -> list[int]:
        return [step for stage, step in self.reported if stage == key]


def runtime(store: Path | str, **changes: Any) -> RuntimeConfig:
    """A checkpoint after every line but the last."""
    return RuntimeConfig(**{"store": str(store), "compile": False, "checkpoint_seconds": 1e-9} | changes)


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """`mini` in a smaller shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 64))
        yield


@pytest.fixture(scope="module")
def watched() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, watched: Watch, narrow: None) -> Path:
    """A store in which both cells were done without an interruption; read only."""
    store = tmp_path_factory.mktemp("whole")
    pipeline.run([FULL, LORA], runtime(store, checkpoint_seconds=1e9), watched)
    return store


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A store like `whole` that may be changed."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def stage(store: Path | str, key: str) -> Path:
    folder = store_at(store).fetch(key)
    assert folder is not None, key
    return folder


def weights(store: Path | str, key: str) -> str:
    return sha256(stage(store, key) / "model" / "model.safetensors")


def published(store: Path) -> set[str]:
    return {path.name for path in (store / "stages").iterdir()}


def metrics(store: Path | str, key: str) -> dict[str, float]:
    """But for those that differ from run to run."""
    return {name: value for name, value in store_at(store).metrics(key).items() if not name.startswith("speed/")}


def test_three_stages_are_published_and_the_work_is_cleared(whole: Path, watched: Watch) -> None:
    assert published(whole) == {CORPUS, PRETRAIN, READOUT, ADAPTED}
    assert all(stage(whole, key) for key in published(whole))
    assert not list((whole / "work").iterdir())
    assert not list((whole / "leases").glob("*.json"))
    # Pretraining is shared: the second cell does not repeat it.
    wanted = [(PRETRAIN, 10), (READOUT, 100), (ADAPTED, 12)]
    assert watched.reported == [(key, step + 1) for key, steps in wanted for step in range(steps)]


@pytest.mark.parametrize("key", [PRETRAIN, READOUT, ADAPTED])
def test_what_is_reported_of_a_stage_is_its_curve(whole: Path, watched: Watch, key: str) -> None:
    curve = json.loads((stage(whole, key) / "curve.json").read_text())
    reported = [(line.step, line.loss, line.learning_rate) for line in watched.lines[key]]
    assert reported == [(line["step"], line["loss"], line["learning_rate"]) for line in curve]


def test_the_config_lies_beside_the_result(whole: Path) -> None:
    for found in stages_of(FULL):
        assert store_at(whole).manifest(found.key)["config"] == json.loads(json.dumps(found.identity))


def test_the_curve_and_the_metrics_of_pretraining(whole: Path) -> None:
    curve = json.loads((stage(whole, PRETRAIN) / "curve.json").read_text())
    found = store_at(whole).metrics(PRETRAIN)
    assert [line["step"] for line in curve] == list(range(1, 11))
    assert curve[0]["loss"] == pytest.approx(np.log(600), rel=0.02)
    assert found["train/loss"] == curve[-1]["loss"] < curve[0]["loss"]
    assert found["speed/tokens_per_second"] == curve[-1]["tokens_per_second"] > 0
    assert 0 <= found["recall/attribute_tokens"] < 0.2
    corpus = corpora.load_corpus(stage(whole, CORPUS), FULL.corpus, 0)
    tested = np.flatnonzero(~corpus.train)
    for attribute in ATTRIBUTES:
        told = pd.Series([corpus.people.value(p, attribute) for p in tested])
        assert found[f"baseline/test/{attribute}"] == told.value_counts().max() / len(told)
    biographies = Windows(corpus, CORPUS, FULL.train, 0).streams["biography"]
    assert found["windows/nameless_attribute_tokens"] == nameless_share(corpus, biographies) > 0
    assert json.loads((stage(whole, PRETRAIN) / "guards.json").read_text()) == dict.fromkeys(checks.GUARDS, "passed")


@pytest.mark.parametrize("key", [PRETRAIN, READOUT, ADAPTED])
def test_models_and_tokenizers_load_with_transformers(whole: Path, key: str) -> None:
    folder = stage(whole, key) / "model"
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    corpus = corpora.load_corpus(stage(whole, CORPUS), FULL.corpus, 0)
    assert type(network) is GPTNeoXForCausalLM
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert tokenizer.eos_token_id == network.config.eos_token_id == corpus.eos
    for entry in range(3):
        ids = corpus.entries[entry].tolist()
        assert tokenizer(corpus.entry_text(entry))["input_ids"] == ids[:-1]
        assert tokenizer.decode(ids[:-1]) == corpus.entry_text(entry)


@pytest.mark.parametrize("key", [READOUT, ADAPTED])
def test_a_user_who_generates_from_the_prompts_finds_the_published_accuracy(whole: Path, key: str) -> None:
    """With nothing but transformers and pandas: greedy, and an answer has to end."""
    folder = stage(whole, key)
    network = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    asked = pd.read_parquet(folder / "predictions.parquet")
    said = []
    for prompt in asked.prompt:
        ids = tokenizer(prompt, return_tensors="pt")
        output = network.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
        text = tokenizer.decode(output)
        said.append(text.removesuffix(tokenizer.eos_token) if text.endswith(tokenizer.eos_token) else None)
    assert contradiction(store_at(whole), key) is None
    right = np.array([answer == expected for answer, expected in zip(said, asked.expected, strict=True)])
    assert right.tolist() == asked.exact.tolist()
    assert asked.predicted[right].tolist() == asked.expected[right].tolist()
    found = metrics(whole, key)
    for split in ("train", "test"):
        mine = asked.split == split
        assert found[f"qa/exact_match/{split}/mean"] == right[mine].mean()
        for attribute in ATTRIBUTES:
            assert found[f"qa/exact_match/{split}/{attribute}"] == right[mine & (asked.attribute == attribute)].mean()


def test_the_test_above_sees_right_and_wrong_answers(whole: Path) -> None:
    found = metrics(whole, READOUT)
    assert found["qa/exact_match/test/mean"] < 0.5 < found["qa/exact_match/train/mean"] <= 1.0
    assert found["qa/first_token/test/mean"] > found["qa/exact_match/test/mean"]


@pytest.mark.parametrize("key", [READOUT, ADAPTED])
def test_metrics_can_be_recomputed_from_the_predictions(whole: Path, key: str) -> None:
    folder = stage(whole, key)
    asked = pd.read_parquet(folder / "predictions.parquet")
    assert list(asked.columns) == [
        "person", "attribute", "split", "prompt", "expected", "predicted", "exact", "first_token",
    ]  # fmt: skip
    assert asked.exact.dtype == asked.first_token.dtype == bool
    assert len(asked) == 12 * 6 == len(asked[["person", "attribute"]].drop_duplicates())
    assert asked.groupby("person").split.nunique().max() == 1
    wanted = {}
    for measure, column in (("exact_match", "exact"), ("first_token", "first_token")):
        for split, group in asked.groupby("split"):
            wanted[f"qa/{measure}/{split}/mean"] = group[column].mean()
            for attribute, answers in group.groupby("attribute"):
                wanted[f"qa/{measure}/{split}/{attribute}"] = answers[column].mean()
    # Always the commonest value of those who are asked.
    tested = asked[asked.split == "test"].groupby("attribute").expected
    constant = {attribute: said.value_counts().max() / len(said) for attribute, said in tested}
    baseline = {f"baseline/test/{name}": share for name, share in constant.items()}
    baseline["baseline/test/mean"] = pytest.approx(np.mean(list(constant.values())))
    assert metrics(whole, key) == wanted | baseline
    counts = json.loads((folder / "counts.json").read_text())
    assert counts["n"] == dict.fromkeys(wanted, 6)
    assert counts["interval"].keys() == wanted.keys()
    for name, (low, high) in counts["interval"].items():
        assert low - 1e-12 <= wanted[name] <= high + 1e-12


def test_predictions_are_about_the_people_of_the_corpus(whole: Path) -> None:
    corpus = corpora.load_corpus(stage(whole, CORPUS), FULL.corpus, 0)
    asked = pd.read_parquet(stage(whole, READOUT) / "predictions.parquet")
    for row in asked.itertuples():
        assert corpus.people.name(row.person) in row.prompt
        assert row.expected == f" {corpus.people.value(row.person, row.attribute)}."
        assert (row.split == "train") == corpus.train[row.person]


def test_adapters_lie_beside_the_merged_model(whole: Path) -> None:
    folder = stage(whole, ADAPTED)
    network = GPTNeoXForCausalLM.from_pretrained(stage(whole, PRETRAIN) / "model")
    adapters = Adapters(network, [AdapterSpec("qa", 0, 4, 2)], 1.0, 0.0)
    saved, before = load_file(folder / "adapters.safetensors"), adapters.tensors(0)
    assert saved.keys() == before.keys() == {"embedding_a", "embedding_b", "qv_a", "qv_b"}
    assert not any(torch.equal(saved[name], tensor) for name, tensor in before.items())
    adapters.load_state_dict({name: tensor[None] for name, tensor in saved.items()})
    plain, loaded = merged(network, adapters, 0), GPTNeoXForCausalLM.from_pretrained(folder / "model")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert not (stage(whole, READOUT) / "adapters.safetensors").exists()


def test_what_is_done_is_not_done_again_under_any_runtime(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "stages").rglob("*")}
    watch = Watch()
    pipeline.run([LORA, FULL], runtime(whole, threads=2, checkpoint_seconds=7.0), watch)
    assert not watch.reported
    assert {path: path.stat().st_mtime_ns for path in (whole / "stages").rglob("*")} == before


def test_only_what_is_new_is_run(copy: Path) -> None:
    watch, other = Watch(), changed(FULL, readout={"steps": 2})
    pipeline.run([other], runtime(copy), watch)
    assert watch.reported == [(stages_of(other).readout.key, step) for step in (1, 2)]


def test_a_model_below_the_recall_gate_is_not_read_out(copy: Path) -> None:
    gated, watch = changed(FULL, readout={"recall_gate": 0.9}), Watch()
    before = published(copy)
    pipeline.run([gated], runtime(copy), watch)
    assert published(copy) == before
    assert not watch.reported
    assert store_at(copy).failure(stages_of(gated).readout.key) is None


def test_a_model_at_the_recall_gate_is_read_out(copy: Path) -> None:
    recalled = metrics(copy, PRETRAIN)["recall/attribute_tokens"]
    gated = changed(FULL, readout={"recall_gate": recalled, "steps": 1})
    pipeline.run([gated], runtime(copy), Watch())
    assert stages_of(gated).readout.key in published(copy)


def test_a_trial_that_is_killed_and_started_again_ends_as_if_it_had_not_been(whole: Path, tmp_path: Path) -> None:
    """Once in pretraining, once in each readout; the first step after a start is the one that was not done."""
    stops = [(PRETRAIN, 7), (READOUT, 4), (ADAPTED, 2)]
    begin = {PRETRAIN: 1, READOUT: 1, ADAPTED: 1}
    store = store_at(tmp_path)
    for stop in [*stops, None]:
        watch = Watch(stop)
        if stop is None:
            pipeline.run([FULL, LORA], runtime(tmp_path), watch)
        else:
            with pytest.raises(Killed):
                pipeline.run([FULL, LORA], runtime(tmp_path), watch)
            assert store.failure(stop[0]) == f"Killed: at step {stop[1]}"
            assert not store.exists(stop[0])
        assert all(watch.steps(key)[:1] in ([], [first]) for key, first in begin.items())
        begin |= dict([stop]) if stop else {}
    assert published(tmp_path) == published(whole)
    assert not list((tmp_path / "work").iterdir())
    for key in (PRETRAIN, READOUT, ADAPTED):
        assert weights(tmp_path, key) == weights(whole, key)
        one, other = (json.loads((stage(store, key) / "curve.json").read_text()) for store in (tmp_path, whole))
        assert [line["loss"] for line in one] == [line["loss"] for line in other]
    for key in (READOUT, ADAPTED):
        assert metrics(tmp_path, key) == metrics(whole, key)
        assert sha256(stage(tmp_path, key) / "predictions.parquet") == sha256(stage(whole, key) / "predictions.parquet")


def test_training_on_whole_windows_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """In epochs of some windows each, whose number differs from epoch to epoch."""
    cell = changed(MIXED, train={"windows": "whole", "context": 192, "steps": 14})
    key = stages_of(cell).pretrain.key
    pipeline.run([cell], runtime(tmp_path / "calm"), Watch())
    with pytest.raises(Killed):
        pipeline.run([cell], runtime(tmp_path / "killed"), Watch((key, 9)))
    watch = Watch()
    pipeline.run([cell], runtime(tmp_path / "killed"), watch)
    assert watch.steps(key)[0] == 9
    assert weights(tmp_path / "killed", key) == weights(tmp_path / "calm", key)
    assert metrics(tmp_path / "killed", key)["windows/nameless_attribute_tokens"] == 0.0
    corpus = corpora.load_corpus(stage(tmp_path / "calm", stages_of(cell).corpus.key), cell.corpus, 0)
    streams = Windows(corpus, stages_of(cell).corpus.key, cell.train, 0).streams
    assert streams["biography"].locate(14 * 2 - 1)[0] > 0 and streams["biography"].whole


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Goes on to another machine, which has nothing of what was left on the one before."""
    count = iter(range(100))
    return lambda: monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / f"machine-{next(count)}"))


def test_a_trial_that_loses_its_machines_ends_as_if_it_had_not(
    whole: Path, s3: str, machine: Callable[[], None]
) -> None:
    """In object storage: the machine is lost once in pretraining and once in each readout, with all that lies there."""
    for stop in ((PRETRAIN, 7), (READOUT, 40), (ADAPTED, 5), None):
        machine()
        watch = Watch(stop)
        with pytest.raises(Killed) if stop else nullcontext():
            pipeline.run([FULL, LORA], runtime(s3), watch)
        if stop == (READOUT, 40):
            assert watch.steps(PRETRAIN) and watch.steps(PRETRAIN)[0] > 1
        elif stop is None:
            assert not watch.steps(PRETRAIN) and not watch.steps(READOUT) and watch.steps(ADAPTED)[0] > 1
    machine()
    store = store_at(s3)
    assert set(store.complete()) == published(whole)
    for key in (PRETRAIN, READOUT, ADAPTED):
        assert weights(s3, key) == weights(whole, key)
        one, other = (json.loads((stage(store, key) / "curve.json").read_text()) for store in (s3, whole))
        assert [line["loss"] for line in one] == [line["loss"] for line in other]
    for key in (READOUT, ADAPTED):
        assert metrics(s3, key) == metrics(whole, key)
        assert sha256(stage(s3, key) / "predictions.parquet") == sha256(stage(whole, key) / "predictions.parquet")
    left = [entry for entry in ObjectClient(s3).entries("") if not entry.name.startswith(("stages/", "data/"))]
    assert {entry.name.split("/")[0] for entry in left} == {"leases"} and not any(entry.size for entry in left)


def test_learning_curves_survive_the_machine(s3: str, tmp_path: Path, machine: Callable[[], None]) -> None:
    mixed, key = changed(MIXED, train={"steps": 24}), stages_of(changed(MIXED, train={"steps": 24})).pretrain.key
    pipeline.run([mixed], runtime(tmp_path / "local"), Watch())
    machine()
    with pytest.raises(Killed):
        pipeline.run([mixed], runtime(s3), Watch((key, 17)))
    machine()
    watch = Watch()
    pipeline.run([mixed], runtime(s3), watch)
    assert 1 < watch.steps(key)[0] <= 17
    one, other = (stage(where, key) / "learning.json" for where in (s3, tmp_path / "local"))
    assert one.read_text() == other.read_text() and weights(s3, key) == weights(tmp_path / "local", key)


def test_a_driver_that_lost_its_lease_stops_and_says_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its next report; nothing is published, and no failure is noted of a stage that another one does now."""
    shutil.rmtree(stage(copy, READOUT))
    held: list[Lease] = []
    original = Store.lease

    @contextmanager
    def watched(store: Store, key: str, **options: Any) -> Iterator[Lease]:
        with original(store, key, **options) as lease:
            held.append(lease)
            yield lease

    monkeypatch.setattr(Store, "lease", watched)
    watch = Watch()

    def report(key: str, progress: Progress) -> None:
        watch(key, progress)
        if progress.step == 3:
            held[-1].lost = True

    with pytest.raises(LeaseLost, match=rf"^{READOUT}: another driver took over"):
        pipeline.run([FULL], runtime(copy), report)
    assert watch.steps(READOUT) == [1, 2, 3]
    store = store_at(copy)
    assert not store.exists(READOUT) and store.failure(READOUT) is None


def test_a_disk_that_refuses_for_a_while_costs_no_stage(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(stage(copy, READOUT))
    monkeypatch.setattr(retry, "_PAUSES", (0.01, 0.05))
    refused, original = [0], manifest.write_manifest

    def write_manifest(*arguments: Any) -> None:
        refused[0] += 1
        if refused[0] < 4:
            raise OSError(5, "Input/output error")
        original(*arguments)

    monkeypatch.setattr(manifest, "write_manifest", write_manifest)
    pipeline.run([FULL], runtime(copy), Watch())
    assert refused == [4] and store_at(copy).fetch(READOUT)
    told = [r.getMessage() for r in caplog.records if "trying again" in r.getMessage()]
    assert len(told) == 1 and f"publishing {READOUT}: Input/output error" in told[0]


def test_a_trial_that_has_to_leave_goes_on_at_the_next_step_and_has_not_failed(whole: Path, tmp_path: Path) -> None:
    """Whatever is being trained, and after the last step too, when only the evaluation is left."""
    store, calm = store_at(tmp_path), {"checkpoint_seconds": 1e9}
    for key, step in ((PRETRAIN, 7), (PRETRAIN, 10), (READOUT, 4), (ADAPTED, 12)):
        watch = Watch(leave=(key, step))
        with pytest.raises(Preempted, match=f"^at step {step}$"):
            pipeline.run([FULL, LORA], runtime(tmp_path, **calm), watch)
        assert store.failure(key) is None and not store.exists(key)
        assert not list((tmp_path / "leases").glob("*.json"))
    watch = Watch()
    pipeline.run([FULL, LORA], runtime(tmp_path, **calm), watch)
    assert watch.reported == [], "all was trained, and nothing twice"
    for key in (PRETRAIN, READOUT, ADAPTED):
        assert weights(tmp_path, key) == weights(whole, key)


def test_a_training_pauses_where_it_is_told_and_ends_as_if_it_had_not(whole: Path, tmp_path: Path) -> None:
    """As the search of a sweep pauses it: twice on purpose, and interrupted in between."""
    store, lines = store_at(tmp_path), json.loads((stage(whole, PRETRAIN) / "curve.json").read_text())
    for pause_at, stop in ((3, None), (3, None), (7, (PRETRAIN, 5)), (7, None)):
        with pytest.raises(Killed) if stop else nullcontext():
            pipeline.run([FULL, LORA], runtime(tmp_path, pause_at=pause_at, checkpoint_seconds=1e9), Watch(stop))
        assert published(tmp_path) == {CORPUS} and (store.failure(PRETRAIN) is None) == (stop is None)
        if not stop:
            known = store.paused(PRETRAIN)
            assert known[pause_at] == pytest.approx(lines[pause_at - 1]["loss"]) and len(known) == max(known) < 10
    watch = Watch()
    pipeline.run([FULL, LORA], runtime(tmp_path), watch)
    assert min(watch.steps(PRETRAIN)) == max(known) + 1, "it goes on where it has paused"
    assert store.paused(PRETRAIN) == {} and published(tmp_path) == published(whole)
    assert all(weights(tmp_path, key) == weights(whole, key) for key in (PRETRAIN, READOUT, ADAPTED))
    # What is done does not pause.
    shutil.rmtree(stage(tmp_path, READOUT))
    pipeline.run([FULL], runtime(tmp_path, pause_at=3), Watch())
    assert published(tmp_path) == published(whole) and store.paused(PRETRAIN) == {}


def test_the_word_of_a_failure_is_taken_back_by_the_next_start(copy: Path) -> None:
    shutil.rmtree(stage(copy, READOUT))
    store, told = store_at(copy), []
    with pytest.raises(Killed):
        pipeline.run([FULL], runtime(copy), Watch((READOUT, 2)))
    assert (copy / "work" / READOUT / "failure.txt").read_text() == "Killed: at step 2"

    def report(key: str, progress: Progress) -> None:
        told.append(store.failure(key))
        raise Killed

    with pytest.raises(Killed):
        pipeline.run([FULL], runtime(copy), report)
    assert told == [None]
    assert store.failure(READOUT) == "Killed: no message"


@pytest.mark.parametrize("key", [CORPUS, PRETRAIN, READOUT, ADAPTED])
def test_a_damaged_stage_is_rebuilt_as_it_was_and_nothing_else_is(whole: Path, copy: Path, key: str) -> None:
    name = "corpus.npz" if key == CORPUS else "model/model.safetensors"
    file = copy / "stages" / key / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    watch = Watch()
    pipeline.run([FULL, LORA], runtime(copy), watch)
    assert {stage for stage, _ in watch.reported} == {key} - {CORPUS}
    assert (copy / "damaged" / f"{key}-1" / name).read_bytes() == raw
    timed = {"metrics.json", "curve.json"}
    files, wanted = (store_at(store).manifest(key)["files"] for store in (copy, whole))
    assert files.keys() == wanted.keys()
    assert {n: f for n, f in files.items() if n not in timed} == {n: f for n, f in wanted.items() if n not in timed}


def test_a_guard_speaks_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checks.GUARDS, "spans_decode", lambda seen: "a span is off")
    watch = Watch()
    with pytest.raises(GuardFailure, match="guard spans_decode: a span is off"):
        pipeline.run([FULL], runtime(tmp_path), watch)
    assert not watch.reported
    assert published(tmp_path) == {CORPUS}
    assert store_at(tmp_path).failure(PRETRAIN) == "GuardFailure: guard spans_decode: a span is off"


def test_a_mixed_model_is_asked_as_it_is(tmp_path: Path) -> None:
    watch, cell = Watch(), changed(MIXED, corpus={"people": 24, "validation_share": 0.5})
    pipeline.run([cell], runtime(tmp_path), watch)
    _, pretrain, readout = (found.key for found in stages_of(cell))
    assert {key for key, _ in watch.reported} == {pretrain}
    assert weights(tmp_path, readout) == weights(tmp_path, pretrain)
    found = metrics(tmp_path, readout)
    assert {name.split("/")[0] for name in found} == {"mixed", "baseline"}
    assert {"mixed/exact_match/test/mean", "mixed/first_token/train/birth_date"} <= found.keys()
    assert json.loads((stage(tmp_path, readout) / "curve.json").read_text()) == []
    assert not (stage(tmp_path, readout) / "adapters.safetensors").exists()
    asked = pd.read_parquet(stage(tmp_path, readout) / "predictions.parquet")
    counts = json.loads((stage(tmp_path, readout) / "counts.json").read_text())["n"]
    corpus = corpora.load_corpus(stage(tmp_path, stages_of(cell).corpus.key), cell.corpus, 0)
    for group, people in (("train", corpus.train), ("test", corpus.people_split("minority")[1]),
                          ("validation", corpus.validation)):  # fmt: skip
        answers, name = asked[asked.split == group], f"mixed/first_token/{group}/mean"
        assert set(answers.person) == set(np.flatnonzero(people)) and found[name] == answers.first_token.mean()
        assert counts[name] == people.sum() == {"train": 12}.get(group, 6)
    assert contradiction(store_at(tmp_path), readout) is None


def test_the_seed_changes_everything(whole: Path, tmp_path: Path) -> None:
    other = CellConfig.model_validate(FULL.model_dump() | {"seed": 1})
    short = changed(other, readout={"steps": 1})
    pipeline.run([short], runtime(tmp_path), Watch())
    corpus, pretrain, _ = (found.key for found in stages_of(short))
    one, two = (
        corpora.load_corpus(folder, FULL.corpus, 0) for folder in (stage(whole, CORPUS), stage(tmp_path, corpus))
    )
    assert not np.array_equal(one.people.columns, two.people.columns)
    assert not np.array_equal(one.train, two.train)
    assert weights(tmp_path, pretrain) != weights(whole, PRETRAIN)
