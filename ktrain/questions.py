"""Questions as training rows: one question a row, padded with EOS, in an order that depends on seed and step only."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ktrain.config import ATTRIBUTES, Readout
from ktrain.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.masking import mask_id, pad_id
from ktrain.randomness import generator

MULTIPLE = 8
"""Rows are as long as the longest question, rounded up."""


class QuestionRows:
    """The questions of those who are trained on, shuffled every epoch.

    `ids` (questions, T) int64 is what is read, `truth` what stands there, `mask` bool where it is learned. They differ
    for a network that fills in: its answers are masks, without the EOS after them, and its padding is its own.
    """

    def __init__(self, corpus: Corpus, readout: Readout, key: str, seed: int, *, fill: bool = False) -> None:
        """`fill` for a bidirectional network. Raises `WrongRequest` where nobody's questions may be trained on."""
        self.people = readout.people
        self._chosen = np.flatnonzero(np.repeat(corpus.halves(readout.people)[0], len(ATTRIBUTES)))
        if not len(self._chosen):
            raise WrongRequest(f"corpus.question_share={corpus.setting.question_share}: no question to finetune on")
        self._batch, self._key, self._seed = readout.batch, key, seed
        self.all_tokens, self.fill = readout.loss == "all" and not fill, fill
        self.ids, self.mask = pad(corpus, self._chosen, answers_only=not self.all_tokens)
        self.truth = self.ids
        if fill:
            self.ids, self.mask = _hidden(corpus, self.ids, self.mask)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    @property
    def persons(self) -> np.ndarray:
        """Whose questions are trained on, with repeats, (questions,)."""
        return self._chosen // len(ATTRIBUTES)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and truth (batch, T) int64, and target mask (batch, T) bool of one step."""
        place = step * self._batch + np.arange(self._batch)
        rows = np.array([self._order(p // len(self.ids))[p % len(self.ids)] for p in place])
        return torch.from_numpy(self.ids[rows]), torch.from_numpy(self.truth[rows]), torch.from_numpy(self.mask[rows])

    def targets(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same rows as a fleet reads them: ids (batch, T), then the places (batch, P) whose states predict, the
        tokens that they predict, and weights that sum to one over the batch's targets; fewer targets weigh nothing.
        """
        ids, truth, mask = self.batch(step)
        most = int(self.mask.sum(1).max())
        # A stable sort brings the targets of each row to the front, in their order.
        place = torch.argsort(~mask, dim=1, stable=True)[:, :most]
        weights = mask.gather(1, place).float()
        # A token is predicted from the one before it, or filled in where it stands.
        places = place if self.fill else (place - 1).clamp(min=0)
        return ids, places, truth.gather(1, place), weights / weights.sum()

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


def _hidden(corpus: Corpus, ids: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose answers are to be filled in: as many masks as an answer has tokens (paper, appendix B)."""
    vocabulary = corpus.tokenizer.get_vocab_size()
    answers = answers & (ids != corpus.eos)
    # The first EOS ends the answer, what comes after it is padding.
    after = np.cumsum(ids == corpus.eos, axis=1) > 1
    return np.where(after, pad_id(vocabulary), np.where(answers, mask_id(vocabulary), ids)), answers
