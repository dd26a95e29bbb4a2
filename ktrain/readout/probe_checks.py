"""The guards of probes: named checks, before any probe is trained, of faults that look like a result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ktrain.bios.tokenizer import decode_inside, encode_inside
from ktrain.data.checks import evenly_spaced
from ktrain.data.corpus import Corpus
from ktrain.errors import GuardFailure
from ktrain.readout.probes import Classes, ProbeTask, Rows, Stream


@dataclass(frozen=True)
class ProbeInputs:
    """What probes are made of, before any is trained; `tested` (people,) bool are those who are asked."""

    corpus: Corpus
    tested: np.ndarray
    rows: Rows
    streams: Mapping[ProbeTask, Stream]
    classes: Mapping[ProbeTask, Classes]


ProbeGuard = Callable[[ProbeInputs], str | None]


def probe_people_disjoint(inputs: ProbeInputs) -> str | None:
    """Probes learn from nobody whom they are asked classes."""
    for task, stream in inputs.streams.items():
        persons = np.unique(inputs.rows.person[stream.chosen])
        if both := persons[inputs.tested[persons]].tolist():
            name = inputs.corpus.people.name(both[0])
            return f"{task}: {len(both)} people of the test half are trained on, the first is {name}"
    return None


def probe_places(inputs: ProbeInputs) -> str | None:
    """What is read ends right before an attribute, or at the end of a name; looked up in the text, not in spans."""
    corpus, rows = inputs.corpus, inputs.rows
    for row in evenly_spaced(len(rows)):
        person, entry = int(rows.person[row]), int(rows.entry[row])
        if entry < 0:
            name_ids = rows.ids[row, 1 : rows.places[row, 0]].tolist()
            name = decode_inside(corpus.tokenizer, name_ids, skip_special=False)
            if name != f" {corpus.people.name(person)}" or rows.ids[row, rows.places[row, 0]] != corpus.eos:
                return f"person {person} is {corpus.people.name(person)!r}, the row holds {name!r}"
            continue
        for attribute, sentence in zip(rows.attributes, rows.sentence[row], strict=True):
            # The EOS before the entry takes one place.
            rest = decode_inside(corpus.tokenizer, corpus.entries[entry][int(rows.places[row, sentence]) :].tolist())
            if not corpus.match_attribute(int(entry), attribute, rest):
                value = f" {corpus.people.value(person, attribute)}"
                return f"entry {entry}: {attribute} is {value!r}, after its place stands {rest[:40]!r}"
    return None


def probe_targets(inputs: ProbeInputs) -> str | None:
    """A probe is trained and counted at every place up to its attribute, and at none after it."""
    rows, begins = inputs.rows, inputs.corpus.entries.spans[:, :, 0]
    for task, stream in inputs.streams.items():
        column = rows.attributes.index(task.attribute)
        some = evenly_spaced(len(rows))
        # What stands at a place has been read, and the EOS before the entry takes one place.
        before = rows.places[some] - 1 < begins[rows.entry[some], column].astype(int)[:, None]
        allowed = (before | (rows.entry[some] < 0)[:, None]) & rows.stated[some, column, None]
        if not np.array_equal(rows.valid(task)[some], allowed):
            return f"{task} is counted at places after its attribute, or not at all places before it"
        _, places, _, weights = stream.batch(0)
        if weights.shape != places.shape or not np.isclose(weights.sum(), 1.0, atol=1e-5):
            return f"{task}: the weights of a step sum to {weights.sum():.4f}"
    return None


def probe_classes(inputs: ProbeInputs) -> str | None:
    """The class of a person is the text, or its first token, of their attribute."""
    corpus = inputs.corpus
    for task, classes in inputs.classes.items():
        for person in evenly_spaced(len(corpus.people)):
            value = f" {corpus.people.value(int(person), task.attribute)}"
            wanted = value[1:]
            if task.measure == "first":
                wanted = decode_inside(corpus.tokenizer, encode_inside(corpus.tokenizer, [value])[0][:1])
            if classes.names[classes.labels[person]] != wanted:
                return f"{task}: person {person} has {wanted!r}, its class is {classes.names[classes.labels[person]]!r}"
    return None


PROBE_GUARDS: dict[str, ProbeGuard] = {
    guard.__name__: guard for guard in (probe_people_disjoint, probe_places, probe_targets, probe_classes)
}


def enforce_probes(inputs: ProbeInputs) -> None:
    """Raises `GuardFailure` with the first finding of the probes' guards."""
    for name, guard in PROBE_GUARDS.items():
        if finding := guard(inputs):
            raise GuardFailure(name, finding)
