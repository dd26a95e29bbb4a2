"""The `config.json` of a network of `model.family=hf`, read into one line of JSON that goes wherever the cell goes."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktrain.errors import is_text, shorten
from ktrain.fingerprint import canonical, digest

LARGEST_FILE = 1_000_000
"""Bytes; those that are published have a few thousand."""
REPLACED = frozenset({"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"})
"""What the corpus' tokenizer says instead."""
OF_WEIGHTS = frozenset({
    "architectures", "_name_or_path", "transformers_version", "transformers_weights", "torch_dtype", "dtype",
    "use_cache",
})  # fmt: skip
"""What describes published weights, of which none are used."""
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation\w*")
"""What asks for another code of the same function, which may be one to download from Hugging Face's hub."""
POSITIVE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "n_embd", "n_layer", "n_head")
MOST_MODULES = 1024
COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "num_local_experts", "num_experts", "n_routed_experts")
"""Modules that are made one by one, even for an outline: a billion would take for ever."""
CAUSAL = re.compile(r"(ForCausalLM|LMHeadModel)$")
"""How `transformers` calls the classes of causal networks."""


def read_network(value: str | os.PathLike[str]) -> str:
    """Returns the canonical JSON of a network's settings, without `REPLACED`, `OF_WEIGHTS` and `IMPLEMENTATION`.

    `value` is a folder with a `config.json`, the path of such a file, or the JSON itself. Raises `ValueError`, one line
    without the value, for a file that cannot be read or that describes no causal network of `transformers`.
    """
    return canonical(read_settings(value))


def read_settings(value: str | os.PathLike[str], *, weights_used: bool = False) -> dict[str, Any]:
    """Returns the settings that `read_network` writes as JSON; where published weights are used, with `vocab_size`."""
    text = str(value)
    if not text.lstrip().startswith("{"):
        text = _text_of(text)
    try:
        content = json.loads(text, parse_constant=_tagged)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"is no JSON: {shorten(e)}") from None
    if fault := _fault(content):
        raise ValueError(fault)
    left_out = (REPLACED | OF_WEIGHTS) - ({"vocab_size"} if weights_used else set())
    kept = {key: content[key] for key in content if key not in left_out and not IMPLEMENTATION.fullmatch(key)}
    try:
        canonical(kept)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"cannot be read: {shorten(e)}") from None
    return kept


def settings_of(line: str) -> dict[str, Any]:
    """Returns the settings in the canonical JSON of a network, infinite numbers as numbers."""

    def number(part: dict[str, Any]) -> Any:
        return float(part["__float__"]) if part.keys() == {"__float__"} else part

    settings: dict[str, Any] = json.loads(line, object_hook=number)
    return settings


def short_name(line: str) -> str:
    """Returns what the network is called: its architecture and a hash of its settings, such as `qwen3-1a2b3c4d`."""
    settings = json.loads(line)
    return name_of(settings, settings)


def name_of(settings: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Returns the architecture of a network with a hash of its `identity`."""
    architecture = re.sub(r"[^a-z0-9._]+", ".", settings["model_type"].lower()).strip(".")[:40]
    return f"{architecture or 'network'}-{digest(identity)}"


def _text_of(name: str) -> str:
    """The text of a file, or of the `config.json` in a folder. Raises `ValueError`."""
    if not is_text(name):
        raise ValueError("must be UTF-8 without NUL")
    path = Path(os.path.expanduser(name))
    try:
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError("no such file, and no folder with a config.json")
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"has more than {LARGEST_FILE:,} bytes, which no config.json has")
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is no JSON: it is not UTF-8") from None


def _tagged(name: str) -> dict[str, str]:
    """`Infinity` as `transformers` writes it where JSON has to be JSON."""
    return {"__float__": name}


def _fault(content: Any) -> str:
    """What keeps settings from being those of a causal network, as far as they say it themselves; empty if nothing."""
    if not isinstance(content, dict):
        return "must be a JSON object, as in a config.json of transformers"
    architecture = content.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        return "has no model_type, which names the architecture in transformers"
    if "auto_map" in content:
        return "has an auto_map: code that comes with a network is not run"
    if "quantization_config" in content:
        return "has a quantization_config: weights of networks are trained in fp32"
    if "text_config" in content:
        return f"model_type={architecture} reads more than text: take its text_config as a file of its own"
    if content.get("is_encoder_decoder") is True:
        return f"model_type={architecture} is an encoder with a decoder, no causal network"
    classes = content.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "architectures: must be a list of names of classes"
    if classes and not any(CAUSAL.search(name) for name in classes):
        return f"architectures={shorten(classes[0])} is no causal network (...ForCausalLM or ...LMHeadModel)"
    for name in POSITIVE:
        size = content.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            return f"{name}={shorten(size)}: must be a whole number from 1"
    for name in COUNTS:
        if isinstance(count := content.get(name), int) and count > MOST_MODULES:
            return f"{name}={shorten(count)}: must be at most {MOST_MODULES:,}"
    return ""
