"""Probes: what is asked of the states of a frozen network, and where (paper, sections 4.1 and 4.2).

A P-probe reads a biography at special positions, the token before each attribute's span, and predicts every
attribute that comes at or after the position. A Q-probe reads a full name between a start and an end token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from ktrain.bios.pools import Pools
from ktrain.bios.templates import attribute_columns
from ktrain.bios.tokenizer import decode_inside, encode_inside
from ktrain.config import ATTRIBUTES
from ktrain.data.corpus import Corpus
from ktrain.rng import generator

Measure = Literal["first", "whole"]
MULTIPLE = 8
"""Rows are as long as the longest one, rounded up."""


@dataclass(frozen=True)
class ProbeTask:
    """One probe: `first` predicts the first token of an attribute (of a birth date, the month), `whole` all of it."""

    measure: Measure
    attribute: str

    def __str__(self) -> str:
        return f"{self.measure}/{self.attribute}"


def tasks(attributes: Sequence[str]) -> tuple[ProbeTask, ...]:
    """The tasks of these attributes; a whole date has more classes than there are people to learn them from."""
    measures: tuple[Measure, ...] = ("first", "whole")
    every = [ProbeTask(measure, attribute) for measure in measures for attribute in attributes]
    return tuple(task for task in every if (task.measure, task.attribute) != ("whole", "birth_date"))


TASKS = tasks(ATTRIBUTES)
"""The paper's eleven tasks."""


@dataclass(frozen=True)
class Classes:
    """The classes of a task, from the data: `labels` (people,) int64 and the text of each class."""

    task: ProbeTask
    labels: np.ndarray
    names: tuple[str, ...]

    def counts(self, people: np.ndarray) -> np.ndarray:
        """How many of `people` (bool, (people,)) each class has, (classes,)."""
        return np.bincount(self.labels[people], minlength=len(self.names))


def classes(corpus: Corpus, task: ProbeTask) -> Classes:
    """The values, or first tokens with their leading space, that the people of a corpus have."""
    column = corpus.attributes.index(task.attribute)
    if task.measure == "first":
        tokens, labels = np.unique(_answers(corpus)[:, column], return_inverse=True)
        return Classes(task, labels, tuple(decode_inside(corpus.tokenizer, [int(i)]) for i in tokens))
    _, first, labels = np.unique(corpus.people.class_ids(task.attribute), return_index=True, return_inverse=True)
    return Classes(task, labels, tuple(corpus.people.value(int(p), task.attribute) for p in first))


def refusal(
    drawn: Pools, tokenizer: Callable[[], Tokenizer], people: int, people_per_class: int
) -> dict[ProbeTask, str]:
    """The tasks whose classes have too few of the `people` that are trained on, each with the numbers.

    `tokenizer` is asked for only where the number of first tokens decides.
    """
    refused = {}
    for task in tasks(drawn.attributes):
        texts = {text for _, texts in attribute_columns(task.attribute, drawn)[:1] for text in texts}
        count = len(texts)
        if task.measure == "first" and people < people_per_class * count:
            count = len({ids[0] for ids in encode_inside(tokenizer(), [f" {text}" for text in texts])})
        if people < people_per_class * count:
            refused[task] = (
                f"{task}: {people:,} people for {count:,} classes are {people / count:.1f} each, "
                f"readout.people_per_class={people_per_class}"
            )
    return refused


@dataclass(frozen=True)
class Rows:
    """What probes read: `ids` (rows, T) int64, padded; `places` (rows, P) int64; `person` and `entry` (rows,).

    `sentence` (rows, A) is the position at which each of the `attributes` stands, P for a Q-probe: a target may be read
    at position i if and only if i <= sentence. `entry` is -1 where the row is a name. `stated` (rows, A) says of which
    attributes a row may be asked: those that begin in the text with the token that answers begin with. In bioR an entry
    may say `MIT`, and the state before it is not asked for `Massachusetts`.
    """

    ids: np.ndarray
    places: np.ndarray
    sentence: np.ndarray
    person: np.ndarray
    entry: np.ndarray
    stated: np.ndarray
    attributes: tuple[str, ...] = ATTRIBUTES

    def __len__(self) -> int:
        return len(self.ids)

    def kept(self, people: np.ndarray) -> "Rows":
        """The rows of some people (bool, (people,))."""
        chosen = people[self.person]
        columns = ("ids", "places", "sentence", "person", "entry", "stated")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns})

    def valid(self, task: ProbeTask) -> np.ndarray:
        """At which places a task is asked, (rows, P) bool: never after its attribute."""
        column = self.attributes.index(task.attribute)
        before = np.arange(self.places.shape[1]) <= self.sentence[:, column, None]
        return np.asarray(before & self.stated[:, column, None])


def biography_rows(corpus: Corpus, per_person: int) -> Rows:
    """EOS and an entry up to its last special position; the first `per_person` entries of everyone, 0 for all."""
    first = np.cumsum(corpus.entry_counts) - corpus.entry_counts
    nth = np.arange(len(corpus.entries)) - first[corpus.person]
    entries = np.flatnonzero(nth < per_person) if per_person else np.arange(len(corpus.entries))
    begin = corpus.entries.spans[entries, :, 0].astype(np.int64)
    # The EOS before the entry moves everything by one, so the token before a span stands where the span began.
    places = np.sort(begin, axis=1)
    length = places[:, -1] + 1
    ids = _padded(corpus, corpus.entries.offsets[entries] - 1, length)
    ids[:, 0] = corpus.eos
    sentence = np.argsort(corpus.order[entries], axis=1)
    begins_with = corpus.entries.ids[corpus.entries.offsets[entries, None] + begin]
    stated = begins_with == _answers(corpus)[corpus.person[entries]]
    return Rows(ids, places, sentence, corpus.person[entries], entries, stated, corpus.attributes)


def _answers(corpus: Corpus) -> np.ndarray:
    """The first token of each answer, (people, attributes)."""
    # Those of the first wording; the answer is the same in each.
    count = len(corpus.people) * len(corpus.attributes)
    first = corpus.questions.offsets[:count] + corpus.questions.spans[:count, 0, 0]
    return np.asarray(corpus.questions.ids[first].reshape(-1, len(corpus.attributes)))


def name_rows(corpus: Corpus, pad: int) -> Rows:
    """EOS, the full name as it stands in a text, EOS; read at the second EOS."""
    encoded = encode_inside(corpus.tokenizer, [f" {corpus.people.name(p)}" for p in range(len(corpus.people))])
    longest = max(map(len, encoded)) + 2
    ids = np.full((len(encoded), -(-longest // 2) * 2), pad, dtype=np.int64)
    for row, name in zip(ids, encoded, strict=True):
        row[: len(name) + 2] = [corpus.eos, *name, corpus.eos]
    places = np.array([[len(ids) + 1] for ids in encoded], dtype=np.int64)
    people = np.arange(len(encoded))
    every = np.ones((len(people), len(corpus.attributes)), np.int64)
    return Rows(ids, places, every, people, np.full(len(people), -1), every.astype(bool), corpus.attributes)


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

    def __init__(self, rows: Rows, classes: Classes, train: np.ndarray, batch: int, seed: int, name: str) -> None:
        """`train` (people,) bool says who may be learned from."""
        self._rows, self._valid = rows, rows.valid(classes.task)
        self._labels, self._batch, self._seed, self._name = classes.labels, batch, seed, name
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
