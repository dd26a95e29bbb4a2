"""The loop against itself with one choice made otherwise, through its torch code on a CPU."""

import pytest
import torch

from ktrain.bench import ablations, interleaved, machine, train
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks, sizes
from ktrain.system.allocator import keep_freed_memory


def test_every_way_is_measured_in_speed_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.SIZES, "mini", networks.NetworkSize(1, 2, 32))
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(interleaved, "ROUNDS", 1)
    monkeypatch.setattr(train, "COMPILE", False)
    before = dict(sizes.LOGITS)
    found = ablations.choices(
        TrainConfig(batch=2, context=32, steps=10, warmup=0), ModelConfig(size="mini"), 2048, seconds=0.02
    )
    assert [row["name"] for row in found["rows"]] == list(ablations.EVERYWHERE)
    assert all(row["median"] > 0 and row["note"].endswith("GiB") for row in found["rows"])
    assert found["ratios"].keys() == ablations.EVERYWHERE.keys() - {ablations.SHIPPED}
    assert before == sizes.LOGITS


def test_memory_is_that_of_the_work_alone() -> None:
    """Also where the allocator keeps what was freed before."""

    def taken(count: int) -> int:
        """Of so many tensors of 4 MiB, which the heap holds: larger ones are given back when they are freed."""
        return machine.memory_of(lambda: float(sum(each[0] for each in [torch.ones(2**20) for _ in range(count)])))[1]

    keep_freed_memory()
    taken(1)
    for _ in range(2):
        # In pages, of which some were there before.
        assert taken(64) == pytest.approx(2**28, rel=0.05)


@pytest.mark.parametrize("words", [["huge"], ["mini", "0"], ["mini", "x"]])
def test_a_wrong_word_is_told_before_anything_is_measured(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "describe", lambda: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as ended:
        ablations.main(words)
    assert ended.value.code == 2 and words[-1] in capsys.readouterr().err
