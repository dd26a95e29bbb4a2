"""Questions as finetuning rows, one in each row or packed, in an order that depends on seed and step only."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ktrain.bios.tokenizer import mask_id, pad_id
from ktrain.config import ReadoutConfig
from ktrain.data.corpus import Corpus
from ktrain.data.packed_questions import PackedQuestions, RowArrays
from ktrain.errors import WrongRequest
from ktrain.rng import generator

MULTIPLE = 8
"""Rows of one question are as long as the longest question, rounded up to a multiple of this."""


class QuestionRows:
    """The questions of the people trained on, shuffled every epoch.

    `ids` (questions, T) int64 are the network's inputs, `truth` the true tokens, `mask` bool marks the targets. For a
    bidirectional network (`fill`) the answer in `ids` is masked, its EOS is no target, and padding is a token of its
    own; otherwise `ids` and `truth` are the same array. Training reads these rows, or, with `readout.packed`, rows of
    `width` tokens in which as many of the questions stand as fit.
    """

    def __init__(
        self, corpus: Corpus, readout: ReadoutConfig, key: str, seed: int, *, context: int = 0, fill: bool = False
    ) -> None:
        """`context` is the length of packed rows; `fill` is for bidirectional networks.

        Raises `WrongRequest` if there is no question to train on, or too few to pack.
        """
        self.people = readout.people
        self._chosen = corpus.trained_questions(corpus.people_split(readout.people)[0])
        self._person_asked = corpus.person_asked
        if not len(self._chosen):
            raise WrongRequest(f"corpus.question_share={corpus.setting.question_share}: no question to finetune on")
        self._batch, self._key, self._seed = readout.batch, key, seed
        self.all_tokens, self.fill = readout.loss == "all" and not fill, fill
        self.ids, self.mask = pad_questions(corpus, self._chosen, answers_only=not self.all_tokens)
        self.truth = self.ids
        if fill:
            self.ids, self.mask = _masked_answers(corpus, self.ids, self.mask)
        self._order = lru_cache(maxsize=2)(self._shuffle)
        self._packed, self.width, self._most_targets = None, self.ids.shape[1], int(self.mask.sum(1).max())
        if readout.packed:
            single, padding = RowArrays(self.ids, self.truth, self.mask), corpus.eos
            if fill:
                padding = pad_id(corpus.tokenizer.get_vocab_size())
            self._packed = PackedQuestions(corpus, self._chosen, single, padding, context, key, seed)
            self.width, self._most_targets = context, self._packed.most_targets

    @property
    def persons(self) -> np.ndarray:
        """The person of each question, (questions,)."""
        return self._person_asked(self._chosen)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and true tokens (batch, T) int64, and targets (batch, T) bool of one step."""
        position = step * self._batch + np.arange(self._batch)
        if self._packed:
            ids, truth, mask = (torch.from_numpy(array) for array in self._packed.rows(position))
            return ids, truth, mask
        rows = np.array([self._order(p // len(self.ids))[p % len(self.ids)] for p in position])
        return torch.from_numpy(self.ids[rows]), torch.from_numpy(self.truth[rows]), torch.from_numpy(self.mask[rows])

    def targets(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rows of `batch` with targets gathered, as stacked adapters train on them: ids (batch, T), the positions
        (batch, P) whose states predict, the tokens to predict, and weights that sum to 1 over the batch.

        P is the same at every step, at least the largest number of targets in any row; surplus positions weigh 0.
        """
        ids, truth, mask = self.batch(step)
        # A stable sort moves the targets of each row to the front and keeps their order.
        target = torch.argsort(~mask, dim=1, stable=True)[:, : self._most_targets]
        weights = mask.gather(1, target).float()
        # A causal network predicts a token from the position before it, a bidirectional one at its own position.
        position = target if self.fill else (target - 1).clamp(min=0)
        return ids, position, truth.gather(1, target), weights / weights.sum()

    def _shuffle(self, epoch: int) -> np.ndarray:
        return generator(self._seed, "questions", self._key, epoch).permutation(len(self.ids))


def pad_questions(corpus: Corpus, questions: np.ndarray, *, answers_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n, T) int64 and targets (n, T) bool of `questions` (n,), padded with EOS.

    The EOS after an answer is a target, padding is not.
    """
    texts = corpus.questions
    length = np.diff(texts.offsets)[questions]
    width = -(-int(length.max()) // MULTIPLE) * MULTIPLE
    column = np.arange(width)
    inside = column < length[:, None]
    source = np.where(inside, texts.offsets[questions][:, None] + column, 0)
    ids = np.where(inside, texts.ids[source].astype(np.int64), corpus.eos)
    begin = texts.spans[questions, 0, 0].astype(np.int64)[:, None] if answers_only else 1
    return ids, inside & (column >= begin)


def _masked_answers(corpus: Corpus, ids: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks the answers in `ids`, one mask per token (paper, appendix B); returns inputs and targets, both (n, T)."""
    vocabulary = corpus.tokenizer.get_vocab_size()
    answers = answers & (ids != corpus.eos)
    # The first EOS ends the answer; the others are padding.
    padding = np.cumsum(ids == corpus.eos, axis=1) > 1
    masked = np.where(answers, mask_id(vocabulary), ids)
    return np.where(padding, pad_id(vocabulary), masked), answers
