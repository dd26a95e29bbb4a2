"""Any causal network of `transformers` from its `config.json` to published answers and probes."""

from pathlib import Path

import hf_files
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ktrain import pipeline
from ktrain.config import CellConfig, RuntimeConfig
from ktrain.readout.recomputed import contradiction
from ktrain.stages import stages_of
from ktrain.store.open import store_at


def cell(architecture: str, readout: str) -> CellConfig:
    """A cell of three steps; adapters name their modules where no table does."""
    adapted = {} if readout == "full" else {"modules": hf_files.MODULES.get(architecture)}
    return CellConfig.model_validate(
        {
            "corpus": {"people": 16, "permute": 1, "tokenizer": "bpe-400", "pools": hf_files.POOLS},
            "model": hf_files.model(architecture),
            "train": {"steps": 3, "batch": 4, "context": 64, "warmup": 1, "precision": "fp32"},
            "readout": hf_files.READOUT | hf_files.READOUTS[readout] | adapted,
        }
    )


@pytest.mark.parametrize("architecture", hf_files.FILES)
def test_a_network_is_pretrained_finetuned_and_probed(architecture: str, tmp_path: Path) -> None:
    cells = {name: cell(architecture, name) for name in hf_files.READOUTS}
    runtime = RuntimeConfig(store=str(tmp_path), compile=False, checkpoint_seconds=1e9)
    pipeline.run(list(cells.values()), runtime, lambda key, progress: False)
    store = store_at(str(tmp_path))
    stages = {name: stages_of(found) for name, found in cells.items()}
    keys = {"pretrain": stages["full"].pretrain.key} | {name: found.readout.key for name, found in stages.items()}
    folders = {name: store.fetch(key) for name, key in keys.items()}
    assert all(folders.values()) and all(contradiction(store, key) is None for key in keys.values())
    weights = {}
    for name in ("pretrain", "full", "lora"):
        folder = folders[name]
        assert folder is not None
        network = AutoModelForCausalLM.from_pretrained(folder / "model", trust_remote_code=False).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        assert network.config.model_type == architecture and network.dtype == torch.float32
        assert network.config.vocab_size == len(tokenizer) == 400
        weights[name] = dict(network.named_parameters())
        if name == "pretrain":
            continue
        # With nothing but transformers: greedy, and an answer has to end.
        asked = pd.read_parquet(folder / "predictions.parquet").head(6)
        for prompt, predicted in zip(asked.prompt, asked.predicted, strict=True):
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
            output = network.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
            assert tokenizer.decode(output, skip_special_tokens=True).startswith(predicted)
    before = weights["pretrain"]
    assert any(not torch.equal(before[name], after) for name, after in weights["full"].items())
    moved = {name for name, after in weights["lora"].items() if name in before and not torch.equal(before[name], after)}
    table = "embed" if architecture != "gpt_neox" else "embed_in"
    fused = {"mamba2": "in_proj", "gpt_neox": "query_key_value"}.get(architecture)
    assert {name.split(".")[-2] for name in moved if table not in name} == ({fused} if fused else {"q_proj", "v_proj"})
    for name in ("p_probe", "q_probe"):
        folder = folders[name]
        assert folder is not None and len(load_file(folder / "adapters.safetensors")) > 20
