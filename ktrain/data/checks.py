"""Guards: named checks that run in seconds, before training, and find faults that would look like a result.

Each guard checks for one kind of fault and returns a line that describes it, or None. `inspect` runs all guards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ktrain.bios.people import majority_shares
from ktrain.bios.templates import name_fault, template_fault
from ktrain.bios.tokenizer import decode_inside, encode_inside
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows
from ktrain.data.questions import QuestionRows
from ktrain.errors import GuardFailure


@dataclass(frozen=True)
class FinetuningInputs:
    """The data of a finetuning, before it begins."""

    corpus: Corpus
    rows: QuestionRows


@dataclass(frozen=True)
class CellInputs(FinetuningInputs):
    """The data of a cell, before anything is trained."""

    windows: Windows


Guard = Callable[[CellInputs], str | None]
SAMPLE = 2_000
"""Number of entries, questions or windows that a guard samples where reading all would take too long."""


def people_disjoint(inputs: FinetuningInputs) -> str | None:
    """Nobody's questions are both trained on and tested, or chosen by, and no two people share a name."""
    corpus = inputs.corpus
    tested = np.flatnonzero(corpus.people_split(inputs.rows.people)[1] | corpus.validation)
    if both := np.intersect1d(inputs.rows.persons, tested).tolist():
        return f"{len(both)} people of the test half are trained on, the first is {corpus.people.name(both[0])}"
    names = np.stack([corpus.people.column(c) for c in ("first", "middle", "last")], axis=1)
    if duplicates := len(names) - len(np.unique(names, axis=0)):
        return f"{duplicates} people have the name of another one"
    return None


def held_out_questions_unread(inputs: CellInputs) -> str | None:
    """No pretraining window holds a question of a person of the test half."""
    if "question" not in inputs.windows.streams:
        return None
    persons = inputs.corpus.person_asked(inputs.windows.streams["question"].chosen)
    leaked = np.unique(persons[~inputs.corpus.train[persons]])
    return f"questions of {len(leaked)} people of the test half are in the windows" if len(leaked) else None


def windows_mixed(inputs: CellInputs) -> str | None:
    """Windows hold two entries of one person no more often than a global shuffle implies.

    A public reproduction that kept each person's entries together trained to the same loss and answered nothing.
    """
    corpus, stream = inputs.corpus, inputs.windows.streams["biography"]
    same_person, pairs = stream.count_shared_windows(corpus.person)
    counts, total = corpus.entry_counts.astype(float), len(corpus.entries)
    implied = pairs * (counts * (counts - 1)).sum() / (total * (total - 1))
    # The margin is six standard deviations of a Poisson count, and 1 for counts near zero.
    if same_person > implied + 6 * implied**0.5 + 1:
        return f"{same_person} pairs of one person's entries share a window, a shuffle implies {implied:.0f}"
    return None


def epochs_differ(inputs: CellInputs) -> str | None:
    """The first two epochs pack the entries in different orders."""
    first, second = (inputs.windows.streams["biography"].order(epoch) for epoch in (0, 1))
    return "epochs 0 and 1 have the same order" if np.array_equal(first, second) else None


def texts_whole(inputs: CellInputs) -> str | None:
    """With `train.windows=whole`, a window of the first epoch holds every biography and every question whole.

    Otherwise some texts would be read without their name only, which is what such windows are there to prevent.
    """
    for kind, stream in inputs.windows.streams.items():
        parts = stream.parts(0)
        whole = (parts.begin == 0) & (parts.end == stream.length[parts.text])
        if stream.whole and (missing := len(stream.chosen) - len(np.unique(parts.text[whole]))):
            return f"{missing} texts of kind {kind} stand whole in no window of epoch 0"
    return None


def template_slots(inputs: CellInputs) -> str | None:
    """Every template is well-formed."""
    return _first_fault(inputs.corpus, template_fault)


def name_first(inputs: CellInputs) -> str | None:
    """Every template names its person before the value, with a verb that agrees with each pronoun.

    Where the value came first, nothing before it could tell whose it is: that capped what a probe or a recall reads.
    """
    return _first_fault(inputs.corpus, name_fault)


def _first_fault(corpus: Corpus, fault_of: Callable[[str], str | None]) -> str | None:
    for attribute, sentences in corpus.templates.items():
        for sentence in sentences:
            if fault := fault_of(sentence):
                return f"{attribute}: {fault}: {sentence!r}"
    return None


def spans_decode(inputs: CellInputs) -> str | None:
    """The span of each attribute decodes to its value, from the leading space to the token that completes it."""
    corpus = inputs.corpus
    for entry in evenly_spaced(len(corpus.entries)):
        for attribute, (begin, end) in zip(corpus.attributes, corpus.entries.spans[entry], strict=True):
            ids = corpus.entries[entry]
            ends = (end, end - 1, end + 12)
            text, shorter, longer = (decode_inside(corpus.tokenizer, ids[begin:e].tolist()) for e in ends)
            length = corpus.match_attribute(int(entry), attribute, longer)
            # The last token must hold at least one character of the value (or part of one); punctuation may follow.
            if not len(shorter.rstrip("\ufffd")) < length <= len(text):
                value = f" {corpus.people.value(corpus.person[entry], attribute)}"
                return f"entry {entry}: {attribute} is {value!r}, its span is {text!r}"
    return None


def first_tokens(inputs: FinetuningInputs) -> str | None:
    """Each answer begins with the first token of its value with a leading space, as the value does in an entry."""
    corpus = inputs.corpus
    for question in evenly_spaced(len(corpus.questions)):
        person, attribute, _ = corpus.locate_question(question)
        value = corpus.people.value(person, attribute)
        ((expected, *_),) = encode_inside(corpus.tokenizer, [f" {value}"])
        first = int(corpus.questions[question][corpus.questions.spans[question, 0, 0]])
        if first != expected:
            wrong, right = (decode_inside(corpus.tokenizer, [token]) for token in (first, expected))
            return f"the answer {value!r} begins with {wrong!r}, not with {right!r}"
    return None


def loss_mask(inputs: FinetuningInputs) -> str | None:
    """The targets of a finetuning row are exactly the tokens of its answer and the EOS after it.

    For a bidirectional network the answer without its EOS is the target and is masked, and nothing else is masked.
    """
    corpus, rows = inputs.corpus, inputs.rows
    questions = corpus.trained_questions(corpus.people_split(rows.people)[0])
    length = np.diff(corpus.questions.offsets)[questions]
    for row in evenly_spaced(len(questions)):
        prompt, answer = corpus.question_text(*corpus.locate_question(questions[row]))
        end = int(length[row]) - rows.fill
        expected = len(encode_inside(corpus.tokenizer, [answer])[0]) + (not rows.fill)
        if rows.all_tokens:
            expected += len(corpus.tokenizer.encode(prompt).ids) - 1
        targets = np.flatnonzero(rows.mask[row])
        # Compare positions, because a mask shifted by one has the right count.
        if not np.array_equal(targets, np.arange(end - expected, end)):
            count, first = len(targets), targets.min(initial=end)
            return f"{prompt!r}: {count} targets from token {first} on, expected are the last {expected} of {end}"
        masked = np.flatnonzero(rows.ids[row, : length[row]] != rows.truth[row, : length[row]])
        if not np.array_equal(masked, targets if rows.fill else []):
            return f"{prompt!r}: the tokens {masked.tolist()} are masked, {targets.tolist()} are targets"
    return None


def class_counts(inputs: FinetuningInputs) -> str | None:
    """No constant answer scores well: majority baselines, except that of the company city, are at most 50 %."""
    tested = inputs.corpus.people_split(inputs.rows.people)[1]
    shares = majority_shares(inputs.corpus.people, tested)
    for attribute, share in shares.items():
        if attribute != "company_city" and share > 0.5:
            return f"{share:.0%} of the test half share one {attribute}: a constant answer would score that"
    return None


GUARDS: dict[str, Guard] = {
    guard.__name__: guard
    for guard in (
        people_disjoint,
        held_out_questions_unread,
        windows_mixed,
        epochs_differ,
        texts_whole,
        template_slots,
        name_first,
        spans_decode,
        first_tokens,
        loss_mask,
        class_counts,
    )
}


QUESTION_GUARDS: dict[str, Callable[[FinetuningInputs], str | None]] = {
    guard.__name__: guard for guard in (people_disjoint, first_tokens, loss_mask, class_counts)
}
"""Guards that run again before each finetuning, because readouts may train on different people."""


def enforce_questions(inputs: FinetuningInputs) -> None:
    """Runs the guards of a finetuning; raises `GuardFailure` with the first finding."""
    for name, guard in QUESTION_GUARDS.items():
        if finding := guard(inputs):
            raise GuardFailure(name, finding)


def inspect(inputs: CellInputs) -> dict[str, str]:
    """Runs all guards; returns their findings by guard, empty if there are none."""
    findings = {name: guard(inputs) for name, guard in GUARDS.items()}
    return {name: finding for name, finding in findings.items() if finding}


def enforce(inputs: CellInputs) -> None:
    """Runs all guards; raises `GuardFailure` with the first finding."""
    for name, finding in inspect(inputs).items():
        raise GuardFailure(name, finding)


def evenly_spaced(size: int) -> np.ndarray:
    """At most `SAMPLE` ascending indices, spread evenly over `size`."""
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).astype(int))
