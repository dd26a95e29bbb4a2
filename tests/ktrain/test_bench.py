"""The speed of the loop against reference loops, on a setting so small that only the contract of the result counts."""

import pytest

from ktrain import bench, model
from ktrain.config import Model, Train


def test_the_result_has_the_ratios_and_what_they_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.SHAPES, "mini", model.Shape(1, 2, 32))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 1)
    found = bench.train(Train(batch=2, context=32, steps=10, warmup=0), Model(size="mini"), seconds=0.2)
    speed = found["tokens_per_second"]
    assert speed.keys() == {"ktrain", "eager", "trainer"}
    assert all(value > 0 for value in speed.values())
    assert found["ratios"] == {name: speed["ktrain"] / speed[name] for name in ("eager", "trainer")}
    assert found["threads"] == {name: 1 for name in speed}
    assert found["by_threads"] == {name: {1: value} for name, value in speed.items()}
    assert found["setting"].keys() == {"model", "vocabulary", "batch", "context", "precision", "device", "torch"}
    lines = bench.text(found).splitlines()
    assert lines[0] == "mini, 2 x 32 tokens, bf16:"
    assert [line.split()[0] for line in lines[1:]] == ["ktrain", "eager", "trainer"]
    assert lines[2].endswith(f"{found['ratios']['eager']:.2f}x")
