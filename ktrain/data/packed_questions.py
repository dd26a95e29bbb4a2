"""Packed finetuning rows: as many whole questions in a row as fit, in an order that depends on seed and step only.

Packing is that of pretraining's whole windows, but a question that no longer fits is left to the next row alone: every
pass over the questions holds each of them once and whole.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ktrain.bios.fragment_encoder import ragged_arange
from ktrain.data.corpus import Corpus
from ktrain.data.packing import PackedStream
from ktrain.errors import WrongRequest


class RowArrays(NamedTuple):
    """Inputs and true tokens, both int64, and targets, bool; all (rows, T)."""

    ids: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


class PackedQuestions:
    """An endless stream of rows of `context` tokens; every pass over the questions shuffles and packs them anew.

    A row begins with a question, EOS ends each question, and padding fills what is left. The last row of a pass may
    hold few questions.
    """

    def __init__(
        self, corpus: Corpus, chosen: np.ndarray, single: RowArrays, padding: int, context: int, key: str, seed: int
    ) -> None:
        """`single` has each of the questions `chosen` in a row of its own; `padding` fills `ids`, EOS `truth`.

        Raises `WrongRequest` if the longest question does not fit into a row, or if all together do not fill one.
        """
        check_fits(np.diff(corpus.questions.offsets)[chosen], context)
        self._stream = PackedStream("question", corpus.questions, chosen, context, key, seed, whole=True)
        self._single, self._fillers = single, (padding, corpus.eos, False)
        targets = single.mask.sum(1)
        self.most_targets = int(context * (targets / self._stream.length).max())
        """A row never has more targets than this."""
        self._pass = lru_cache(maxsize=2)(self._pack)

    def rows(self, numbers: np.ndarray) -> RowArrays:
        """The rows of these numbers, counted over all passes."""
        located = [self._stream.locate(int(number)) for number in numbers]
        rows = [[array[place] for array in self._pass(number)] for number, place in located]
        return RowArrays(*(np.stack(column) for column in zip(*rows, strict=True)))

    def _pack(self, number: int) -> RowArrays:
        """All rows of a pass."""
        context, layout = self._stream.context, self._stream.layout(number)
        # The layout repeats the first questions after the last one; here a pass has each once.
        questions = layout.texts[: len(self._stream.chosen)]
        begin = layout.begin[: len(questions)]
        row = np.searchsorted(layout.windows, begin, side="right") - 1
        column = begin - layout.windows[row]
        length = self._stream.length[questions]
        target = ragged_arange(row * context + column, length)
        source = ragged_arange(questions * self._single.ids.shape[1], length)
        packed = []
        for array, filler in zip(self._single, self._fillers, strict=True):
            flat = np.full(len(layout.windows) * context, filler, dtype=array.dtype)
            flat[target] = array.ravel()[source]
            packed.append(flat.reshape(-1, context))
        return RowArrays(*packed)


def check_fits(length: np.ndarray, context: int) -> None:
    """Raises `WrongRequest` if questions of these lengths cannot be packed into rows of `context` tokens."""
    advice = "readout.packed=false gives each question a row of its own"
    if (longest := int(length.max())) > context:
        raise WrongRequest(
            f"readout.packed=true: the longest question has {longest} tokens, train.context={context}; {advice}"
        )
    if (total := int(length.sum())) < context:
        raise WrongRequest(
            f"readout.packed=true: all questions together have {total} tokens, train.context={context}; {advice}"
        )
