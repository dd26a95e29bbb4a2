"""The speed of the loop against reference loops, on a setting so small that only the contract of the result counts."""

import math

import pytest
import torch

from ktrain.bench import interleaved, machine, train
from ktrain.bench.reference_gpt import ReferenceGpt
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks
from ktrain.system import device


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(1, 2, 32))
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(interleaved, "ROUNDS", 1)
    monkeypatch.setattr(train, "COMPILE", False)


@pytest.mark.usefixtures("bf16_here")
def test_the_result_has_rows_ratios_and_shares_and_what_they_are_made_of() -> None:
    found = train.train(TrainConfig(batch=2, context=32, steps=10, warmup=0), ModelConfig(size="mini"), seconds=0.1)
    names = ["ktrain", "engineless", "compiled", "eager", "trainer"]
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == names and list(found["ratios"]) == names[1:]
    assert all(row["median"] > 0 and row["spread"] == 0 and row["unit"] == "tok/s" for row in rows.values())
    for name, ratio in found["ratios"].items():
        assert ratio == rows["ktrain"]["median"] / rows[name]["median"]
    by_threads = found["setting"]["by_threads"]
    assert by_threads.keys() == {f"{name} {precision} 1" for name in names for precision in ("bf16", "fp32")}
    assert rows["ktrain"]["median"] == max(by_threads["ktrain bf16 1"], by_threads["ktrain fp32 1"])
    # 6 (N + 12 L d T / 6): a layer of 12 d^2 + 13 d, tied embeddings, the last norm; counted by hand.
    per_token = 6 * (2048 * 32 + 12 * 32**2 + 13 * 32 + 2 * 32) + 12 * 32 * 32
    share = by_threads["ktrain fp32 1"] * per_token / found["machine"]["peak_flops"]["fp32"]
    assert found["share_of_peak"]["ktrain fp32"] == pytest.approx(share)
    assert found["share_of_peak"].keys() == {*names, "ktrain bf16", "ktrain fp32"}
    text = train.text(found)
    assert "matrix products reach bf16" in text and f"{found['ratios']['eager']:.2f}x" in text
    assert f"{per_token / 1e6:,.2f} MFLOP a token" in text


def test_the_reference_learns_the_next_token() -> None:
    """Causal: a later token changes no earlier loss; untrained, it knows nothing."""
    torch.manual_seed(0)
    nano = ReferenceGpt(networks.NetworkSize(2, 2, 32), 50, 16)
    ids = torch.randint(0, 50, (4, 16))
    assert float(nano(ids).detach()) == pytest.approx(math.log(50), abs=0.1)
    optimizer = torch.optim.AdamW(nano.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nano(ids).backward()
        optimizer.step()
    assert float(nano(ids).detach()) < 0.5
    # What is guessed after fifteen tokens does not see the sixteenth.
    early = [float(nano(ids[:, :15]).detach()), float(nano(torch.cat([ids[:, :15], ids[:, 15:]], 1)[:, :15]).detach())]
    assert early[0] == early[1]


@pytest.mark.parametrize("able", [True, False])
def test_the_machine_is_told_with_what_it_reaches(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    """Of bf16 products only where they have instructions: elsewhere one product would take a minute."""
    monkeypatch.setattr(device, "processor_has_bf16", lambda: able)
    host = machine.describe()
    assert host["peak_flops"].keys() == ({"bf16", "fp32"} if able else {"fp32"})
    assert min(host["peak_flops"].values()) > 0
    assert host["copied_bytes_per_second"] > 0 and host["torch"] == torch.__version__
    assert "matrix products reach" in machine.line(host)


def test_loops_take_turns_and_rows_hold_median_and_spread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interleaved, "ROUNDS", 3)
    said: list[str] = []
    speeds = {"a": iter([1.0, 5.0, 2.0]), "b": iter([7.0, 7.0, 8.0])}

    def loop(name: str) -> interleaved.Loop:
        return lambda seconds: said.append(name) or next(speeds[name])

    measured = interleaved.interleave({name: loop(name) for name in speeds}, 1.0, "letters, ")
    assert said == ["a", "b"] * 3
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "[0:00] letters, 6 of 6: b" and told.out == ""
    assert interleaved.row("a", measured["a"], "s") == interleaved.Row("a", 2.0, 4.0, "s")
    steps, passed = interleaved.repeated(said.append, 0.01)
    assert steps == len(said) - 6 and passed >= 0.01
