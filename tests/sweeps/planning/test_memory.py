"""The formula of memory, against saved tensors that are counted."""

import json
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ktrain.config import CellConfig, ModelConfig, TrainConfig
from ktrain.model import networks, sizes
from ktrain.model.forward import LanguageModelLoss
from ktrain.stages import stages_of
from sweeps.planning import cost
from sweeps.planning.memory import estimate, states


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_formula_holds_what_a_step_saves_and_not_much_more(family: str, precision: str) -> None:
    """Of the forward as it runs on a processor, uncompiled, without computing it."""
    cell = CellConfig(model=ModelConfig(family=family), train=TrainConfig(batch=4, precision=precision))
    parameters, saved = _saved(cell)
    told = estimate(stages_of(cell).pretrain, cell, 1, gpu=False, compiled=False)
    # Logits are copied for a moment while their loss is taken, which nothing that is saved shows.
    passing = 4 * 512 * 50_257 * 8
    counted = saved + states(parameters, 0, 1) + passing
    assert 0.95 * counted < told < 1.35 * counted


def _saved(cell: CellConfig) -> tuple[int, int]:
    """Parameters of a cell's network, and bytes that one forward of a batch keeps for the backward pass."""
    held: dict[int, int] = {}
    rows, context = cell.train.batch, cell.train.context
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = LanguageModelLoss(networks.build_network(cell.model, cost.vocabulary(cell), context, 0, 0).train())
        weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        ids, wanted = torch.zeros(rows, context, dtype=torch.long), torch.zeros(rows, context)

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                held[storage._cdata] = storage.nbytes()
            return tensor

        with (
            torch.autocast("cpu", torch.bfloat16, enabled=cell.train.precision == "bf16"),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            loss = module(ids, wanted)
        assert loss.requires_grad
        return sum(parameter.numel() for parameter in module.parameters()), sum(held.values())


def test_large_logits_take_what_a_chunk_of_them_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(batch: int) -> float:
        cell = CellConfig(train=TrainConfig(batch=batch))
        return estimate(stages_of(cell).pretrain, cell, 1, gpu=True)

    chunk = sizes.LOGITS["cuda"]
    rows = chunk // (4 * 512 * 50_257)
    # A window more costs what its layers keep and the gradients of chunks, then nothing for its logits.
    window = 12 * 512 * 40 * 768
    gradients = 50_257 * 768
    assert of(rows) - of(rows - 1) == pytest.approx(window + 512 * 50_257 * 8)
    step = of(rows + 1) - of(rows)
    assert step == pytest.approx(window + 2 * chunk - rows * 512 * 50_257 * 8 + (4 + 2 * 2) * gradients)
    assert of(2 * rows) - of(rows + 1) == pytest.approx((rows - 1) * window)
    monkeypatch.setitem(sizes.LOGITS, "cuda", 2**60)
    assert of(4 * rows) > of(rows) + 3 * rows * (window + 512 * 50_257 * 7)


def test_zero_divides_what_it_says_among_the_workers() -> None:
    bucket = 4 * 5e8
    assert states(1e9, 0, 1) == 16e9 and states(1e9, 0, 4) == 16e9 + bucket
    assert states(1e9, 1, 4) == 8e9 + 12e9 / 4 + bucket
    assert states(1e9, 2, 4) == 4e9 + 16e9 / 4 + bucket
    assert states(1e9, 3, 4) == 20e9 / 4 + bucket


def test_more_of_anything_is_never_less_memory() -> None:
    def of(workers: int = 1, size: str = "124m", **train: Any) -> float:
        cell = CellConfig(model=ModelConfig(size=size), train=TrainConfig(**train))
        return estimate(stages_of(cell).pretrain, cell, workers, gpu=True)

    assert of(size="682m") > of(size="302m") > of() > of(batch=48) and of() > of(context=256)
    assert of(precision="fp32") > of() > of(workers=2) > of(workers=4)
    assert of(workers=2) > of(workers=2, zero=1) > of(workers=2, zero=2) > of(workers=2, zero=3)


def test_networks_of_hf_hold_all_their_logits() -> None:
    """They are as large as those of a chunk at a small batch, and grow with it."""

    def peak(family: dict[str, object], batch: int) -> float:
        train = {"batch": batch, "context": 512}
        cell = CellConfig.model_validate({"model": family, "train": train, "readout": {"dropout": 0.0}})
        return estimate(stages_of(cell).pretrain, cell, 1, gpu=True)

    qwen = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    file = {"family": "hf", "config": json.dumps(qwen | {"num_key_value_heads": 2, "intermediate_size": 128})}
    logits = 48 * 512 * 50_257 * 8
    assert peak(file, 96) - peak(file, 48) > logits
    assert peak({"size": "mini"}, 96) - peak({"size": "mini"}, 48) < logits / 2
