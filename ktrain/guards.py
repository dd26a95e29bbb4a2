"""Guards: named checks, in seconds and before compute, of faults that look like a result.

Each function finds one kind of fault and returns what it found as a line, or None. `inspect` runs them all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ktrain.config import ATTRIBUTES
from ktrain.corpus import Corpus
from ktrain.errors import GuardFailure
from ktrain.people import majority
from ktrain.probes import Classes, Rows, Stream, Task
from ktrain.questions import QuestionRows
from ktrain.templates import fault_of
from ktrain.windows import Windows


@dataclass(frozen=True)
class InspectedQuestions:
    """What a finetuning is made of, before it begins."""

    corpus: Corpus
    rows: QuestionRows


@dataclass(frozen=True)
class Inspected(InspectedQuestions):
    """What a cell is made of, before anything is trained."""

    windows: Windows


Guard = Callable[[Inspected], str | None]
SAMPLE = 2_000
"""Entries, questions or windows that a guard reads where all of them would take too long."""


def people_disjoint(seen: InspectedQuestions) -> str | None:
    """People whose questions are trained on are not among those tested, and no two people share a name."""
    corpus = seen.corpus
    tested = np.flatnonzero(corpus.halves(seen.rows.people)[1])
    if both := np.intersect1d(seen.rows.persons, tested).tolist():
        return f"{len(both)} people of the test half are trained on, the first is {corpus.people.name(both[0])}"
    names = np.stack([corpus.people.column(c) for c in ("first", "middle", "last")], axis=1)
    if twice := len(names) - len(np.unique(names, axis=0)):
        return f"{twice} people have the name of another one"
    return None


def held_out_questions_unread(seen: Inspected) -> str | None:
    """No question of a person of the test half is in the windows of pretraining."""
    if "question" not in seen.windows.streams:
        return None
    persons = seen.windows.streams["question"].chosen // len(ATTRIBUTES)
    read = np.unique(persons[~seen.corpus.train[persons]])
    return f"questions of {len(read)} people of the test half are in the windows" if len(read) else None


def windows_mixed(seen: Inspected) -> str | None:
    """Windows hold two entries of one person no more often than a global shuffle implies.

    A public reproduction that kept each person's entries together trained to the same loss and answered nothing.
    """
    corpus, stream = seen.corpus, seen.windows.streams["biography"]
    together, pairs = stream.neighbours(corpus.person)
    each, every = corpus.entries_of.astype(float), len(corpus.entries)
    implied = pairs * (each * (each - 1)).sum() / (every * (every - 1))
    # Six standard deviations of a Poisson count, and one for counts near zero.
    if together > implied + 6 * implied**0.5 + 1:
        return f"{together} pairs of one person's entries share a window, a shuffle implies {implied:.0f}"
    return None


def epochs_differ(seen: Inspected) -> str | None:
    """The second epoch packs the entries in another order than the first."""
    first, second = (seen.windows.streams["biography"].order(epoch) for epoch in (0, 1))
    return "epochs 0 and 1 have the same order" if np.array_equal(first, second) else None


def template_slots(seen: Inspected) -> str | None:
    """Every template has its slots."""
    for attribute, sentences in seen.corpus.templates.items():
        for sentence in sentences:
            if fault := fault_of(sentence):
                return f"{attribute}: {fault}: {sentence!r}"
    return None


def spans_decode(seen: Inspected) -> str | None:
    """The span of an attribute decodes to its text, from its leading space to the token that completes it."""
    corpus = seen.corpus
    for entry in _sample(len(corpus.entries)):
        for attribute, (begin, end) in zip(ATTRIBUTES, corpus.entries.spans[entry], strict=True):
            ends = (end, end - 1, end + 12)
            text, shorter, rest = (corpus.tokenizer.decode(corpus.entries[entry][begin:e].tolist()) for e in ends)
            length = corpus.stands(int(entry), attribute, rest)
            # A last token may hold punctuation beyond the value, but not only that; or a part of a letter.
            if not len(shorter.rstrip("\ufffd")) < length <= len(text):
                value = f" {corpus.people.value(corpus.person[entry], attribute)}"
                return f"entry {entry}: {attribute} is {value!r}, its span holds {text!r}"
    return None


def first_tokens(seen: InspectedQuestions) -> str | None:
    """Answers begin with the token of their value with its leading space, the one that biographies hold."""
    corpus = seen.corpus
    for question in _sample(len(corpus.questions)):
        person, attribute = divmod(int(question), len(ATTRIBUTES))
        value = corpus.people.value(person, ATTRIBUTES[attribute])
        expected = corpus.tokenizer.encode(f" {value}").ids[0]
        found = corpus.questions[question][corpus.questions.spans[question, 0, 0]]
        if found != expected:
            told = corpus.tokenizer.decode([int(found)])
            return f"the answer {value!r} begins with {told!r}, not with {corpus.tokenizer.decode([expected])!r}"
    return None


def loss_mask(seen: InspectedQuestions) -> str | None:
    """The targets of a finetuning row are exactly the tokens of its answer and the EOS after it.

    An answer that is to be filled in is hidden, ends before its EOS, and nothing else is hidden.
    """
    corpus, rows = seen.corpus, seen.rows
    asked = np.flatnonzero(np.repeat(corpus.halves(rows.people)[0], len(ATTRIBUTES)))
    length = np.diff(corpus.questions.offsets)[asked]
    for row in _sample(len(asked)):
        person, attribute = divmod(int(asked[row]), len(ATTRIBUTES))
        prompt, answer = corpus.question_text(person, ATTRIBUTES[attribute])
        end = int(length[row]) - rows.fill
        expected = len(corpus.tokenizer.encode(answer).ids) + (not rows.fill)
        if rows.all_tokens:
            expected += len(corpus.tokenizer.encode(prompt).ids) - 1
        targets = np.flatnonzero(rows.mask[row])
        # A mask shifted by one has the right count.
        if not np.array_equal(targets, np.arange(end - expected, end)):
            found, first = len(targets), targets.min(initial=end)
            return f"{prompt!r}: {found} targets from token {first} on, wanted are the last {expected} of {end}"
        hidden = np.flatnonzero(rows.ids[row, : length[row]] != rows.truth[row, : length[row]])
        if not np.array_equal(hidden, targets if rows.fill else []):
            return f"{prompt!r}: the tokens {hidden.tolist()} are hidden, {targets.tolist()} are asked"
    return None


def class_counts(seen: InspectedQuestions) -> str | None:
    """No constant answer scores well: the majority baseline of each attribute, company city apart, is at most 50 %."""
    tested = seen.corpus.halves(seen.rows.people)[1]
    shares = majority(seen.corpus.people, tested)
    high = {a: s for a, s in shares.items() if a != "company_city" and s > 0.5}
    for attribute, share in high.items():
        return f"{share:.0%} of the test half share one {attribute}: a constant answer would score that"
    return None


GUARDS: dict[str, Guard] = {
    guard.__name__: guard
    for guard in (
        people_disjoint,
        held_out_questions_unread,
        windows_mixed,
        epochs_differ,
        template_slots,
        spans_decode,
        first_tokens,
        loss_mask,
        class_counts,
    )
}


QUESTION_GUARDS: dict[str, Callable[[InspectedQuestions], str | None]] = {
    guard.__name__: guard for guard in (people_disjoint, first_tokens, loss_mask, class_counts)
}
"""Those that concern a finetuning and not what was read before it: who is trained on may differ between readouts."""


@dataclass(frozen=True)
class InspectedProbes:
    """What probes are made of, before any is trained; `tested` (people,) bool are those who are asked."""

    corpus: Corpus
    tested: np.ndarray
    rows: Rows
    streams: Mapping[Task, Stream]
    classes: Mapping[Task, Classes]


ProbeGuard = Callable[[InspectedProbes], str | None]


def probe_people_disjoint(seen: InspectedProbes) -> str | None:
    """Probes learn from nobody whom they are asked about."""
    for task, stream in seen.streams.items():
        persons = np.unique(seen.rows.person[stream.chosen])
        if both := persons[seen.tested[persons]].tolist():
            name = seen.corpus.people.name(both[0])
            return f"{task}: {len(both)} people of the test half are trained on, the first is {name}"
    return None


def probe_places(seen: InspectedProbes) -> str | None:
    """What is read ends right before an attribute, or at the end of a name; looked up in the text, not in spans."""
    corpus, rows = seen.corpus, seen.rows
    for row in _sample(len(rows)):
        person, entry = int(rows.person[row]), int(rows.entry[row])
        if entry < 0:
            name = corpus.tokenizer.decode(rows.ids[row, 1 : rows.places[row, 0]].tolist(), skip_special_tokens=False)
            if name != f" {corpus.people.name(person)}" or rows.ids[row, rows.places[row, 0]] != corpus.eos:
                return f"person {person} is {corpus.people.name(person)!r}, the row holds {name!r}"
            continue
        for attribute, sentence in zip(ATTRIBUTES, rows.sentence[row], strict=True):
            # The EOS before the entry takes one place.
            rest = corpus.tokenizer.decode(corpus.entries[entry][int(rows.places[row, sentence]) :].tolist())
            if not corpus.stands(int(entry), attribute, rest):
                value = f" {corpus.people.value(person, attribute)}"
                return f"entry {entry}: {attribute} is {value!r}, after its place stands {rest[:40]!r}"
    return None


def probe_targets(seen: InspectedProbes) -> str | None:
    """A probe is trained and counted at every place up to its attribute, and at none after it."""
    rows, begins = seen.rows, seen.corpus.entries.spans[:, :, 0]
    for task, stream in seen.streams.items():
        column = ATTRIBUTES.index(task.attribute)
        some = _sample(len(rows))
        # What stands at a place has been read, and the EOS before the entry takes one place.
        before = rows.places[some] - 1 < begins[rows.entry[some], column].astype(int)[:, None]
        allowed = (before | (rows.entry[some] < 0)[:, None]) & rows.told[some, column, None]
        if not np.array_equal(rows.valid(task)[some], allowed):
            return f"{task} is counted at places after its attribute, or not at all places before it"
        _, places, _, weights = stream.batch(0)
        if weights.shape != places.shape or not np.isclose(weights.sum(), 1.0, atol=1e-5):
            return f"{task}: the weights of a step sum to {weights.sum():.4f}"
    return None


def probe_classes(seen: InspectedProbes) -> str | None:
    """The class of a person is the text, or its first token, of their attribute."""
    corpus = seen.corpus
    for task, about in seen.classes.items():
        for person in _sample(len(corpus.people)):
            value = f" {corpus.people.value(int(person), task.attribute)}"
            wanted = value[1:]
            if task.measure == "first":
                wanted = corpus.tokenizer.decode(corpus.tokenizer.encode(value).ids[:1])
            if about.names[about.labels[person]] != wanted:
                return f"{task}: person {person} has {wanted!r}, its class is {about.names[about.labels[person]]!r}"
    return None


PROBE_GUARDS: dict[str, ProbeGuard] = {
    guard.__name__: guard for guard in (probe_people_disjoint, probe_places, probe_targets, probe_classes)
}


def enforce_probes(seen: InspectedProbes) -> None:
    """Raises `GuardFailure` with the first finding of the probes' guards."""
    for name, guard in PROBE_GUARDS.items():
        if finding := guard(seen):
            raise GuardFailure(name, finding)


def enforce_questions(seen: InspectedQuestions) -> None:
    """Raises `GuardFailure` with the first finding of the guards that concern a finetuning."""
    for name, guard in QUESTION_GUARDS.items():
        if finding := guard(seen):
            raise GuardFailure(name, finding)


def inspect(seen: Inspected) -> dict[str, str]:
    """The findings of all guards that speak, by name; empty where all is well."""
    found = {name: guard(seen) for name, guard in GUARDS.items()}
    return {name: finding for name, finding in found.items() if finding}


def enforce(seen: Inspected) -> None:
    """Raises `GuardFailure` with the first finding."""
    for name, finding in inspect(seen).items():
        raise GuardFailure(name, finding)


def _sample(size: int) -> np.ndarray:
    """Indices spread evenly over `size`, at most `SAMPLE`."""
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).astype(int))
