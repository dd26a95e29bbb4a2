"""Benchmarks whose reference must do the same: the contract of their results."""

import pytest
import torch

from ktrain.bench import corpus_build, evaluate, interleaved, machine, profile
from ktrain.config import CorpusConfig, ModelConfig, PoolsConfig, TrainConfig
from ktrain.data import corpus as corpora
from ktrain.model import networks
from ktrain.readout import generated_answers

POOLS = PoolsConfig(birth_years=5, birth_cities=5, universities=5, majors=5, companies=5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(1, 2, 32))
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    # Tensors are so small that a second thread only waits, for seconds where another test has its core.
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(interleaved, "ROUNDS", 1)


def test_building_is_measured_against_encoding_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    found = corpus_build.corpus(seconds=0.01, people=50)
    ours, theirs = found["rows"]
    assert (ours["name"], theirs["name"], ours["unit"]) == ("ktrain", "tokenizers", "tok/s")
    assert found["ratios"] == {"tokenizers": ours["median"] / theirs["median"]}
    assert found["setting"]["entries"] == 250
    build = corpora.build_corpus

    def other(setting: CorpusConfig, seed: int) -> corpora.Corpus:
        built = build(setting, seed)
        built.entries.ids[0] += 1
        return built

    monkeypatch.setattr(corpora, "build_corpus", other)
    with pytest.raises(AssertionError, match="not the same tokens"):
        corpus_build.corpus(seconds=0.01, people=50)


def test_evaluation_is_measured_against_generating_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = CorpusConfig(people=8, tokenizer="bpe-600", pools=POOLS)
    found = evaluate.evaluate(setting, ModelConfig(size="mini"), context=64, seconds=0.01)
    assert [row["name"] for row in found["rows"]] == ["ktrain", "generate"]
    assert found["setting"]["questions"] == 48 and found["ratios"]["generate"] > 0
    true = generated_answers.answers_by_generation

    def other(*asked: object) -> object:
        exact, said = true(*asked)  # type: ignore[arg-type]
        return ~exact, said

    monkeypatch.setattr(evaluate, "answers_by_generation", other)
    with pytest.raises(AssertionError):
        evaluate.evaluate(setting, ModelConfig(size="mini"), context=64, seconds=0.01)


def test_a_profile_names_the_kernels_of_a_step() -> None:
    threads = torch.get_num_threads()
    setting = TrainConfig(batch=2, context=32, steps=10, warmup=0, precision="fp32")
    found = profile.step(setting, ModelConfig(size="mini", layers=1, heads=2, width=64), 64)
    torch.set_num_threads(threads)
    names = [part.name for part in found["parts"]]
    assert "aten::mm" in names and any("cpp_fused" in name for name in names)
    assert found["milliseconds"] == pytest.approx(sum(part.milliseconds for part in found["parts"]))
    lines = profile.text(found).splitlines()
    assert lines[0].endswith("ms a step") and len(lines) <= profile.LINES + 2
