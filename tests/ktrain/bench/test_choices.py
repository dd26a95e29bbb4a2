"""The loop against itself with one choice made otherwise, through its torch code on a CPU."""

import pytest
import torch

from ktrain import model, shapes
from ktrain.bench import choices, machine, train, turns
from ktrain.config import Model, Train


def test_every_way_is_measured_in_speed_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.SHAPES, "mini", model.Shape(1, 2, 32))
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(turns, "ROUNDS", 1)
    monkeypatch.setattr(train, "COMPILE", False)
    before = dict(shapes.LOGITS)
    found = choices.choices(Train(batch=2, context=32, steps=10, warmup=0), Model(size="mini"), 2048, seconds=0.02)
    assert [row["name"] for row in found["rows"]] == list(choices.EVERYWHERE)
    assert all(row["median"] > 0 and row["note"].endswith("GiB") for row in found["rows"])
    assert found["ratios"].keys() == choices.EVERYWHERE.keys() - {choices.SHIPPED}
    assert before == shapes.LOGITS


def test_memory_is_that_of_the_work_alone() -> None:
    def taken(size: int) -> int:
        return machine.memory_of(lambda: float(torch.ones(size).sum()))[1]

    taken(2**20)
    # In pages, of which some were there before.
    assert taken(2**26) == pytest.approx(2**28, rel=0.05)


@pytest.mark.parametrize("words", [["huge"], ["mini", "0"], ["mini", "x"]])
def test_a_wrong_word_is_told_before_anything_is_measured(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "told", lambda: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as ended:
        choices.main(words)
    assert ended.value.code == 2 and words[-1] in capsys.readouterr().err
