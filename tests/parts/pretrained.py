"""Tiny trained networks as users have them: folders with config, weights in safetensors, and a tokenizer of a kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ktrain.bios import pools, templates

EOS = "</s>"
VOCABULARY = 700


def texts() -> list[str]:
    """Sentences, values and dates: text enough for a few hundred merges."""
    drawn = pools.load()
    sentences = [f" {s}" for group in templates.load().values() for s in group]
    values = [*drawn.birth_cities, *drawn.universities, *drawn.first_names, *drawn.majors, *drawn.companies]
    questions = [q for q in templates.QUESTIONS.values()]
    return [*sentences, *questions, *(f" {value}." for value in values), " October 2, 1996. What? Answer: 0123456789"]


def _byte_level(tokenizer: Tokenizer, *before: Any, prefix: bool = False) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level]) if before else byte_level
    tokenizer.decoder = decoders.ByteLevel()


def _metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()


def _normalized(tokenizer: Tokenizer) -> None:
    _byte_level(tokenizer)
    tokenizer.normalizer = normalizers.NFC()


def _prepended(tokenizer: Tokenizer) -> None:
    """As Llama 2 has it: no pre-tokenizer, spaces are letters, and a text begins with one more."""
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


KINDS: dict[str, Callable[[Tokenizer], None]] = {
    "gpt2": _byte_level,
    "digits": lambda tokenizer: _byte_level(tokenizer, pre_tokenizers.Digits(individual_digits=True)),
    "prefix_space": lambda tokenizer: _byte_level(tokenizer, prefix=True),
    "metaspace": _metaspace,
    "normalized": _normalized,
    "prepended": _prepended,
}
"""Kinds of tokenizers, as published networks have them."""
COMPOSED = {"gpt2", "digits"}
"""Those whose ids of a text are its fragments' ids."""


def tokenizer_of(kind: str) -> Tokenizer:
    """A trained BPE of a kind, which begins texts with a token and ends them with EOS, as published ones do."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    KINDS[kind](tokenizer)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind not in ("metaspace", "prepended") else []
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("<|im_end|>", special=True)])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return tokenizer


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
FILES: dict[str, dict[str, Any]] = {
    # Fewer heads of keys and values, tied: the forward of `transformers`.
    "qwen3": {**SHAPE, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8, "tie_word_embeddings": True},
    # The fast forward.
    "llama": {**SHAPE, "intermediate_size": 48},
    "gpt_neox": {**SHAPE, "intermediate_size": 64},
}


def save(folder: Path, network: str = "qwen3", kind: str = "digits") -> Path:
    """Saves a network with random weights of another seed than any cell's, and its tokenizer; returns the folder."""
    import torch  # Not for tests of tokenizers alone.
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(97)
    config = AutoConfig.for_model(network, vocab_size=VOCABULARY + 4, **FILES[network])
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # How answers are drawn there must not matter here.
    made.generation_config.repetition_penalty = 3.0
    made.save_pretrained(folder)
    save_tokenizer(folder, kind)
    return folder


def save_tokenizer(folder: Path, kind: str) -> Path:
    """Saves a tokenizer alone, with its EOS."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_of(kind).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": EOS}}))
    return folder
