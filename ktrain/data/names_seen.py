"""How much of what training reads stands in its window without the name of its person.

A network can bind an attribute to its person only where it reads the name before it. Windows that cut a biography leave
the rest of it nameless; there, an attribute can only be predicted from the attributes before it.
"""

import re

import numpy as np

from ktrain.bios.tokenizer import encode_inside
from ktrain.data.corpus import Corpus
from ktrain.data.packing import PackedStream


def nameless_share(corpus: Corpus, biographies: PackedStream, epoch: int = 0) -> float:
    """The share of an epoch's attribute tokens before which the full name stands nowhere in the same window."""
    parts = biographies.parts(epoch)
    entry = biographies.chosen[parts.text]
    spans = corpus.entries.spans[entry].astype(np.int64)
    # Tokens of each attribute that the piece holds, (pieces, attributes).
    begin = np.maximum(spans[:, :, 0], parts.begin[:, None])
    tokens = np.maximum(np.minimum(spans[:, :, 1], parts.end[:, None]) - begin, 0)
    nameless = last_names(corpus)[entry] < parts.begin[:, None]
    return float((tokens * nameless).sum() / tokens.sum())


def last_names(corpus: Corpus) -> np.ndarray:
    """Where the last full name before each attribute begins, in tokens from the start of its entry; -1 if nowhere.

    (entries, attributes).
    """
    ids, offsets = corpus.entries.ids, corpus.entries.offsets
    position = _name_positions(corpus)
    span = offsets[:-1, None] + corpus.entries.spans[:, :, 0]
    last = np.searchsorted(position, span) - 1
    at = np.where(last >= 0, np.append(position, len(ids))[last], -1)
    return np.asarray(np.where(at >= offsets[:-1, None], at - offsets[:-1, None], -1))


def _name_positions(corpus: Corpus) -> np.ndarray:
    """The tokens of `corpus.entries.ids` at which the full name of the entry's person begins, ascending."""
    # A tokenizer may join punctuation that ends a name with the punctuation that follows it.
    texts = [" " + re.sub(r"\W+$", "", corpus.people.name(person)) for person in range(len(corpus.people))]
    names = [np.array(ids, dtype=corpus.entries.ids.dtype) for ids in encode_inside(corpus.tokenizer, texts)]
    name_length = np.array([len(name) for name in names])
    name_begin = np.cumsum(name_length) - name_length
    name_ids, ids = np.concatenate(names), corpus.entries.ids
    entry_length = np.diff(corpus.entries.offsets)

    # First the tokens that begin a name, then of these the ones that the name's second token follows, and so on.
    position = np.flatnonzero(ids == np.repeat(name_ids[name_begin[corpus.person]], entry_length))
    entry = np.searchsorted(corpus.entries.offsets, position, side="right") - 1
    person = corpus.person[entry]
    for k in range(1, int(name_length.max())):
        ended = k >= name_length[person]
        expected = name_ids[np.minimum(name_begin[person] + k, len(name_ids) - 1)]
        same = ended | (ids[np.minimum(position + k, len(ids) - 1)] == expected)
        position, person = position[same], person[same]
    return position
