"""The tokenizer of a trained network, and whether it suits the texts of a corpus."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from ktrain.bios.tokenizer import decode_inside, encode_inside, eos_id
from ktrain.config.tokenizer_file import TokenizerFile
from ktrain.errors import WrongRequest, shorten


def load(file: TokenizerFile) -> Tokenizer:
    """Returns the tokenizer of a file without whatever it adds to texts: they begin with their first token, and the
    corpus ends them with EOS. Raises `WrongRequest`."""
    try:
        tokenizer = Tokenizer.from_file(str(file.path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_special_tokens([AddedToken(file.eos, special=True)])
        # EOS joins texts, and so the tokenizer knows it wherever it is saved; see `tokenizer.eos_id`.
        eos = {"id": "eos", "ids": [file.eos_id], "tokens": [file.eos]}
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", pair=["$A", "eos", "$B"], special_tokens=[eos]
        )
    except Exception as e:  # `tokenizers` raises nothing narrower.
        raise WrongRequest(f"corpus.tokenizer={file.path}: cannot be read: {shorten(e)}") from None
    return tokenizer


def require_usable(name: str, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    """Raises `WrongRequest` for a tokenizer, called `name`, that does not give texts back, or takes a part of one for
    EOS. `texts` stand in the middle of longer ones."""
    given, eos = list(texts), eos_id(tokenizer)
    for text, ids in zip(given, encode_inside(tokenizer, given), strict=True):
        if (back := decode_inside(tokenizer, ids)) != text:
            raise WrongRequest(f"corpus.tokenizer={name}: turns {shorten(text)!r} into {shorten(back)!r}")
        if eos in ids:
            raise WrongRequest(f"corpus.tokenizer={name}: {shorten(text)!r} holds its EOS")


def composes(tokenizer: Tokenizer, texts: Iterable[str]) -> bool:
    """Whether the ids of a text are those of its fragments, which begin with spaces, one after the other.

    That is certain where nothing normalizes the text, the pre-tokenizer is GPT-2's without a space of its own in front,
    with digits split or not, and no added token occurs in `texts`, the fragments. Otherwise texts are encoded whole.
    """
    if tokenizer.normalizer is not None or not _cuts_at_spaces(_state(tokenizer.pre_tokenizer)):
        return False
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    together = "\0".join(texts)
    return not any(" " in content.strip() or content in together for content in added)


def _cuts_at_spaces(state: dict[str, Any]) -> bool:
    if state.get("type") == "Sequence":
        *first, last = state["pretokenizers"]
        return all(part["type"] == "Digits" for part in first) and _cuts_at_spaces(last)
    return state.get("type") == "ByteLevel" and state["use_regex"] and not state["add_prefix_space"]


def _state(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return state
