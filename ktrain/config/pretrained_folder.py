"""A folder with a trained network of `transformers`; `model.start` names it.

What is read there are JSON files and tensors: nothing of the folder is executed.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ktrain.config.network_file import name_of, read_settings
from ktrain.errors import is_text, shorten
from ktrain.fingerprint import canonical, content_digest

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000
"""Bytes, as safetensors allows."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class PretrainedFolder:
    """The settings of a network, canonical JSON as of `model.config` with its vocabulary, and the files of its weights.

    `weights` are one `model.safetensors`, or the parts that its index lists.
    """

    path: Path
    settings: str
    weights: tuple[Path, ...]

    def identity(self) -> dict[str, Any]:
        """What identifies it: the content of its settings and weights, not where they lie."""
        return {"config": json.loads(self.settings), "weights": content_digest(self.weights)}

    @property
    def name(self) -> str:
        """Its architecture and a hash of settings and weights, such as `llama-1a2b3c4d`."""
        return name_of(json.loads(self.settings), self.identity())

    @property
    def vocabulary(self) -> int | None:
        """The rows of its embedding, if the settings say so."""
        size = json.loads(self.settings).get("vocab_size")
        return size if isinstance(size, int) else None


def read_pretrained(value: str | os.PathLike[str]) -> PretrainedFolder:
    """Returns what a folder holds. Raises `ValueError`, one line without the value, where it is not a causal network of
    `transformers` with weights in safetensors."""
    if not is_text(str(value)):
        raise ValueError("must be UTF-8 without NUL")
    path = Path(os.path.expanduser(value))
    if not path.is_dir():
        raise ValueError("no such folder on this machine; a folder with a trained network must lie on each that trains")
    if not (path / "config.json").is_file():
        raise ValueError("the folder has no config.json")
    if (path / "adapter_config.json").exists():
        raise ValueError("the folder has an adapter_config.json: merge the adapter into the weights first")
    settings, weights = read_settings(path, weights_used=True), _weights(path)
    for file in weights:
        status = file.stat()
        if not _is_whole(file, status.st_size, status.st_mtime_ns):
            raise ValueError(f"{file.name} is no file of safetensors, or a part of it is missing")
    return PretrainedFolder(path, canonical(settings), weights)


@cache
def _is_whole(file: Path, size: int, changed: int) -> bool:
    """Whether a file of safetensors is as long as its header says: eight bytes with the header's length, the header, a
    JSON object that says where each tensor lies, and the tensors."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= min(size, LARGEST_HEADER):
                return False
            header = json.loads(opened.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        return bool(8 + length + max(ends) == size)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files of the weights. Raises `ValueError`."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"{pickled[0]} is a pickle, which could run code: save the network with save_pretrained, which writes "
                f"{WEIGHTS}"
            )
        raise ValueError(f"the folder has no weights: no {WEIGHTS} and no {INDEX}")
    try:
        parts = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        # A name with a folder in it would be read from elsewhere.
        outside = [part for part in parts if Path(part).name != part or not part.endswith(".safetensors")]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ValueError(f"{INDEX} is no index of weights") from None
    if outside or not parts:
        raise ValueError(f"{INDEX} lists {shorten(outside[0]) if outside else 'nothing'}, not files of the folder")
    if missing := [part for part in parts if not (folder / part).is_file()]:
        raise ValueError(f"{shorten(missing[0])} is missing, which {INDEX} lists")
    return tuple(folder / part for part in parts)
