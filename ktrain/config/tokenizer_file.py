"""The `tokenizer.json` of a trained network, with the token that ends its texts; `corpus.tokenizer` names it."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ktrain.errors import is_text, shorten
from ktrain.fingerprint import file_digest, regular_file

NAME = "tokenizer.json"


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as `tokenizers` saves it: its file, the text and id of EOS, and how many ids there are."""

    path: Path
    eos: str
    eos_id: int
    vocabulary: int

    def identity(self) -> dict[str, str]:
        """What identifies it: the content of the file and EOS, not where it lies."""
        return {"tokenizer_content": file_digest(self.path), "tokenizer_eos": self.eos}


def read_tokenizer_file(value: str | os.PathLike[str]) -> TokenizerFile:
    """Returns the tokenizer of a folder with a `tokenizer.json`, or of such a file.

    EOS is what the files beside it say, the first that says something: `tokenizer_config.json`,
    `special_tokens_map.json`, `generation_config.json`, `config.json`. Raises `ValueError`, one line without the value.
    """
    if not is_text(str(value)):
        raise ValueError("must be UTF-8 without NUL")
    path = Path(os.path.expanduser(value))
    if path.is_dir():
        path = path / NAME
        if not path.is_file():
            raise ValueError(
                f"the folder has no {NAME}; AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one"
            )
    if not path.is_file():
        raise ValueError(f"is neither gpt2, nor bpe-V, nor a folder with a {NAME} on this machine")
    try:
        ids = _ids(path, file_digest(path))
    except OSError as e:
        raise ValueError(f"cannot be read: {e.strerror}") from None
    eos = next(_eos(path.parent, ids), None)
    if eos is None:
        raise ValueError(
            f"has no EOS: no eos_token in tokenizer_config.json and no eos_token_id in generation_config.json beside "
            f"{path.name} that is one of its tokens"
        )
    return TokenizerFile(path, eos, ids[eos], max(ids.values()) + 1)


@lru_cache(maxsize=8)
def _ids(path: Path, content: str) -> Mapping[str, int]:
    """The id of every token of a file with this `content` digest. Raises `ValueError`."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = saved["model"]["vocab"]
        if isinstance(vocabulary, list):
            # A unigram model lists pairs of token and score.
            vocabulary = {token: index for index, (token, _) in enumerate(vocabulary)}
        ids = {str(token): int(index) for token, index in vocabulary.items()}
        ids |= {str(added["content"]): int(added["id"]) for added in saved.get("added_tokens") or ()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as e:
        raise ValueError(f"{path.name} is no tokenizer of `tokenizers`: {shorten(e)}") from None
    if not ids or min(ids.values()) < 0:
        raise ValueError(f"{path.name} is no tokenizer of `tokenizers`: it has no tokens")
    return ids


def _eos(folder: Path, ids: Mapping[str, int]) -> Iterator[str]:
    """The EOS that each file beside a tokenizer names, if it is a token."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _content(folder / name).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in ids:
            yield token
    tokens = {index: token for token, index in ids.items()}
    for name in ("generation_config.json", "config.json"):
        index = _content(folder / name).get("eos_token_id")
        index = next(iter(index), None) if isinstance(index, list) else index
        if isinstance(index, int) and index in tokens:
            yield tokens[index]


def _content(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        content = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
