"""Tiny networks of five architectures, as `config.json` has them: what is odd about each is on."""

import json
from typing import Any

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
FILES: dict[str, dict[str, Any]] = {
    # Queries are wider than the network, and values narrower.
    "qwen3": {"model_type": "qwen3", **SHAPE, **ATTENTION, "head_dim": 16, "architectures": ["Qwen3ForCausalLM"]},
    # A scaled embedding, bent logits, a window that slides over 8 tokens.
    "gemma3_text": {
        "model_type": "gemma3_text", **SHAPE, **ATTENTION, "head_dim": 16, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 5.0,
    },
    "mixtral": {
        "model_type": "mixtral", **SHAPE, **ATTENTION, "num_local_experts": 4, "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.02, "vocab_size": 32_000, "torch_dtype": "bfloat16",
    },
    "mamba2": {
        "model_type": "mamba2", "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "expand": 2,
        "state_size": 16, "n_groups": 2, "chunk_size": 16, "time_step_limit": [0.0, float("inf")],
    },
    # Parallel residuals, which the fast forward has not.
    "gpt_neox": {"model_type": "gpt_neox", **SHAPE, "num_attention_heads": 2, "intermediate_size": 64},
}  # fmt: skip
MODULES = {"mamba2": "in_proj"}
"""What adapters update where no table knows it."""


_FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)
POOLS = {"first_names": 20, "middle_names": 20, "last_names": 20, **_FEW}
READOUT = {
    "steps": 3, "batch": 8, "learning_rate": 0.01, "precision": "fp32", "recall_gate": 0.0, "people_per_class": 0,
    "rank_qv": 2, "rank_embedding": 4,
}  # fmt: skip
"""Settings of a readout that trains for three steps."""
READOUTS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "p_probe": {"kind": "p_probe"},
    "q_probe": {"kind": "q_probe"},
}
"""The readouts of a tiny network, with what sets them apart."""


def model(architecture: str, **changes: Any) -> dict[str, Any]:
    """The settings of `model` that a cell has with one of the files."""
    return {"family": "hf", "config": json.dumps(FILES[architecture] | changes)}
