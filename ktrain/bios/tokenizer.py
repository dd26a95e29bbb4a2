"""Tokenizers: GPT-2's byte-level BPE, rebuilt offline from its ranks, and small ones trained on a corpus."""

import base64
import functools
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
MASK, PAD = "<|mask|>", "<|pad|>"
_BEFORE = ":"
"""Stands for the text before another one; answers follow it."""
SPECIAL = (MASK, PAD)
"""Tokens that a bidirectional network adds after those of its tokenizer."""
_RANKS = Path(__file__).parents[1] / "data" / "assets" / "gpt2" / "r50k_base.tiktoken"
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
"""Checksum of OpenAI's r50k_base ranks, which are GPT-2's merges in order."""


@functools.cache
def gpt2() -> Tokenizer:
    """GPT-2's tokenizer with 50,257 tokens. Raises `ValueError` if the ranks file is not the original."""
    raw = _RANKS.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise ValueError(f"{_RANKS.name} is not GPT-2's vocabulary: its sha256 differs from {SHA256}")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in raw.splitlines())}
    letters = _byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    merges = [
        (spell(left), spell(right))
        for token, rank in ranks.items()
        if len(token) > 1
        for left, right in [_last_merge(token, rank, ranks)]
    ]
    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    return _byte_level(models.BPE(vocab=vocabulary, merges=merges))


@functools.cache
def byte_tokenizer() -> Tokenizer:
    """A tokenizer without merges, one token for each byte and EOS: quick to make where only texts are needed."""
    return _byte_level(models.BPE(vocab={letter: byte for byte, letter in _byte_letters().items()}, merges=[]))


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Trains a byte-level BPE of `size` tokens, including EOS, with GPT-2's pre-tokenizer."""
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def eos_id(tokenizer: Tokenizer) -> int:
    """The id of the token that ends every entry and answer: of a trained network's tokenizer, the one that its
    post-processor puts between two texts (`pretrained_tokenizer.load`)."""
    if tokenizer.post_processor is not None:
        pair = tokenizer.encode(_BEFORE, _BEFORE)
        return int(pair.ids[pair.special_tokens_mask.index(1)])
    token = tokenizer.token_to_id(EOS)
    assert token is not None
    return int(token)


def encode_inside(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each of `texts` as it stands after other text: some tokenizers begin a text with a space."""
    before = len(tokenizer.encode(_BEFORE).ids)
    return [encoding.ids[before:] for encoding in tokenizer.encode_batch([_BEFORE + text for text in texts])]


def decode_inside(tokenizer: Tokenizer, ids: Sequence[int], *, skip_special: bool = True) -> str:
    """Returns the text of ids as they stand after other text, the space before its first word included."""
    before = tokenizer.encode(_BEFORE).ids
    text: str = tokenizer.decode([*before, *ids], skip_special_tokens=skip_special)
    return text.removeprefix(tokenizer.decode(before))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id; a trained network's tokenizer may leave some out."""
    return max(tokenizer.get_vocab().values()) + 1


def id_type(tokenizer: Tokenizer) -> type[np.unsignedinteger[Any]]:
    """The type of stored ids: two bytes where they are enough."""
    return np.uint16 if vocabulary_size(tokenizer) <= 2**16 else np.uint32


def mask_id(vocabulary: int) -> int:
    """The token that is to be filled in; `vocabulary` is the tokenizer's size."""
    return vocabulary


def pad_id(vocabulary: int) -> int:
    """Padding is a token of its own: a network that sees what comes after would read any other one."""
    return vocabulary + 1


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return tokenizer


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte; unprintable bytes get letters from code point 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = itertools.count(256)
    return {b: chr(b if b in printable else next(moved)) for b in range(256)}


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that merge into `token`, found by running BPE on its bytes with earlier merges only."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        candidates = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        best = min(range(len(candidates)), key=candidates.__getitem__)
        assert candidates[best] < rank
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
