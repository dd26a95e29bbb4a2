"""QA finetuning from a cell to published results: the settings of the readout are those that train."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ktrain import pipeline
from ktrain.config import CellConfig, CorpusConfig, ModelConfig, PoolsConfig, ReadoutConfig, RuntimeConfig, TrainConfig
from ktrain.model import networks
from ktrain.stages import stages_of
from ktrain.store.open import store_at

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)
POOLS = PoolsConfig(first_names=20, middle_names=20, last_names=20, **FEW)
DROPOUT = 0.3
"""Of the network, in pretraining."""


def cell(**readout: Any) -> CellConfig:
    setting = {"steps": 3, "batch": 4, "learning_rate": 0.02, "precision": "fp32", "recall_gate": 0.0}
    setting |= {"rank_qv": 2, "rank_embedding": 2}
    return CellConfig(
        corpus=CorpusConfig(people=20, tokenizer="bpe-600", pools=POOLS),
        model=ModelConfig(size="mini", dropout=DROPOUT),
        train=TrainConfig(steps=2, batch=4, context=128, warmup=1, precision="fp32"),
        readout=ReadoutConfig.model_validate(setting | readout),
    )


CELLS = {(method, rate): cell(method=method, dropout=rate) for method in ("full", "lora") for rate in (None, 0.0)}
PACKED = {method: cell(method=method, dropout=0.0, packed=True) for method in ("full", "lora")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with `CELLS` and `PACKED`; read only."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SIZES, "mini", networks.NetworkSize(2, 2, 32))
        cells = [*CELLS.values(), *PACKED.values()]
        pipeline.run(cells, RuntimeConfig(store=str(folder), compile=False), lambda key, progress: None)
        yield folder


def published(store: Path, asked: CellConfig) -> Path:
    folder = store_at(store).fetch(stages_of(asked).readout.key)
    assert folder is not None
    return folder


def weights(store: Path, asked: CellConfig) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(published(store, asked) / "model" / "model.safetensors")
    return tensors


@pytest.mark.parametrize("method", ["full", "lora"])
def test_finetuning_trains_with_the_dropout_of_the_readout(store: Path, method: str) -> None:
    """Data and initial values are the same at both rates."""
    of_network, own = (weights(store, CELLS[method, rate]) for rate in (None, 0.0))
    assert of_network.keys() == own.keys()
    assert any(not torch.equal(of_network[name], own[name]) for name in own)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_finetuning_trains_on_windows(store: Path, method: str) -> None:
    curve = json.loads((published(store, PACKED[method]) / "curve.json").read_text())
    assert curve[-1]["tokens"] == 2 * 4 * 128, "steps of 4 windows, of which the first is not timed"
    single, packed = weights(store, CELLS[method, 0.0]), weights(store, PACKED[method])
    assert any(not torch.equal(single[name], packed[name]) for name in packed)
