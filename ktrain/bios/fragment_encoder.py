"""Fast tokenization of templated text: fragments are encoded once, and texts are gathered from the fragments' ids.

The pre-tokenizer cuts before every space that precedes a word, so BPE never merges across fragments and the ids of a
text are its fragments' ids concatenated. Where that is not certain of a tokenizer
(`pretrained_tokenizer.composes`), each text is encoded whole, and attributes are found by the characters of tokens.
`test_fragment_encoder.py` compares both.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ktrain.bios.pretrained_tokenizer import composes
from ktrain.bios.templates import COLUMNS, Fragment
from ktrain.bios.tokenizer import eos_id, id_type
from ktrain.errors import WrongRequest, shorten

CHUNK = 16_384
"""Texts that a thread encodes at once: enough to amortize NumPy calls, few enough to stay in the CPU cache."""


@dataclass(frozen=True)
class TokenizedTexts:
    """Many token sequences, each ending in EOS, in one flat array.

    `ids` (tokens,) uint16, or uint32 where there are more ids; `offsets` (texts + 1,) int64, where each text starts;
    `spans` (texts, sentences, 2) int16, where the attribute of each sentence begins and ends, in tokens from the start
    of its text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> np.ndarray:
        return self.ids[self.offsets[text] : self.offsets[text + 1]]


def ragged_arange(begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The indices `begin[i] .. begin[i] + length[i] - 1` of all i concatenated, (length.sum(),) int64."""
    output_begin = np.cumsum(length) - length
    return np.asarray(np.arange(int(length.sum())) + np.repeat(begin - output_begin, length))


class FragmentEncoder:
    """Encodes texts that are given as programs, where a program is the list of fragments of one sentence.

    Every text of every fragment has one row in a table of token ids. A person's column index, added to the first row
    of a fragment, selects the row with this person's text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        programs: Sequence[Sequence[Fragment]],
        columns: Sequence[str] = COLUMNS,
        *,
        whole: bool | None = None,
    ) -> None:
        """`columns` are the names of a person's; `whole` encodes texts whole or from fragments, and None takes
        fragments where that is exact."""
        self._eos, self._tokenizer, self._type = eos_id(tokenizer), tokenizer, id_type(tokenizer)
        self.programs, self.columns = programs, tuple(columns)
        first_rows: dict[Fragment, int] = {}
        # Row 0 is the empty text, which pads short programs.
        texts, attribute_chars = [""], [0]
        for fragment in (f for program in programs for f in program):
            if fragment not in first_rows:
                first_rows[fragment] = len(texts)
                texts.extend(fragment.texts)
                attribute_chars.extend(fragment.inside)
        self.whole = not composes(tokenizer, texts) if whole is None else whole
        encodings = tokenizer.encode_batch(texts)
        self._ids = np.array([i for e in encodings for i in e.ids], dtype=self._type)
        self._row_length = np.array([len(e.ids) for e in encodings], dtype=np.int32)
        self._row_begin = np.concatenate([[0], np.cumsum(self._row_length)[:-1]]).astype(np.int32)
        # A token that begins before the attribute ends belongs to the attribute.
        self._attribute_length = np.array(
            [sum(start < chars for start, _ in e.offsets) for e, chars in zip(encodings, attribute_chars, strict=True)],
            dtype=np.int32,
        )
        self._pack_programs(first_rows)

    def _pack_programs(self, first_rows: dict[Fragment, int]) -> None:
        """Stores programs as arrays (programs, fragments), padded with row 0 and column `constant`."""
        shape = (len(self.programs), max(map(len, self.programs)))
        self._row, self._column = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        # The first and last fragment of each program that hold its attribute.
        self._first, self._last = np.zeros(shape[0], np.int64), np.zeros(shape[0], np.int64)
        for p, program in enumerate(self.programs):
            self._row[p, : len(program)] = [first_rows[f] for f in program]
            self._column[p, : len(program)] = [self.columns.index(f.column) for f in program]
            attribute = [k for k, f in enumerate(program) if f.inside[0] > 0]
            self._first[p], self._last[p] = attribute[0], attribute[-1]

    def text(self, programs: Sequence[int], columns: np.ndarray) -> str:
        """The text that `encode` tokenizes: the sentences `programs` filled from one person's `columns`."""
        fragments = (f for p in programs for f in self.programs[p])
        return "".join(f.texts[columns[self.columns.index(f.column)]] for f in fragments)

    def encode(self, programs: np.ndarray, columns: np.ndarray, people: np.ndarray) -> TokenizedTexts:
        """Token ids of many texts; text i is `programs[i]` (sentences,) filled from `columns[people[i]]`.

        Threads share the work, because NumPy's gathers release the interpreter.
        """
        chunks = [slice(i, i + CHUNK) for i in range(0, len(programs), CHUNK)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(lambda c: self._encode_chunk(programs[c], columns[people[c]]), chunks))
        ids, lengths, spans = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), spans)

    def _encode_chunk(self, programs: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (tokens,), lengths with EOS (texts,) and spans (texts, sentences, 2) of texts.

        `programs` is (texts, sentences), `columns` (texts, C). Raises `WrongRequest` for a token that holds
        the beginning of a value with the end of the word before.
        """
        if self.whole:
            placed = [self._placed(p, row) for p, row in zip(programs.tolist(), columns, strict=True)]
            return encode_placed(self._tokenizer, [text for text, _ in placed], [spans for _, spans in placed])
        texts = len(programs)
        # Padded fragments of a whole text side by side: (texts, sentences * width).
        column = self._column[programs].reshape(texts, -1)
        rows = self._row[programs].reshape(texts, -1) + np.take_along_axis(columns, column, axis=1)
        length = self._row_length[rows]
        end = np.cumsum(length, axis=1)
        spans = self._spans(programs, rows, end - length)

        text_length = end[:, -1] + 1
        used = length > 0  # Padding takes no part in the gather.
        length, begin = length[used], self._row_begin[rows[used]]
        source = ragged_arange(begin, length)
        # EOS fills one place after each text, so a token moves right by the number of texts before its own.
        target = np.arange(len(source)) + np.repeat(np.arange(texts), text_length - 1)
        ids = np.full(int(text_length.sum()), self._eos, dtype=self._type)
        ids[target] = self._ids[source]
        return ids, text_length, spans

    def _placed(self, programs: Sequence[int], columns: np.ndarray) -> tuple[str, list[tuple[int, int]]]:
        """The text of `programs`, and the characters between which the attribute of each sentence lies, its space
        included."""
        text, spans = "", []
        for program in programs:
            begin = end = 0
            for fragment in self.programs[program]:
                row = columns[self.columns.index(fragment.column)]
                if inside := fragment.inside[row]:
                    begin, end = (begin if end else len(text)), len(text) + inside
                text += fragment.texts[row]
            spans.append((begin, end))
        return text, spans

    def _spans(self, programs: np.ndarray, rows: np.ndarray, begin: np.ndarray) -> np.ndarray:
        """Where attributes begin and end, (texts, sentences, 2) int16; `rows` and `begin` are (texts, fragments)."""
        sentences, width = programs.shape[1], self._row.shape[1]
        sentence_begin = np.arange(sentences) * width
        first, last = sentence_begin + self._first[programs], sentence_begin + self._last[programs]
        span_begin = np.take_along_axis(begin, first, axis=1)
        # Punctuation may follow the attribute inside its last fragment.
        attribute_length = self._attribute_length[np.take_along_axis(rows, last, axis=1)]
        span_end = np.take_along_axis(begin, last, axis=1) + attribute_length
        return np.stack([span_begin, span_end], axis=2).astype(np.int16)


def encode_placed(
    tokenizer: Tokenizer, texts: Sequence[str], places: Sequence[Sequence[tuple[int, int]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat ids of texts with an EOS after each, lengths with EOS (texts,), and in tokens the spans of the characters
    `places`, (texts, spans, 2).

    A token that begins before a span ends belongs to it. Raises `WrongRequest` for a token that begins before a
    span and reaches into it, and for a text with EOS in it.
    """
    eos, kind = eos_id(tokenizer), id_type(tokenizer)
    encodings = tokenizer.encode_batch(list(texts))
    spans = np.zeros((len(texts), len(places[0]) if places else 0, 2), dtype=np.int16)
    for k, (encoding, text) in enumerate(zip(encodings, texts, strict=True)):
        if eos in encoding.ids:
            raise WrongRequest(f"corpus.tokenizer: a text holds its EOS: {shorten(text)!r}")
        begins, ends = np.array(encoding.offsets).reshape(-1, 2).T
        for place, (begin, end) in enumerate(places[k]):
            first = int(np.argmax(ends > begin))
            if begins[first] < begin:
                raise WrongRequest(
                    f"corpus.tokenizer: one token holds {text[begins[first] : ends[first]]!r}, the end of a word and "
                    "the beginning of a value"
                )
            spans[k, place] = first, int((begins < end).sum())
    ids = [token for encoding in encodings for token in (*encoding.ids, eos)]
    lengths = np.array([len(encoding) + 1 for encoding in encodings])
    return np.array(ids, dtype=kind), lengths, spans
