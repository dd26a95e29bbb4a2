"""Composition: token ids of sentences from the ids of their fragments, without encoding any text twice.

The pre-tokenizer cuts before every space that precedes a word, so BPE never merges across fragments and the ids of a
text are the ids of its fragments in a row. `tests/ktrain/test_compose.py` compares with encoding the whole text.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ktrain.templates import COLUMNS, Fragment
from ktrain.tokenizer import eos_id

CHUNK = 16_384
"""Texts composed at once by a thread: large enough for NumPy, small enough for the cache."""


@dataclass(frozen=True)
class Composed:
    """Many token sequences, each ending in EOS, in one flat array.

    `ids` (tokens,) uint16; `offsets` (texts + 1,) int64; `spans` (texts, sentences, 2) int16, the begin and end of
    each sentence's attribute counted from the begin of its text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        return self.ids[self.offsets[text] : self.offsets[text + 1]]


class Composer:
    """Programs (fragment lists) over one table of encoded fragments."""

    def __init__(self, tokenizer: Tokenizer, programs: Sequence[Sequence[Fragment]]) -> None:
        self._tokenizer = tokenizer
        self._eos = eos_id(tokenizer)
        self.programs = programs
        rows: dict[Fragment, int] = {}
        texts, inside = [""], [0]
        for fragment in (f for program in programs for f in program):
            if fragment not in rows:
                rows[fragment] = len(texts)
                texts.extend(fragment.texts)
                inside.extend(fragment.inside)
        encodings = tokenizer.encode_batch(texts)
        self._length = np.array([len(e.ids) for e in encodings], dtype=np.int32)
        self._begin = np.concatenate([[0], np.cumsum(self._length)[:-1]]).astype(np.int32)
        self._ids = np.array([i for e in encodings for i in e.ids], dtype=np.uint16)
        self._covered = np.array(
            [sum(start < chars for start, _ in e.offsets) for e, chars in zip(encodings, inside, strict=True)],
            dtype=np.int32,
        )
        self._lay_out(rows)

    def _lay_out(self, rows: dict[Fragment, int]) -> None:
        """Programs as rectangles, padded with the empty fragment at row 0, column `constant`."""
        shape = (len(self.programs), max(map(len, self.programs)))
        self._row, self._column = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._first, self._last = np.zeros(shape[0], np.int64), np.zeros(shape[0], np.int64)
        for p, program in enumerate(self.programs):
            self._row[p, : len(program)] = [rows[f] for f in program]
            self._column[p, : len(program)] = [COLUMNS.index(f.column) for f in program]
            attribute = [k for k, f in enumerate(program) if f.inside[0] > 0]
            self._first[p], self._last[p] = attribute[0], attribute[-1]

    def text(self, programs: Sequence[int], columns: np.ndarray) -> str:
        """The text of one sequence of programs for one person's `columns`: what `compose` must tokenise alike."""
        pieces = (f for p in programs for f in self.programs[p])
        return "".join(f.texts[columns[COLUMNS.index(f.column)]] for f in pieces)

    def compose(self, programs: np.ndarray, columns: np.ndarray, people: np.ndarray) -> Composed:
        """Token ids of texts; text i is `programs[i]` (sentences,) filled from `columns[people[i]]`.

        Threads share the work, because NumPy's gathers release the interpreter.
        """
        chunks = [slice(i, i + CHUNK) for i in range(0, len(programs), CHUNK)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(lambda c: self._chunk(programs[c], columns[people[c]]), chunks))
        lengths = np.concatenate([p[1] for p in parts])
        return Composed(
            ids=np.concatenate([p[0] for p in parts]),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            spans=np.concatenate([p[2] for p in parts]),
        )

    def _chunk(self, programs: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        texts, sentences = programs.shape
        width = self._row.shape[1]
        choice = np.take_along_axis(columns, self._column[programs].reshape(texts, -1), axis=1)
        rows = self._row[programs].reshape(texts, -1) + choice
        length = self._length[rows]
        end = np.cumsum(length, axis=1)
        at = np.arange(sentences) * width
        first, last = at + self._first[programs], at + self._last[programs]
        begin_of_span = np.take_along_axis(end - length, first, axis=1)
        row_of_last = np.take_along_axis(rows, last, axis=1)
        end_of_span = np.take_along_axis(end - length, last, axis=1) + self._covered[row_of_last]
        spans = np.stack([begin_of_span, end_of_span], axis=2).astype(np.int16)

        totals = end[:, -1] + 1
        ids = np.full(int(totals.sum()), self._eos, dtype=np.uint16)
        used = length > 0
        length, source = length[used], self._begin[rows[used]]
        position = np.arange(int(length.sum()))
        walk = position + np.repeat(source - (np.cumsum(length) - length), length)
        # Each text before this one has left one place for its EOS.
        ids[position + np.repeat(np.arange(texts), totals - 1)] = self._ids[walk]
        return ids, totals, spans
