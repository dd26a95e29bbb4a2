"""Probes: what is asked of the states of a frozen network, and where (paper, sections 4.1 and 4.2).

A P-probe reads a biography at six special positions, the token before each attribute's span, and predicts every
attribute that comes at or after the position. A Q-probe reads a full name between a start and an end token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from ktrain.config import ATTRIBUTES, Readout
from ktrain.corpus import Corpus
from ktrain.pools import Pools
from ktrain.randomness import generator
from ktrain.templates import values

Measure = Literal["first", "whole"]
MULTIPLE = 8
"""Rows are as long as the longest one, rounded up."""


@dataclass(frozen=True)
class Task:
    """One probe: `first` predicts the first token of an attribute (of a birth date, the month), `whole` all of it."""

    measure: Measure
    attribute: str

    def __str__(self) -> str:
        return f"{self.measure}/{self.attribute}"


TASKS = tuple(
    Task(measure, attribute)
    for measure in ("first", "whole")
    for attribute in ATTRIBUTES
    # A whole date has more classes than there are people to learn them from.
    if (measure, attribute) != ("whole", "birth_date")
)
"""The paper's eleven tasks."""


@dataclass(frozen=True)
class Classes:
    """The classes of a task, from the data: `labels` (people,) int64 and the text of each class."""

    task: Task
    labels: np.ndarray
    names: tuple[str, ...]

    def counts(self, people: np.ndarray) -> np.ndarray:
        """How many of `people` (bool, (people,)) each class has, (classes,)."""
        return np.bincount(self.labels[people], minlength=len(self.names))


def classes(corpus: Corpus, task: Task) -> Classes:
    """The values, or first tokens with their leading space, that the people of a corpus have."""
    column = ATTRIBUTES.index(task.attribute)
    if task.measure == "first":
        found, labels = np.unique(_answers(corpus)[:, column], return_inverse=True)
        return Classes(task, labels, tuple(corpus.tokenizer.decode([int(i)]) for i in found))
    _, first, labels = np.unique(corpus.people.classes(task.attribute), return_index=True, return_inverse=True)
    return Classes(task, labels, tuple(corpus.people.value(int(p), task.attribute) for p in first))


def refused(drawn: Pools, tokenizer: Callable[[], Tokenizer], people: int, people_per_class: int) -> dict[Task, str]:
    """The tasks whose classes have too few of the `people` that are trained on, each with the numbers.

    `tokenizer` is asked for only where the number of first tokens decides.
    """
    found = {}
    for task in TASKS:
        texts = {text for _, texts in values(task.attribute, drawn)[:1] for text in texts}
        count = len(texts)
        if task.measure == "first" and people < people_per_class * count:
            count = len({encoding.ids[0] for encoding in tokenizer().encode_batch([f" {text}" for text in texts])})
        if people < people_per_class * count:
            found[task] = (
                f"{task}: {people:,} people for {count:,} classes are {people / count:.1f} each, "
                f"readout.people_per_class={people_per_class}"
            )
    return found


@dataclass(frozen=True)
class Rows:
    """What probes read: `ids` (rows, T) int64, padded; `places` (rows, P) int64; `person` and `entry` (rows,).

    `sentence` (rows, 6) is the position at which each attribute stands, P for a Q-probe: a target may be read at
    position i if and only if i <= sentence. `entry` is -1 where the row is a name. `told` (rows, 6) says of which
    attributes a row may be asked: those that begin in the text with the token that answers begin with. In bioR an entry
    may say `MIT`, and the state before it is not asked for `Massachusetts`.
    """

    ids: np.ndarray
    places: np.ndarray
    sentence: np.ndarray
    person: np.ndarray
    entry: np.ndarray
    told: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def kept(self, people: np.ndarray) -> "Rows":
        """The rows of some people (bool, (people,))."""
        chosen = people[self.person]
        columns = (self.ids, self.places, self.sentence, self.person, self.entry, self.told)
        return Rows(*(column[chosen] for column in columns))

    def valid(self, task: Task) -> np.ndarray:
        """At which places a task is asked, (rows, P) bool: never after its attribute."""
        column = ATTRIBUTES.index(task.attribute)
        before = np.arange(self.places.shape[1]) <= self.sentence[:, column, None]
        return np.asarray(before & self.told[:, column, None])


def rows(corpus: Corpus, readout: Readout, pad: int | None = None) -> Rows:
    """The rows of a readout: biographies for `p_probe`, names for `q_probe`, which are padded with `pad`.

    It is EOS where nothing else is said; a bidirectional network would read that.
    """
    if readout.kind == "p_probe":
        return _biographies(corpus, readout.entries)
    return _names(corpus, corpus.eos if pad is None else pad)


def _biographies(corpus: Corpus, per_person: int) -> Rows:
    """EOS and an entry up to its last special position; the first `per_person` entries of everyone, 0 for all."""
    first = np.cumsum(corpus.entries_of) - corpus.entries_of
    nth = np.arange(len(corpus.entries)) - first[corpus.person]
    entries = np.flatnonzero(nth < per_person) if per_person else np.arange(len(corpus.entries))
    begin = corpus.entries.spans[entries, :, 0].astype(np.int64)
    # The EOS before the entry moves everything by one, so the token before a span stands where the span began.
    places = np.sort(begin, axis=1)
    length = places[:, -1] + 1
    ids = _padded(corpus, corpus.entries.offsets[entries] - 1, length)
    ids[:, 0] = corpus.eos
    sentence = np.argsort(corpus.order[entries], axis=1)
    told = corpus.entries.ids[corpus.entries.offsets[entries, None] + begin] == _answers(corpus)[corpus.person[entries]]
    return Rows(ids, places, sentence, corpus.person[entries], entries, told)


def _answers(corpus: Corpus) -> np.ndarray:
    """The first token of each answer, (people, 6)."""
    first = corpus.questions.offsets[:-1] + corpus.questions.spans[:, 0, 0]
    return np.asarray(corpus.questions.ids[first].reshape(-1, len(ATTRIBUTES)))


def _names(corpus: Corpus, pad: int) -> Rows:
    """EOS, the full name as it stands in a text, EOS; read at the second EOS."""
    encoded = corpus.tokenizer.encode_batch([f" {corpus.people.name(p)}" for p in range(len(corpus.people))])
    longest = max(len(e.ids) for e in encoded) + 2
    ids = np.full((len(encoded), -(-longest // 2) * 2), pad, dtype=np.int64)
    for row, name in zip(ids, encoded, strict=True):
        row[: len(name.ids) + 2] = [corpus.eos, *name.ids, corpus.eos]
    places = np.array([[len(e.ids) + 1] for e in encoded], dtype=np.int64)
    people = np.arange(len(encoded))
    every = np.ones((len(people), len(ATTRIBUTES)), np.int64)
    return Rows(ids, places, every, people, np.full(len(people), -1), every.astype(bool))


def _padded(corpus: Corpus, begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    width = -(-int(length.max()) // MULTIPLE) * MULTIPLE
    column = np.arange(width)
    inside = column < length[:, None]
    source = np.where(inside, np.maximum(begin[:, None] + column, 0), 0)
    return np.where(inside, corpus.entries.ids[source].astype(np.int64), corpus.eos)


def common_tokens(rows: Rows, people: np.ndarray, share: float, vocabulary: int) -> np.ndarray:
    """Which tokens stand in rows of at least `share` of the `people` (bool, (people,)): (vocabulary,) bool."""
    mine = people[rows.person]
    person = np.repeat(rows.person[mine], rows.ids.shape[1])
    pairs = np.unique(person * vocabulary + rows.ids[mine].ravel())
    return np.asarray(np.bincount(pairs % vocabulary, minlength=vocabulary) >= share * people.sum())


class Stream:
    """The training rows of one task in an order of its own, shuffled every epoch."""

    def __init__(self, rows: Rows, found: Classes, train: np.ndarray, batch: int, seed: int, name: str) -> None:
        """`train` (people,) bool says who may be learned from."""
        self._rows, self._valid = rows, rows.valid(found.task)
        self._labels, self._batch, self._seed, self._name = found.labels, batch, seed, name
        self.chosen = np.flatnonzero(train[rows.person])
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """ids (B, T), places, targets and weights (B, P); the weights sum to one over the valid places."""
        place = step * self._batch + np.arange(self._batch)
        chosen = np.array([self._order(p // len(self.chosen))[p % len(self.chosen)] for p in place.tolist()])
        valid = self._valid[chosen]
        targets = np.repeat(self._labels[self._rows.person[chosen]][:, None], valid.shape[1], axis=1)
        weights = (valid / max(1, valid.sum())).astype(np.float32)
        return self._rows.ids[chosen], self._rows.places[chosen], targets, weights

    def _shuffle(self, epoch: int) -> np.ndarray:
        order = generator(self._seed, "probe", self._name, epoch).permutation(len(self.chosen))
        return np.asarray(self.chosen[order])
