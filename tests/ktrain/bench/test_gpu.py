"""The one command for a GPU, through its torch code on a CPU."""

import json

import pytest

from ktrain.bench import adapters, gpu, interleaved, machine, train
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks


def test_all_tables_are_printed_and_then_all_of_it_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(1, 2, 32))
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(interleaved, "ROUNDS", 1)
    for module in (train, adapters):
        monkeypatch.setattr(module, "COMPILE", False)
    monkeypatch.setattr(adapters.torch, "compile", lambda each: each)
    for name, value in {"RANKS_QV": (2,), "RANKS_EMBEDDING": (16,), "SAMPLED": ((16, 8),), "TASKS": 1}.items():
        monkeypatch.setattr(adapters, name, value)
    monkeypatch.setattr(gpu.profile, "step", lambda *_: {"parts": [], "milliseconds": 1.0, "waits": 0.0})
    gpu.main(TrainConfig(batch=2, context=32, steps=3_600, warmup=0), ModelConfig(size="mini"), 0.02)
    out = capsys.readouterr().out
    told = json.loads(out[out.index("\n{\n") :])
    speed = told["train"]["rows"][0]["median"]
    # As many steps as an hour has seconds, of 64 tokens each.
    assert told["hours"] == pytest.approx(64 / speed)
    assert "a pretraining of 3,600 steps would take" in out and "lora_grid one by one" in out
    assert told["fleet"]["ratios"].keys() == {"lora_grid", "p_probe", "q_probe"}
