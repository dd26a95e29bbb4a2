"""The speed of fleets against members one by one, on settings so small that only the contract of the result counts."""

import pytest

from ktrain.bench import adapters as bench_fleet
from ktrain.bench import interleaved, machine
from ktrain.bench.adapters import loads
from ktrain.config import ModelConfig, ReadoutConfig
from ktrain.model import networks

SMALL = {"steps": 1, "batch": 2, "precision": "fp32", "people_per_class": 0}
READOUTS = {
    "qa_finetune": ReadoutConfig.model_validate({**SMALL, "method": "full"}),
    "p_probe": ReadoutConfig.model_validate({**SMALL, "kind": "p_probe", "rank_embedding": 2, "rank_qv": 0}),
    "q_probe": ReadoutConfig.model_validate({**SMALL, "kind": "q_probe", "rank_embedding": 4, "rank_qv": 0}),
}


def test_the_result_has_the_ratios_and_what_they_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 32))
    monkeypatch.setattr(interleaved, "ROUNDS", 1)
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    # Every rank would be compiled; two adapters of each kind say as much about the contract.
    monkeypatch.setattr(bench_fleet, "RANKS_QV", (2,))
    monkeypatch.setattr(bench_fleet, "RANKS_EMBEDDING", (16, "full"))
    monkeypatch.setattr(bench_fleet, "SAMPLED", ((16, 8), ("full", 8)))
    monkeypatch.setattr(bench_fleet, "TASKS", 2)
    monkeypatch.setattr(bench_fleet.torch, "compile", lambda module: module)
    monkeypatch.setattr(bench_fleet, "COMPILE", False)
    found = bench_fleet.fleet(READOUTS, ModelConfig(size="mini"), 97, seconds=0.05)
    names = ["lora_grid", "p_probe", "q_probe"]
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == list(found["share_of_peak"]) == [x for n in names for x in (n, f"{n} one by one")]
    assert list(found["ratios"]) == names
    for name in names:
        together, alone = rows[name], rows[f"{name} one by one"]
        assert together["note"].startswith("2 members in waves of") and together["unit"] == "s"
        assert found["ratios"][name] == together["median"] / alone["median"]
    network = ModelConfig(size="mini")
    for load in loads(READOUTS, 97):
        flops = 2 * load.flops(network)
        share = flops / rows[load.name]["median"] / found["machine"]["peak_flops"]["fp32"]
        assert found["share_of_peak"][load.name] == pytest.approx(share)
    assert all(name in interleaved.text(found) for name in rows)


def test_the_loads_are_the_papers() -> None:
    grid, p_probe, q_probe = loads(READOUTS, 97)
    assert len(grid.members) == 30 and len(p_probe.members) == len(q_probe.members) == 11
    assert {m.rank_embedding for m in p_probe.members} == {2} and {m.rank_embedding for m in q_probe.members} == {4}
    assert sum(count for _, count in bench_fleet._sampled(grid)) == 30


def test_flops_are_counted_by_hand() -> None:
    """Two layers of width 32, two rows of 8 tokens, one place, 25 classes: product by product."""
    _, _, q_probe = loads(READOUTS, 97)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 32))
        found = q_probe.flops(ModelConfig(size="mini"))
    tokens, width = 8, 32
    first = tokens * (3 + 1 + 4 + 4) * width**2
    last = tokens * 2 * width**2 + (1 + 1 + 4 + 4) * width**2
    attention = 2 * 2 * tokens**2 * width
    head = 25 * width
    # A multiplication and an addition, forward and backward.
    assert found == 2 * 2 * 2 * (first + last + attention + head)
