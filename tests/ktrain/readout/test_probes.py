"""What probes read and what is asked of them, looked up in the text rather than in spans."""

import re
from typing import cast

import numpy as np
import pytest

from ktrain.bios.pools import MONTHS
from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig, ReadoutConfig
from ktrain.data import corpus as corpora
from ktrain.readout import probe_checks, probes
from ktrain.readout.kinds.base import kind_of
from ktrain.readout.kinds.probe import ProbeKind
from ktrain.readout.probe_scores import ProbePredictions, named, predictions, score, seen
from ktrain.readout.probes import TASKS, ProbeTask, Rows, Stream
from ktrain.readout.recomputed import ROUNDING

FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 8)
POOLS = PoolsConfig(first_names=20, middle_names=20, last_names=20, **FEW)
P, Q = (ReadoutConfig.model_validate({"kind": kind, "people_per_class": 0}) for kind in ("p_probe", "q_probe"))


def corpus(multi: int = 2, permute: int = 1, people: int = 40, **changes: object) -> corpora.Corpus:
    told = {"people": people, "multi": multi, "permute": permute, "tokenizer": "bpe-600", "pools": POOLS}
    return corpora.build_corpus(CorpusConfig.model_validate(told | changes), 0)


FIXED, SHUFFLED = corpus(1, 0), corpus()
FAMOUS = corpus(1, 2, celebrity_fraction=0.25, celebrity=AugmentationConfig(multi=5, permute=1))
"""Two entries for each of 40 people under test, five for each of 13 celebrities."""
COUPLED = corpus(1, 0, couple=2)


def rows_of(corpus: corpora.Corpus, readout: ReadoutConfig, pad: int | None = None) -> Rows:
    """The rows of a probe's kind."""
    return cast(ProbeKind, kind_of(readout.kind)).rows(corpus, readout, pad)


def inspected(found: corpora.Corpus, readout: ReadoutConfig, **changes: object) -> probe_checks.ProbeInputs:
    rows = rows_of(found, readout)
    classes = {task: probes.classes(found, task) for task in TASKS}
    learned, tested = found.people_split(readout.people)
    streams = {t: Stream(rows, classes[t], learned, 5, 0, str(t)) for t in TASKS}
    made = {"corpus": found, "tested": tested, "rows": rows, "streams": streams, "classes": classes}
    return probe_checks.ProbeInputs(**{**made, **changes})  # type: ignore[arg-type]


def spoken(seen: probe_checks.ProbeInputs) -> set[str]:
    """The guards that speak."""
    return {name for name, guard in probe_checks.PROBE_GUARDS.items() if guard(seen)}


def test_there_are_the_papers_eleven_tasks() -> None:
    assert len(TASKS) == 11 and sum(task.measure == "first" for task in TASKS) == 6
    assert ProbeTask("whole", "birth_date") not in TASKS


@pytest.mark.parametrize("found", [FIXED, SHUFFLED, FAMOUS, COUPLED], ids=["fixed", "shuffled", "famous", "coupled"])
def test_each_place_ends_right_before_an_attribute(found: corpora.Corpus) -> None:
    rows = rows_of(found, P)
    assert len(rows) == len(found.entries) and rows.ids.shape[1] % 8 == 0
    for row in range(len(rows)):
        text = found.entry_text(row)
        assert rows.ids[row, 0] == found.eos
        assert (np.diff(rows.places[row]) > 0).all()
        for attribute, sentence in zip(ATTRIBUTES, rows.sentence[row], strict=True):
            read = found.tokenizer.decode(rows.ids[row, 1 : rows.places[row, sentence] + 1].tolist())
            assert text.startswith(read)
            assert text[len(read) :].startswith(f" {found.people.value(int(rows.person[row]), attribute)}")
    if found is FIXED:
        assert (rows.sentence == np.arange(6)).all()


def test_nothing_after_the_last_place_is_read() -> None:
    rows = rows_of(SHUFFLED, P)
    after = np.arange(rows.ids.shape[1]) > rows.places[:, -1:]
    assert (rows.ids[after] == SHUFFLED.eos).all()


def test_entries_of_a_person_can_be_limited() -> None:
    rows = rows_of(SHUFFLED, P.model_copy(update={"entries": 1}))
    assert rows.entry.tolist() == list(range(0, 80, 2)) and rows.person.tolist() == list(range(40))


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 9])
def test_the_first_entries_of_each_are_read_however_many_there_are(limit: int) -> None:
    rows = rows_of(FAMOUS, P.model_copy(update={"entries": limit}))
    wanted = []
    for person in range(53):
        mine = np.flatnonzero(FAMOUS.person == person).tolist()
        assert len(mine) == (2 if person < 40 else 5)
        wanted += [(person, entry) for entry in (mine[:limit] if limit else mine)]
    assert list(zip(rows.person.tolist(), rows.entry.tolist(), strict=True)) == wanted


def test_names_can_be_padded_with_what_is_not_read() -> None:
    """A bidirectional network would see the padding behind a name."""
    rows, plain = rows_of(SHUFFLED, Q, 601), rows_of(SHUFFLED, Q)
    assert np.array_equal(rows.places, plain.places)
    behind = np.arange(rows.ids.shape[1]) > rows.places
    assert behind.any() and (rows.ids[behind] == 601).all()
    assert np.array_equal(rows.ids[~behind], plain.ids[~behind])
    assert not spoken(inspected(SHUFFLED, Q, rows=rows))


def test_of_a_couple_the_first_is_always_seen_before_the_second() -> None:
    """And pairs are read whole or begun, in any order: these sets and no others."""
    rows = rows_of(COUPLED, P)
    pairs = {"birth_city": "birth_date", "major": "university", "company_city": "company"}
    for own, partner in pairs.items():
        column = ATTRIBUTES.index(own)
        read = [named(int(c)).split("-") for c in seen(rows)[np.arange(len(rows)), rows.sentence[:, column]]]
        assert all(partner in before for before in read)
        others = {tuple(sorted(set(before) - {partner})) for before in read}
        whole = [{a, b} for a, b in pairs.items() if a != own]
        assert others == {tuple(sorted(set[str]().union(*w))) for w in ([], whole[:1], whole[1:], whole)}
    for codes in seen(rows).tolist():
        for place, code in enumerate(codes):
            before = set(named(code).split("-")) - {"none"}
            begun = [p for p in pairs.items() if len(before & set(p)) == 1]
            assert len(before) == place and len(begun) == place % 2 and all(partner in before for _, partner in begun)


def test_a_name_stands_between_two_ends() -> None:
    rows = rows_of(SHUFFLED, Q)
    for person in range(40):
        last = int(rows.places[person, 0])
        assert rows.ids[person, 0] == rows.ids[person, last] == SHUFFLED.eos
        assert SHUFFLED.tokenizer.decode(rows.ids[person, 1:last].tolist()) == f" {SHUFFLED.people.name(person)}"
        assert (rows.ids[person, last:] == SHUFFLED.eos).all()


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_classes_are_what_the_people_have(task: ProbeTask) -> None:
    found = probes.classes(SHUFFLED, task)
    for person in range(40):
        value = SHUFFLED.people.value(person, task.attribute)
        told = SHUFFLED.tokenizer.decode(SHUFFLED.tokenizer.encode(f" {value}").ids[:1])
        assert found.names[found.labels[person]] == (value if task.measure == "whole" else told)
    assert len(set(found.names)) == len(found.names) == len(set(found.labels.tolist()))
    assert found.counts(SHUFFLED.train).sum() == 20


def test_targets_are_at_and_before_their_attribute() -> None:
    rows = rows_of(SHUFFLED, P)
    for task in TASKS:
        own = rows.sentence[:, ATTRIBUTES.index(task.attribute)]
        assert (rows.valid(task).sum(1) == own + 1).all()
    assert (seen(rows)[:, 0] == 0).all() and named(0) == "none" and named(0b101001) == "birth_date-major-company_city"
    # What was read before a place are the attributes of the sentences before it, whatever their order.
    assert all(bin(code).count("1") == place for codes in seen(rows).tolist() for place, code in enumerate(codes))


@pytest.mark.parametrize("readout", [P, Q], ids=["p", "q"])
def test_a_stream_is_each_training_row_once_an_epoch_in_an_order_of_its_own(readout: ReadoutConfig) -> None:
    rows, task = rows_of(SHUFFLED, readout), TASKS[3]
    found = probes.classes(SHUFFLED, task)
    stream, other = (Stream(rows, found, SHUFFLED.train, 10, 0, name) for name in ("a", "b"))
    steps = len(stream.chosen) // 10
    epochs = [np.concatenate([stream.batch(s)[0] for s in range(e * steps, (e + 1) * steps)]) for e in (0, 1)]
    wanted = sorted(map(tuple, rows.ids[SHUFFLED.train[rows.person]].tolist()))
    for read in epochs:
        assert sorted(map(tuple, read.tolist())) == wanted
    assert not np.array_equal(*epochs) and not np.array_equal(stream.batch(0)[0], other.batch(0)[0])
    _, places, targets, weights = stream.batch(1)
    assert weights.sum() == pytest.approx(1.0) and weights.shape == places.shape == targets.shape
    assert len(np.unique(weights[weights > 0])) == 1


def test_common_tokens_are_those_of_enough_people() -> None:
    """By a plain loop over people: the end stands in every row, a name in few."""
    rows, vocabulary = rows_of(SHUFFLED, P), SHUFFLED.tokenizer.get_vocab_size()
    trained = np.flatnonzero(SHUFFLED.train)
    held = [set(rows.ids[rows.person == person].ravel().tolist()) for person in trained]
    for share in (0.1, 0.5, 1.0):
        found = probes.common_tokens(rows, SHUFFLED.train, share, vocabulary)
        assert found.tolist() == [sum(t in mine for mine in held) >= share * len(held) for t in range(vocabulary)]
        assert found[SHUFFLED.eos]
    assert probes.common_tokens(rows_of(SHUFFLED, Q), SHUFFLED.train, 1.0, vocabulary).sum() < 10


def test_tasks_with_too_few_people_are_refused_with_the_numbers() -> None:
    people = int(SHUFFLED.train.sum())
    left_out = probes.refusal(SHUFFLED.people.pools, lambda: SHUFFLED.tokenizer, people, 3)
    assert set(left_out) == {task for task in TASKS if people < 3 * _classes(task)}
    line = left_out[ProbeTask("whole", "birth_city")]
    assert line == "whole/birth_city: 20 people for 8 classes are 2.5 each, readout.people_per_class=3"
    assert not probes.refusal(SHUFFLED.people.pools, lambda: SHUFFLED.tokenizer, people, P.people_per_class)


def _classes(task: ProbeTask) -> int:
    """Classes of a task by counting the texts of its pool."""
    pools = SHUFFLED.people.pools
    plural = {"birth_city": "birth_cities", "university": "universities", "major": "majors", "company": "companies"}
    name = plural.get(task.attribute, "company_cities")
    values = MONTHS if task.attribute == "birth_date" else getattr(pools, name)
    if task.measure == "whole":
        return len(set(values))
    return len({SHUFFLED.tokenizer.encode(f" {value}").ids[0] for value in values})


# Guards, and the faults that they find.


def celebrities(readout: ReadoutConfig) -> ReadoutConfig:
    return readout.model_copy(update={"people": "celebrity"})


@pytest.mark.parametrize("readout", [P, Q, celebrities(P), celebrities(Q)], ids=["p", "q", "p famous", "q famous"])
def test_nothing_speaks_where_all_is_well_with_celebrities(readout: ReadoutConfig) -> None:
    made = inspected(FAMOUS, readout)
    assert not spoken(made)
    learned = {int(p) for stream in made.streams.values() for p in made.rows.person[stream.chosen]}
    if readout.people == "celebrity":
        assert learned == set(range(40, 53)) and np.flatnonzero(made.tested).tolist() == list(range(40))
    else:
        assert learned == set(np.flatnonzero(FAMOUS.train).tolist()) and made.tested.sum() == 20


@pytest.mark.parametrize("readout", [P, Q], ids=["p", "q"])
def test_a_tested_person_among_the_celebrities_is_found(readout: ReadoutConfig) -> None:
    rows, learned = rows_of(FAMOUS, readout), FAMOUS.celebrity.copy()
    learned[39] = True
    classes = {task: probes.classes(FAMOUS, task) for task in TASKS}
    streams = {t: Stream(rows, classes[t], learned, 5, 0, str(t)) for t in TASKS}
    assert spoken(inspected(FAMOUS, celebrities(readout), streams=streams)) == {"probe_people_disjoint"}


@pytest.mark.parametrize("readout", [P, Q], ids=["p", "q"])
@pytest.mark.parametrize("found", [FIXED, SHUFFLED, COUPLED], ids=["fixed", "shuffled", "coupled"])
def test_nothing_speaks_where_all_is_well(found: corpora.Corpus, readout: ReadoutConfig) -> None:
    assert not spoken(inspected(found, readout))


def moved(rows: Rows, **columns: np.ndarray) -> Rows:
    return Rows(**{**vars(rows), **columns})


def restreamed(found: corpora.Corpus, rows: Rows) -> dict[str, object]:
    classes = {task: probes.classes(found, task) for task in TASKS}
    return {"rows": rows, "streams": {t: Stream(rows, classes[t], found.train, 5, 0, str(t)) for t in TASKS}}


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("readout", [P, Q], ids=["p", "q"])
def test_a_place_that_is_off_by_one_is_found(readout: ReadoutConfig, shift: int) -> None:
    rows = rows_of(SHUFFLED, readout)
    planted = restreamed(SHUFFLED, moved(rows, places=rows.places + shift))
    assert "probe_places" in spoken(inspected(SHUFFLED, readout, **planted))


def test_a_span_that_is_off_by_one_is_found() -> None:
    broken = corpus()
    broken.entries.spans[...] += 1
    assert "probe_places" in spoken(inspected(broken, P))


def test_a_place_after_its_target_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = lambda self, task: np.ones(self.places.shape, dtype=bool)  # noqa: E731
    monkeypatch.setattr(Rows, "valid", everywhere)
    assert spoken(inspected(SHUFFLED, P)) == {"probe_targets"}
    assert not spoken(inspected(SHUFFLED, Q))


def test_train_people_among_the_tested_are_found() -> None:
    rows, found = rows_of(SHUFFLED, P), SHUFFLED
    classes = {task: probes.classes(found, task) for task in TASKS}
    everyone = np.ones_like(found.train)
    streams = {t: Stream(rows, classes[t], everyone, 5, 0, str(t)) for t in TASKS}
    assert spoken(inspected(found, P, streams=streams)) == {"probe_people_disjoint"}


def test_classes_of_other_people_are_found() -> None:
    classes = {task: probes.classes(SHUFFLED, task) for task in TASKS}
    task = TASKS[2]
    classes[task] = probes.Classes(task, np.roll(classes[task].labels, 1), classes[task].names)
    assert spoken(inspected(SHUFFLED, P, classes=classes)) == {"probe_classes"}


# Scores.


@pytest.mark.parametrize(
    ("found_in", "people"),
    [(SHUFFLED, "minority"), (FAMOUS, "minority"), (FAMOUS, "celebrity"), (COUPLED, "minority")],
    ids=["shuffled", "famous half", "famous", "coupled"],
)
def test_scores_are_counted_by_hand(found_in: corpora.Corpus, people: str) -> None:
    """Probes that say the truth at some places of some rows: each metric by a plain loop over the examples."""
    rows = rows_of(found_in, P)
    asked = found_in.people_split(people)[1]
    rows = rows.kept(asked)
    classes = {task: probes.classes(found_in, task) for task in TASKS}
    drawn = np.random.default_rng(0)
    predicted = {}
    for task, about in classes.items():
        truth = np.repeat(about.labels[rows.person][:, None], 6, 1)
        lie = (truth + 1) % len(about.names)
        predicted[task] = np.where(drawn.random(truth.shape) < 0.6, truth, lie)
    probed = ProbePredictions(rows, classes, predicted)
    metrics, counts, intervals = score(probed, asked, "p_probe")
    # What `ktrain verify` compares is every number that rests on predictions.
    own = {name: value for name, value in metrics.items() if name.startswith("p_probe/")}
    assert kind_of("p_probe").recomputed(predictions(probed)) == pytest.approx(own, abs=ROUNDING, rel=0)
    wanted: dict[str, list[bool]] = {}
    for task, said in predicted.items():
        for row in range(len(rows)):
            order = found_in.order[rows.entry[row]].tolist()
            own = order.index(ATTRIBUTES.index(task.attribute))
            for place in range(own + 1):
                right = bool(said[row, place] == classes[task].labels[rows.person[row]])
                before = "-".join(a for i, a in enumerate(ATTRIBUTES) if i in order[:place]) or "none"
                for path in (f"{place}", *(["own"] if place == own else [])):
                    wanted.setdefault(f"p_probe/{task.measure}/{path}/{task.attribute}", []).append(right)
                wanted.setdefault(f"p_probe/seen/{task.measure}/{before}/{task.attribute}", []).append(right)
    found = {n: v for n, v in metrics.items() if n.startswith("p_probe") and not n.endswith("/mean")}
    assert found == pytest.approx({name: np.mean(values) for name, values in wanted.items()})
    attributes = ATTRIBUTES[1:]
    assert metrics["p_probe/whole/2/mean"] == pytest.approx(
        np.mean([metrics[f"p_probe/whole/2/{a}"] for a in attributes])
    )
    for name in intervals:
        assert intervals[name][0] - 1e-9 <= metrics[name] <= intervals[name][1] + 1e-9 and counts[name] <= asked.sum()
    # What MLflow takes as the name of a metric.
    assert all(re.fullmatch(r"[\w\-. /]+", name) for name in metrics)
    test = found_in.people.class_ids("major")[asked]
    assert metrics["baseline/whole/major"] == np.bincount(test).max() / asked.sum()
