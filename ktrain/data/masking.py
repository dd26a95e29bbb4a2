"""Whole-word masking, the objective of bidirectional networks (paper, appendix B).

15 % of the words of a row are chosen; of their tokens the mask replaces 80 %, a random token 10 %, and 10 % stay.
Spaces separate words. `train.mask_share` chooses another share of the words in training, and with
`train.masked_answers` the mask also replaces whole answers, as when the network is asked afterwards; the paper does
neither.
"""

import math

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ktrain.bios.tokenizer import EOS, eos_id, mask_id
from ktrain.rng import generator

SHARE = 0.15
"""The paper's share of the words that is chosen; recall is always measured with it."""
REPLACED, RANDOM = 0.8, 0.1
"""Shares of a chosen word's tokens that become the mask, and any token."""
MARGIN = 0.3
"""`target_places` has room for this share of a row's tokens more than are chosen on average with `SHARE`, and in
proportion to the spread with other shares: five standard deviations of a row of the miniature, more of longer rows."""
MOST_ANSWERS = 0.3
"""Share of a row of questions that is answers, at most."""


class Masker:
    """Masks rows of tokens; the masks of a step are a pure function of (key, seed, step)."""

    def __init__(
        self, tokenizer: Tokenizer, key: str, seed: int, *, share: float = SHARE, masked_answers: float = 0.0
    ) -> None:
        """`share` is the share of the words that are chosen, `masked_answers` that of the answers masked whole."""
        self._key, self._seed, self._share, self._masked_answers = key, seed, share, masked_answers
        spread = math.sqrt(share * (1 - share) / (SHARE * (1 - SHARE)))
        self.most_targets = min(1.0, share + MARGIN * spread + MOST_ANSWERS * masked_answers)
        """The share of a row's tokens for which `target_places` needs room."""
        self._eos = eos_id(tokenizer)
        self._vocabulary = tokenizer.get_vocab_size()
        # GPT-2's tokenizer writes the space before a word as this letter.
        self._begins_word = np.array(
            [(tokenizer.id_to_token(i) or "").startswith(("Ġ", EOS)) for i in range(self._vocabulary)]
        )

    def chosen(self, rows: np.ndarray, *path: str | int) -> np.ndarray:
        """The tokens of chosen words, (rows, T) bool, drawn from the random stream `path`. EOS belongs to no word."""
        # One number per word decides for all its tokens: gather it by the token's word index, (rows, T).
        word = np.cumsum(self._word_starts(rows), axis=1) - 1
        word_chosen = generator(self._seed, "words", self._key, *path).random(rows.shape) < self._share
        return np.asarray(np.take_along_axis(word_chosen, word, axis=1) & (rows != self._eos))

    def masked(self, rows: np.ndarray, step: int, answers: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Masked rows (n, T) int64, and the tokens that are targets, (n, T) bool.

        `answers` (n, T) bool are the tokens of answers, which only a masker of whole answers needs.
        """
        chosen = self.chosen(rows, step)
        rng = generator(self._seed, "masks", self._key, step)
        draw, random_ids = rng.random(rows.shape), rng.integers(self._vocabulary, size=rows.shape)
        replaced = chosen & (draw < REPLACED)
        randomized = chosen & (draw >= REPLACED) & (draw < REPLACED + RANDOM)
        ids = np.where(replaced, mask_id(self._vocabulary), rows.astype(np.int64))
        ids = np.where(randomized, random_ids, ids)
        if answers is None or not self._masked_answers:
            return ids, chosen
        whole = self._whole_answers(answers, step)
        return np.where(whole, mask_id(self._vocabulary), ids), chosen | whole

    def _whole_answers(self, answers: np.ndarray, step: int) -> np.ndarray:
        """The tokens of the answers that are masked whole, (n, T) bool. An answer is a run of `answers`: the next
        question stands before the next one."""
        begins = answers.copy()
        begins[:, 1:] &= ~answers[:, :-1]
        answer = np.maximum(np.cumsum(begins, axis=1) - 1, 0)
        drawn = generator(self._seed, "answers", self._key, step).random(answers.shape) < self._masked_answers
        return answers & np.take_along_axis(drawn, answer, axis=1)

    def _word_starts(self, rows: np.ndarray) -> np.ndarray:
        """Where words begin: at a space, at EOS, after EOS, and at the start of a window."""
        starts = self._begins_word[rows]
        starts[:, 0] = True
        starts[:, 1:] |= rows[:, :-1] == self._eos
        return np.asarray(starts)


def target_places(chosen: np.ndarray, most: float) -> np.ndarray:
    """Returns the positions of the tokens `chosen` (n, T) bool of each row, then of others, (n, P) int64.

    P is the share `most` of T, so that all steps have one shape; T where a row has more targets than that.
    """
    length = chosen.shape[1]
    room = math.ceil(most * length)
    if chosen.sum(axis=1).max() > room:
        room = length
    return np.argsort(~chosen, axis=1, kind="stable")[:, :room]


def evenly_weighted(chosen: np.ndarray, ranks: int) -> Tensor:
    """Equal weights (rows, T) of the chosen tokens that sum to `ranks` over the global batch.

    The average over ranks of the weighted losses is then the mean over all targets.
    """
    weights = torch.from_numpy(chosen.astype(np.float32))
    return weights / max(1.0, float(weights.sum())) * ranks
