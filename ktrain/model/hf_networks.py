"""Networks of `model.family=hf`: causal networks of `transformers`, built from a file with the corpus' vocabulary, or
loaded with their weights."""

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig

from ktrain.config import ModelConfig
from ktrain.config.network_file import settings_of
from ktrain.errors import GuardFailure, WrongRequest, nearest, shorten

DROPOUT_RATES = frozenset({
    "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "embed_dropout", "resid_dropout",
    "embedding_dropout", "dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "attn_dropout", "emb_dropout", "ffn_dropout", "residual_dropout", "mlp_dropout", "emb_pdrop", "dropout_p",
    "local_attention_probs_dropout_prob", "lsh_attention_probs_dropout_prob",
})  # fmt: skip
"""What architectures call their rates of dropout in training."""
FULL_UNLESS_DECODER = frozenset({"gpt_neox", "gpt_neox_japanese"})
"""Causal architectures whose configuration has an `is_decoder` that does not say so."""
PERMUTED = frozenset({"xlnet", "xlm", "flaubert"})
"""Architectures that are listed as causal and whose tokens see later ones."""


def build(setting: ModelConfig, vocabulary: int, eos: int) -> Any:
    """Returns the network with the initial weights of its architecture, drawn from PyTorch's generator.

    Its rates of dropout are all `model.dropout`. EOS pads, as in the other families. Raises `WrongRequest`.
    """
    config = configuration(setting, vocabulary, eos)
    for name in dropout_rates(config):
        setattr(config, name, setting.dropout)
    try:
        network = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    except Exception as e:  # Each architecture raises what it likes where its sizes do not fit.
        raise _refused(setting, e) from e
    set_rates(network, setting.dropout)
    _set_padding(network, eos)
    return network


def _set_padding(network: Any, eos: int) -> None:
    """Only now: an embedding that is told of padding keeps that token at zero, and here it is EOS."""
    network.config.pad_token_id = eos
    if getattr(network, "generation_config", None) is not None:
        network.generation_config.pad_token_id = eos


def load(setting: ModelConfig, eos: int) -> Any:
    """Returns the network of `model.start` with its weights in fp32, as `build` would make it.

    Weights are read from safetensors alone, and no code of the folder runs. Raises `WrongRequest`.
    """
    config = configuration(setting, 0, eos)
    try:
        network, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            setting.start,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as e:  # As in `build`, and whatever reading a damaged file raises.
        raise _refused(setting, e) from e
    if missing := sorted(report["missing_keys"]):
        raise WrongRequest(f"model.start={setting.start}: its weights lack {missing[0]}")
    # How the folder would have answers drawn is not how they are asked for.
    network.generation_config = GenerationConfig.from_model_config(network.config)
    _set_padding(network, eos)
    return network.train()


def configuration(setting: ModelConfig, vocabulary: int, eos: int) -> Any:
    """Returns the `transformers` configuration of a file, with its own vocabulary where the network is trained already.

    Raises `WrongRequest` for one that is not causal.
    """
    tokens = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": None}
    if setting.start is None:
        tokens["vocab_size"] = vocabulary
    try:
        settings = settings_of(setting.settings)
        architecture = settings.pop("model_type")
        if architecture not in CONFIG_MAPPING:
            raise WrongRequest(
                f"{setting.axis}={setting.name}: model_type={shorten(architecture)} is no architecture of transformers"
                f"{nearest(architecture, CONFIG_MAPPING)}"
            )
        config = CONFIG_MAPPING[architecture].from_dict(settings | tokens)
    except WrongRequest:
        raise
    except Exception as e:  # As above.
        raise _refused(setting, e) from e
    if fault := _not_causal(config, architecture):
        raise WrongRequest(f"{setting.axis}={setting.name}: {fault}")
    return config


def dropout_rates(config: Any) -> list[str]:
    """Returns the names of a configuration's rates of dropout."""
    return sorted(DROPOUT_RATES & set(config.to_dict()))


def set_rates(network: Any, rate: float) -> None:
    """Sets the rate of every dropout in a network's modules, whatever each architecture calls it."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in list(vars(module).items()):
            # A rate may be the whole number 0. `layerdrop` leaves out layers, not numbers.
            if "drop" in name and "layerdrop" not in name and type(value) in (int, float):
                setattr(module, name, rate)


@lru_cache(maxsize=64)
def outline(setting: ModelConfig, vocabulary: int) -> Any:
    """Returns the network without weights: names, shapes and configuration. Raises `WrongRequest`."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with torch.device("meta"):
            return build(setting, vocabulary, vocabulary - 1)
    finally:
        logging.disable(previous)


def parameters(setting: ModelConfig, vocabulary: int) -> int:
    """Returns how many parameters a network has, shared ones counted once."""
    return sum(parameter.numel() for parameter in outline(setting, vocabulary).parameters())


def multiplied(setting: ModelConfig, vocabulary: int, *, head: bool) -> int:
    """Returns how many parameters a token is multiplied with: not those of the lookup, and of experts those chosen."""
    network = outline(setting, vocabulary)
    config, total = network.config, 0
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    chosen = getattr(config, "num_experts_per_tok", None)
    share = min(1.0, chosen / experts) if experts and chosen else 1.0
    tied = network.get_output_embeddings().weight is network.get_input_embeddings().weight
    for name, parameter in network.named_parameters():
        total += round(parameter.numel() * (share if ".experts." in name else 1.0))
    table = network.get_input_embeddings().weight.numel()
    return total - (0 if tied else table) - (0 if head else network.get_output_embeddings().weight.numel())


def require_causal(network: Any) -> None:
    """Raises `GuardFailure` if a token's logits depend on a later token, whatever the configuration says."""
    vocabulary, device = network.config.vocab_size, network.device
    ids = torch.arange(8, device=device)[None] % vocabulary
    later = ids.clone()
    later[0, -1] = (ids[0, -1] + 1) % vocabulary
    was_training = network.training
    network.eval()
    with torch.no_grad():
        before, after = (network(input_ids=tokens, use_cache=False).logits[0, :-1] for tokens in (ids, later))
    network.train(was_training)
    if (before - after).abs().max() > 1e-4 * before.abs().max():
        raise GuardFailure("causal", f"{network.config.model_type}: a token's prediction depends on a later token")


def _not_causal(config: Any, architecture: str) -> str:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"model_type={architecture} has no causal network in transformers"
    if not all(hasattr(config, name) for name in ("num_hidden_layers", "hidden_size")):
        return f"model_type={architecture} is made of several networks: take its language model's file alone"
    if getattr(config, "is_encoder_decoder", False):
        return f"model_type={architecture} is an encoder with a decoder, no causal network"
    decoder = getattr(config, "is_decoder", True) or architecture in FULL_UNLESS_DECODER
    if not decoder or not getattr(config, "is_causal", True) or architecture in PERMUTED:
        return f"model_type={architecture} is no causal network: its tokens see later ones (is_decoder, is_causal)"
    return ""


def _refused(setting: ModelConfig, error: Exception) -> WrongRequest:
    return WrongRequest(f"{setting.axis}={setting.name}: transformers refuses it: {shorten(error, 300)}")
