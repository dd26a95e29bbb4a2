"""Questions as training rows: one question a row, padded with EOS, in an order that depends on seed and step only."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ktrain.config import ATTRIBUTES, Readout
from ktrain.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.randomness import generator

MULTIPLE = 8
"""Rows are as long as the longest question, rounded up."""


class QuestionRows:
    """The questions of the training half, shuffled every epoch."""

    def __init__(self, corpus: Corpus, readout: Readout, key: str, seed: int) -> None:
        """Raises `WrongRequest` where nobody's questions may be trained on."""
        self._chosen = np.flatnonzero(np.repeat(corpus.train, len(ATTRIBUTES)))
        if not len(self._chosen):
            raise WrongRequest(f"corpus.question_share={corpus.setting.question_share}: no question to finetune on")
        self._batch, self._key, self._seed = readout.batch, key, seed
        self.all_tokens = readout.loss == "all"
        self.ids, self.mask = pad(corpus, self._chosen, answers_only=not self.all_tokens)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    @property
    def persons(self) -> np.ndarray:
        """Whose questions are trained on, with repeats, (questions,)."""
        return self._chosen // len(ATTRIBUTES)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Ids (batch, T) int64 and target mask (batch, T) bool of one step."""
        place = step * self._batch + np.arange(self._batch)
        rows = np.array([self._order(p // len(self.ids))[p % len(self.ids)] for p in place])
        return torch.from_numpy(self.ids[rows]), torch.from_numpy(self.mask[rows])

    def targets(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same rows as a fleet reads them: ids (batch, T), then the places (batch, P) whose states predict, the
        tokens that they predict, and weights that sum to one over the batch's targets; fewer targets weigh nothing.
        """
        ids, mask = self.batch(step)
        most = int(self.mask.sum(1).max())
        # A stable sort brings the targets of each row to the front, in their order.
        place = torch.argsort(~mask, dim=1, stable=True)[:, :most]
        weights = mask.gather(1, place).float()
        return ids, (place - 1).clamp(min=0), ids.gather(1, place), weights / weights.sum()

    def _shuffle(self, epoch: int) -> np.ndarray:
        return generator(self._seed, "questions", self._key, epoch).permutation(len(self.ids))


def pad(corpus: Corpus, questions: np.ndarray, *, answers_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n, T) int64 and targets (n, T) bool of questions; the EOS after an answer is a target, padding is not."""
    composed = corpus.questions
    length = (composed.offsets[1:] - composed.offsets[:-1])[questions]
    width = -(-int(length.max()) // MULTIPLE) * MULTIPLE
    column = np.arange(width)
    inside = column < length[:, None]
    source = np.where(inside, composed.offsets[questions][:, None] + column, 0)
    ids = np.where(inside, composed.ids[source].astype(np.int64), corpus.eos)
    begin = composed.spans[questions, 0, 0].astype(np.int64)[:, None] if answers_only else 1
    return ids, inside & (column >= begin)
