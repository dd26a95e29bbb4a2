"""The size of a wave is measured: memory by what a step holds, time by the clock; what was found is kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ktrain.config import ReadoutConfig, RuntimeConfig
from ktrain.readout import adapter_batch_size

READOUT = ReadoutConfig(precision="fp32")


class Held(torch.nn.Module):
    """Stands for a fleet: a hundred weights a member, and a thousand elements that its backward needs."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(members, 100))

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).exp().sum((1, 2)) * self.weight.sum(1)


def make(members: int) -> tuple[Held, tuple[Tensor, ...]]:
    return Held(members), (torch.ones(members, 10, 100, requires_grad=True),)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_batch_size.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(adapter_batch_size.dist, "get_rank", lambda: 0)


def clocked(monkeypatch: pytest.MonkeyPatch, free: float, each: dict[int, float]) -> list[int]:
    """A machine with so many free bytes, where a wave of n takes `each[n]` seconds a member when it is compiled, and
    one of one member three seconds when not."""
    tried: list[int] = []

    def seconds(fleet: Held, batch: tuple[Tensor, ...], readout: ReadoutConfig, *, compiled: bool) -> float:
        if not compiled:
            assert len(fleet.weight) == 1
            return 3.0
        tried.append(len(fleet.weight))
        return each[len(fleet.weight)] * len(fleet.weight)

    monkeypatch.setattr(adapter_batch_size, "_free", lambda runtime: free)
    monkeypatch.setattr(adapter_batch_size, "_seconds", seconds)
    return tried


def size(folder: Path, members: int = 11, steps: int = 1000) -> int:
    return adapter_batch_size.choose_batch_size(
        make, members, READOUT.model_copy(update={"steps": steps}), RuntimeConfig(), folder / "wave.json"
    )


def test_what_a_member_holds_is_counted() -> None:
    """The exponentials, a thousand floats, the two sums of one float each, and four times the weights."""
    fleet, batch = make(1)
    found = adapter_batch_size._bytes(fleet, batch, READOUT)
    assert 4 * (1000 + 4 * 100) <= found <= 4 * (1000 + 4 * 100) + 64


@pytest.mark.parametrize(
    ("each", "chosen", "tried"),
    [
        ({1: 9, 2: 5, 4: 3, 8: 2, 11: 1}, 11, [1, 2, 4, 8, 11]),
        ({1: 9, 2: 5, 4: 5.1, 8: 5.2, 11: 5.4}, 4, [1, 2, 4, 8, 11]),
        ({1: 2, 2: 1, 4: 1.2}, 2, [1, 2, 4]),
        ({1: 1, 2: 2}, 1, [1, 2]),
    ],
    ids=["the more the better", "a tie goes to the larger", "no further than needed", "alone is best"],
)
def test_the_fastest_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: dict[int, float], chosen: int, tried: list[int]
) -> None:
    seen = clocked(monkeypatch, 1e12, each)
    assert size(tmp_path) == chosen
    assert seen == tried


def test_no_wave_is_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = adapter_batch_size._bytes(*make(1), READOUT)
    faster_together = {n: 1 / n for n in range(1, 12)}
    for fits, even in {1: 1, 3: 3, 7: 6}.items():
        clocked(monkeypatch, (fits + 0.5) * need / adapter_batch_size.SHARE, faster_together)
        assert size(tmp_path / str(fits)) == even
    clocked(monkeypatch, 0.0, faster_together)
    assert size(tmp_path / "none") == 1, "one member has to be tried"


def test_nothing_is_compiled_to_be_tried_where_that_takes_longer_than_it_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = adapter_batch_size._bytes(*make(1), READOUT)
    tried = clocked(monkeypatch, 1e12, {})
    # A thousand tokens a member.
    monkeypatch.setattr(adapter_batch_size, "TOKENS", 4_900)
    assert size(tmp_path / "short", steps=36) == 4
    assert size(tmp_path / "even", members=6, steps=36) == 3
    assert size(tmp_path / "two", members=2, steps=36) == 2
    monkeypatch.setattr(adapter_batch_size, "TOKENS", 900)
    assert size(tmp_path / "one", members=2, steps=36) == 1
    monkeypatch.setattr(adapter_batch_size, "TOKENS", 4_900)
    clocked(monkeypatch, 3.5 * need / adapter_batch_size.SHARE, {})
    assert size(tmp_path / "narrow", steps=36) == 3
    assert tried == []
    tried = clocked(monkeypatch, 1e12, {1: 1, 2: 2})
    # From 20 minutes on.
    assert size(tmp_path / "long", steps=37) == 1 and tried == [1, 2]


@pytest.mark.parametrize("compiled", [False, True])
def test_what_will_run_is_what_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    seen = []
    monkeypatch.setattr(adapter_batch_size.torch, "compile", lambda fleet: seen.append(len(fleet.weight)) or fleet)
    monkeypatch.setattr(adapter_batch_size, "LONG", 0.0)
    assert adapter_batch_size.choose_batch_size(
        make, 3, READOUT, RuntimeConfig(compile=compiled), tmp_path / "wave.json"
    ) in (1, 2, 3)
    assert seen[:2] == ([1, 2] if compiled else [])


def test_a_restart_makes_the_same_waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, 1e12, {1: 1, 2: 0.5, 4: 1})
    assert size(tmp_path) == 2
    tried = clocked(monkeypatch, 1e12, {1: 1, 2: 2})
    assert size(tmp_path) == 2 and not tried
    about = json.loads((tmp_path / "wave.json").read_text())
    assert about["members"] == 2 and about["bytes_of_one"] > 0


def test_a_processor_is_shared_by_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_batch_size.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(adapter_batch_size.psutil, "virtual_memory", lambda: SimpleNamespace(available=800.0))
    assert (
        adapter_batch_size._free(RuntimeConfig(threads=2)) == 200.0
        and adapter_batch_size._free(RuntimeConfig(threads=16)) == 800.0
    )
