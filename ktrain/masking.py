"""Masking: what a bidirectional network learns from, whole words that it has to fill in (paper, appendix B).

15 % of the words of a row are chosen; of their tokens 80 % are replaced by the mask, 10 % by a random token, and 10 %
stay. A word is what stands between two spaces. Its two special tokens come after those of the tokenizer.
"""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ktrain.forward import Tables, hidden
from ktrain.output_loss import OutputLoss
from ktrain.randomness import generator
from ktrain.tokenizer import EOS, eos_id

SHARE = 0.15
"""Of the words."""
REPLACED, RANDOM = 0.8, 0.1
"""Of the tokens of a chosen word: by the mask, and by any token."""


def mask_id(vocabulary: int) -> int:
    """The token that is to be filled in; `vocabulary` is the tokenizer's size."""
    return vocabulary


def pad_id(vocabulary: int) -> int:
    """Padding is a token of its own: a network that sees what comes after would read any other one."""
    return vocabulary + 1


class Masker:
    """Masks rows of tokens; the masks of a step are a pure function of (key, seed, step)."""

    def __init__(self, tokenizer: Tokenizer, key: str, seed: int) -> None:
        self._key, self._seed = key, seed
        self._eos = eos_id(tokenizer)
        self._vocabulary = tokenizer.get_vocab_size()
        # GPT-2's tokenizer writes a space before a word as this letter.
        self._begins = np.array(
            [(tokenizer.id_to_token(i) or "").startswith(("Ġ", EOS)) for i in range(self._vocabulary)]
        )

    def chosen(self, rows: np.ndarray, *about: str | int) -> np.ndarray:
        """Which tokens belong to chosen words, (rows, T) bool; EOS is no word."""
        word = np.cumsum(self._starts(rows), axis=1) - 1
        lucky = generator(self._seed, "words", self._key, *about).random(rows.shape) < SHARE
        return np.asarray(np.take_along_axis(lucky, word, axis=1) & (rows != self._eos))

    def masked(self, rows: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, T) with masks, int64, and which tokens are to be filled in, (n, T) bool."""
        chosen = self.chosen(rows, step)
        rng = generator(self._seed, "masks", self._key, step)
        fate, other = rng.random(rows.shape), rng.integers(self._vocabulary, size=rows.shape)
        ids = np.where(chosen & (fate < REPLACED), mask_id(self._vocabulary), rows.astype(np.int64))
        return np.where(chosen & (fate >= REPLACED) & (fate < REPLACED + RANDOM), other, ids), chosen

    def _starts(self, rows: np.ndarray) -> np.ndarray:
        """Where words begin: at a space, at EOS, after EOS, and at a window's begin."""
        starts = self._begins[rows]
        starts[:, 0] = True
        starts[:, 1:] |= rows[:, :-1] == self._eos
        return np.asarray(starts)


class Filling(nn.Module):
    """Loss of filling in: forward(ids, targets, weights), each (rows, T), is the weighted sum of cross-entropies."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.tables = network, Tables(network)
        self.output = OutputLoss(network.get_output_embeddings())

    def forward(self, ids: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        states = hidden(self.network, ids, tables=self.tables)
        loss: Tensor = self.output(states.flatten(0, 1), targets.flatten(), weights.flatten())
        return loss


def evenly(chosen: np.ndarray, ranks: int) -> Tensor:
    """Weights (rows, T) whose sum over the batch is the number of ranks, so that the mean over ranks is the mean."""
    weights = torch.from_numpy(chosen.astype(np.float32))
    return weights / max(1.0, float(weights.sum())) * ranks
