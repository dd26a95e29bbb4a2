"""Each guard against a planted fault of its own kind, of which every other guard must say nothing."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from ktrain.bios import people
from ktrain.bios.fragment_encoder import TokenizedTexts
from ktrain.bios.pools import Pools
from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig, ReadoutConfig, TrainConfig
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.data.checks import CellInputs
from ktrain.data.corpus import Corpus
from ktrain.data.packing import PackedStream, Windows
from ktrain.data.questions import QuestionRows
from ktrain.errors import GuardFailure
from ktrain.rng import generator

Tiny = Callable[..., Corpus]
Plant = Callable[[pytest.MonkeyPatch, Tiny], CellInputs]


def seen(
    corpus: Corpus,
    *,
    asks: Corpus | None = None,
    qa_ratio: float = 0.5,
    fill: bool = False,
    whole: bool = False,
    **readout: str,
) -> CellInputs:
    """A cell of `corpus`; `asks` is what the question windows are made from, where that is something else."""
    how: Literal["cut", "whole"] = "whole" if whole else "cut"
    train = TrainConfig(steps=4, batch=4, context=256, warmup=0, qa_ratio=qa_ratio, windows=how)
    windows = Windows(asks or corpus, "key", train, seed=0)
    rows = QuestionRows(corpus, ReadoutConfig.model_validate(readout), "key", seed=0, fill=fill)
    return CellInputs(corpus, rows, windows)


def healthy(tiny: Tiny) -> Corpus:
    return tiny(multi=5, permute=1)


def famous(tiny: Tiny) -> Corpus:
    """One entry for each of 60 people under test, five for each of 20 celebrities."""
    return tiny(permute=1, celebrity_fraction=0.25, celebrity=AugmentationConfig(multi=5, permute=1))


def with_one_more(corpus: Corpus) -> Corpus:
    """The corpus as a split would see it that takes the last person of the test half into the train half."""
    train = corpus.train.copy()
    train[np.flatnonzero(corpus.people_split("minority")[1])[-1]] = True
    return replace(corpus, train=train)


def trained_on_a_tested_person(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    # The last person of all, so that the rows of the others stay where they are.
    corpus = next(c for c in (tiny(multi=5, permute=1, seed=s) for s in range(9)) if not c.train[-1])
    return replace(seen(corpus), rows=seen(with_one_more(corpus)).rows)


def trained_on_a_person_to_choose_by(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    drawn = (tiny(multi=5, permute=1, validation_share=0.5, seed=seed) for seed in range(9))
    corpus = next(corpus for corpus in drawn if corpus.validation[-1])
    train = corpus.train.copy()
    train[-1] = True
    return replace(seen(corpus), rows=seen(replace(corpus, train=train)).rows)


def two_people_with_one_name(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    # Before the patch: what `tiny` builds is kept for the tests after this one.
    setting = healthy(tiny).setting
    monkeypatch.setattr(people, "_distinct", lambda rng, size, count, taken: np.maximum(np.arange(count), 1))
    return seen(corpora.build_corpus(setting, seed=0))


def question_of_a_tested_person_in_the_windows(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    return seen(healthy(tiny), asks=with_one_more(healthy(tiny)))


def trained_on_a_tested_person_with_celebrities(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    """One whom another readout might be trained on."""
    inspected = seen(famous(tiny), qa_ratio=0.0, people="celebrity")
    rows, person = inspected.rows, int(np.flatnonzero(inspected.corpus.train)[0])
    # Added behind the celebrities, so that every other row is what it should be.
    rows._chosen = np.concatenate([rows._chosen, person * 6 + np.arange(6)])
    return inspected


def trained_on_a_celebrity_who_is_asked(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    """The whole of both groups would be tested."""
    monkeypatch.setattr(Corpus, "people_split", lambda self, people: (self.celebrity, np.ones(80, dtype=bool)))
    return seen(famous(tiny), qa_ratio=0.0, people="celebrity")


def a_celebrity_with_the_name_of_another_person(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    setting = famous(tiny).setting
    monkeypatch.setattr(people, "_distinct", lambda rng, size, count, taken: np.arange(count) + 59 * (count == 20))
    return seen(corpora.build_corpus(setting, seed=0))


def question_of_a_tested_person_besides_celebrities(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    return seen(famous(tiny), asks=with_one_more(famous(tiny)))


def question_of_a_celebrity_in_the_windows(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    corpus = famous(tiny)
    train = corpus.train.copy()
    train[-1] = True
    return seen(corpus, asks=replace(corpus, train=train))


def entries_of_a_celebrity_side_by_side(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    """People in any order, each one's entries together: one entry or five."""
    corpus = famous(tiny)

    def order(self: PackedStream, number: int) -> np.ndarray:
        place = generator(number, "grouped").permutation(80)
        return np.argsort(place[corpus.person], kind="stable")

    monkeypatch.setattr(PackedStream, "order", order)
    return seen(corpus, qa_ratio=0.0)


def a_celebritys_span_off_by_one(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    corpus = famous(tiny)
    spans = corpus.entries.spans.copy()
    spans[123, 3, 0] += 1
    assert corpus.celebrity[corpus.person[123]]
    return seen(replace(corpus, entries=replace(corpus.entries, spans=spans)))


def a_row_to_fill_in(change: str) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        inspected = seen(healthy(tiny), fill=True)
        rows = inspected.rows
        first, *_, last = np.flatnonzero(rows.mask[17]).tolist()
        if change == "shows a token":
            rows.ids[17, first] = rows.truth[17, first]
        elif change == "shows all":
            rows.ids[17] = rows.truth[17]
        elif change == "hides the prompt":
            rows.ids[17, first - 1] = rows.ids[17, first]
        elif change == "hides the end":
            rows.ids[17, last + 1] = rows.ids[17, first]
        elif change == "asks for the end":
            rows.mask[17, last + 1] = True
        else:
            rows.mask[17] = np.roll(rows.mask[17], -1)
        return inspected

    return plant


def entries_of_a_person_side_by_side_in_whole_windows(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    inspected = entries_of_a_person_side_by_side(monkeypatch, tiny)
    return seen(inspected.corpus, qa_ratio=0.0, whole=True)


def windows_that_begin_after_the_text_that_was_cut(kind: str) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        window_texts = PackedStream._window_texts

        def late(self: PackedStream, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
            firsts = window_texts(self, begin, end)
            if self._name == kind:
                firsts[1] += 1
            return firsts

        monkeypatch.setattr(PackedStream, "_window_texts", late)
        return seen(healthy(tiny), whole=True)

    return plant


def entries_of_a_person_side_by_side(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    def order(self: PackedStream, number: int) -> np.ndarray:
        each = len(self.chosen) // 60
        return (generator(number, "grouped").permutation(60)[:, None] * each + np.arange(each)).reshape(-1)

    monkeypatch.setattr(PackedStream, "order", order)
    return seen(healthy(tiny), qa_ratio=0.0)


def the_same_order_every_epoch(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    shuffle = PackedStream.order
    monkeypatch.setattr(PackedStream, "order", lambda self, number: shuffle(self, 0))
    return seen(healthy(tiny))


def a_template(sentence: str) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        corpus = healthy(tiny)
        sentences = corpus.templates | {"major": (*corpus.templates["major"][:-1], sentence)}
        return seen(replace(corpus, templates=sentences))

    return plant


def a_span_off_by_one(attribute: str, end: int, by: int) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        corpus = healthy(tiny)
        spans = corpus.entries.spans.copy()
        spans[123, ATTRIBUTES.index(attribute), end] += by
        return seen(replace(corpus, entries=replace(corpus.entries, spans=spans)))

    return plant


def an_answer_without_its_space(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
    """One answer written as `Answer:Sociology.`, where that has as many tokens."""
    corpus = healthy(tiny)
    ids = corpus.questions.ids.copy()
    for question in range(len(corpus.questions)):
        person, attribute = divmod(question, 6)
        prompt, answer = corpus.question_text(person, ATTRIBUTES[attribute])
        glued = [*corpus.tokenizer.encode(prompt + answer.removeprefix(" ")).ids, corpus.eos]
        if len(glued) == len(corpus.questions[question]):
            ids[corpus.questions.offsets[question] : corpus.questions.offsets[question + 1]] = glued
            return seen(replace(corpus, questions=replace(corpus.questions, ids=ids)))
    raise AssertionError("no answer has as many tokens without its space")


def a_mask_off_by_one(loss: str, change: str) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        inspected = seen(healthy(tiny), loss=loss)
        mask = inspected.rows.mask
        targets = np.flatnonzero(mask[17])
        first, last = int(targets[0]), int(targets[-1])
        if change == "begins early":
            mask[17, first - 1] = True
        elif change == "begins late":
            mask[17, first] = False
        elif change == "without the end":
            mask[17, last] = False
        elif change == "with padding":
            mask[17, last + 1] = True
        elif change == "with a hole":
            mask[17, first + 1] = False
        elif change == "empty":
            mask[17] = False
        else:
            mask[17] = np.roll(mask[17], -1)
        return inspected

    return plant


def one_value_for_all(pool: str) -> Plant:
    def plant(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> CellInputs:
        setting = healthy(tiny).setting
        sizes = setting.pools.model_copy(update={pool: 1})
        return seen(tiny(multi=5, permute=1, pools=sizes))

    return plant


FAULTS: list[tuple[str, str, Plant]] = [
    ("people_disjoint", "1 people of the test half are trained on", trained_on_a_tested_person),
    ("people_disjoint", "1 people of the test half are trained on", trained_on_a_person_to_choose_by),
    ("people_disjoint", "1 people have the name of another one", two_people_with_one_name),
    ("held_out_questions_unread", "questions of 1 people of the test half", question_of_a_tested_person_in_the_windows),
    ("windows_mixed", "pairs of one person's entries share a window", entries_of_a_person_side_by_side),
    ("epochs_differ", "epochs 0 and 1 have the same order", the_same_order_every_epoch),
    *(
        ("texts_whole", f"1 texts of kind {kind} stand", windows_that_begin_after_the_text_that_was_cut(kind))
        for kind in ("biography", "question")
    ),
    ("template_slots", "major: needs {value} exactly once", a_template("{name} studied hard.")),
    ("name_first", "major: needs {name} or {name's} before {value}", a_template("In {value}, {name} took a degree.")),
    ("name_first", "major: 'studies' after {name} agrees with one pronoun", a_template("{name} studies {value}.")),
    *(
        ("spans_decode", f"entry 123: {attribute} is", a_span_off_by_one(attribute, end, by))
        for attribute in ("birth_date", "university", "company")
        for end in (0, 1)
        for by in (-1, 1)
    ),
    ("first_tokens", "begins with", an_answer_without_its_space),
    *(
        ("loss_mask", "expected are the last", a_mask_off_by_one("answer", change))
        for change in (
            "begins early",
            "begins late",
            "without the end",
            "with padding",
            "with a hole",
            "empty",
            "shifted",
        )
    ),
    *(
        ("loss_mask", "expected are the last", a_mask_off_by_one("all", change))
        for change in ("begins early", "begins late", "without the end", "with padding")
    ),
    ("people_disjoint", "1 people of the test half are trained on", trained_on_a_tested_person_with_celebrities),
    ("people_disjoint", "20 people of the test half are trained on", trained_on_a_celebrity_who_is_asked),
    ("people_disjoint", "1 people have the name of another one", a_celebrity_with_the_name_of_another_person),
    ("held_out_questions_unread", "questions of 1 people", question_of_a_tested_person_besides_celebrities),
    ("held_out_questions_unread", "questions of 1 people", question_of_a_celebrity_in_the_windows),
    ("windows_mixed", "pairs of one person's entries share a window", entries_of_a_celebrity_side_by_side),
    ("windows_mixed", "pairs of one", entries_of_a_person_side_by_side_in_whole_windows),
    ("spans_decode", "entry 123: major is", a_celebritys_span_off_by_one),
    *(
        ("loss_mask", said, a_row_to_fill_in(change))
        for change, said in (
            ("shows a token", "are masked"),
            ("shows all", "are masked"),
            ("hides the prompt", "are masked"),
            ("hides the end", "are masked"),
            ("asks for the end", "expected are the last"),
            ("shifted", "expected are the last"),
        )
    ),
    ("class_counts", "100% of the test half share one birth_city", one_value_for_all("birth_cities")),
    ("class_counts", "100% of the test half share one university", one_value_for_all("universities")),
    ("class_counts", "100% of the test half share one company", one_value_for_all("companies")),
]


@pytest.mark.parametrize(("guard", "finding", "plant"), FAULTS)
def test_one_fault_makes_one_guard_speak(
    guard: str, finding: str, plant: Plant, monkeypatch: pytest.MonkeyPatch, tiny: Tiny
) -> None:
    inspected = plant(monkeypatch, tiny)
    found = checks.inspect(inspected)
    assert list(found) == [guard]
    assert finding in found[guard] and "\n" not in found[guard]
    with pytest.raises(GuardFailure) as caught:
        checks.enforce(inspected)
    assert caught.value.guard == guard and str(caught.value) == f"guard {guard}: {found[guard]}"


def test_every_guard_has_a_fault_planted_for_it() -> None:
    assert list(checks.GUARDS) == list(dict.fromkeys(guard for guard, _, _ in FAULTS))


@pytest.mark.parametrize("changes", [{}, {"permute": 5}, {"multi": 5, "permute": 1, "fullname": True}, {"multi": 2}])
@pytest.mark.parametrize("qa_ratio", [0.0, 0.5])
@pytest.mark.parametrize("loss", ["answer", "all"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_healthy_cell_makes_no_guard_speak(
    tiny: Tiny, changes: dict[str, object], qa_ratio: float, loss: str, whole: bool
) -> None:
    inspected = seen(tiny(**changes), qa_ratio=qa_ratio, whole=whole, loss=loss)
    assert checks.inspect(inspected) == {}
    checks.enforce(inspected)


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"celebrity_fraction": 0.25}, {}),
        ({"celebrity_fraction": 0.25}, {"people": "celebrity", "qa_ratio": 0.0}),
        (
            {"celebrity_fraction": 0.7, "celebrity": AugmentationConfig(multi=2, permute=0, fullname=True)},
            {"fill": True},
        ),
        ({"couple": 2}, {}),
        ({"multi": 2}, {"fill": True}),
    ],
)
def test_a_healthy_cell_of_another_arm_makes_no_guard_speak(
    tiny: Tiny, changes: dict[str, object], cell: dict[str, Any]
) -> None:
    assert checks.inspect(seen(tiny(**changes), **cell)) == {}


@pytest.mark.parametrize("windows", ["cut", "whole"])
@pytest.mark.parametrize("seed", range(5))
def test_unequal_numbers_of_entries_are_not_taken_for_a_fault(
    tiny: Tiny, seed: int, windows: Literal["cut", "whole"]
) -> None:
    """Ten entries of each celebrity meet far more often than the mean number of entries would."""
    corpus = tiny(people=300, celebrity_fraction=0.2, celebrity=AugmentationConfig(multi=10, permute=0))
    made_of = Windows(corpus, "key", TrainConfig(context=512, warmup=0, windows=windows), seed)
    assert checks.windows_mixed(CellInputs(corpus, seen(corpus).rows, made_of)) is None
    # What is implied is what is found over many epochs, as good as Poisson.
    stream = made_of.streams["biography"]
    each = corpus.entry_counts.astype(float)
    implied, every = (each * (each - 1)).sum(), len(corpus.entries)
    found = np.array([stream.count_shared_windows(corpus.person, number) for number in range(30)])
    wanted = found[:, 1].sum() * implied / (every * (every - 1))
    assert found[:, 0].sum() == pytest.approx(wanted, abs=5 * wanted**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_a_global_shuffle_is_not_taken_for_a_fault(tiny: Tiny, seed: int) -> None:
    corpus = tiny(people=400, multi=5, permute=1)
    windows = Windows(corpus, "key", TrainConfig(context=512, warmup=0), seed)
    assert checks.windows_mixed(CellInputs(corpus, seen(corpus).rows, windows)) is None


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe-600"])
def test_hostile_values_are_no_fault(
    tokenizer: str, hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig], tmp_path: Path
) -> None:
    sizes = write_pools(tmp_path / "pools", hostile)
    setting = CorpusConfig(
        people=48, multi=3, permute=1, tokenizer=tokenizer, pools=sizes, pools_folder=str(tmp_path / "pools")
    )
    assert checks.inspect(seen(corpora.build_corpus(setting, seed=0))) == {}


def test_all_guards_that_speak_are_reported_and_the_first_is_raised(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny
) -> None:
    corpus = a_template("{name} studied hard.")(monkeypatch, tiny).corpus
    spans = corpus.entries.spans + np.int16(1)
    entries = TokenizedTexts(corpus.entries.ids, corpus.entries.offsets, spans)
    inspected = seen(replace(corpus, entries=entries))
    assert list(checks.inspect(inspected)) == ["template_slots", "spans_decode"]
    with pytest.raises(GuardFailure, match=r"^guard template_slots: "):
        checks.enforce(inspected)


def test_company_city_alone_may_have_a_common_value(tiny: Tiny) -> None:
    """The paper's own company cities are shared: what is common there is no fault."""
    corpus = healthy(tiny)
    pools = replace(corpus.people.pools, company_cities=("Houston, TX",) * 12)
    one_city = replace(corpus, people=replace(corpus.people, pools=pools))
    assert people.majority_shares(one_city.people, ~corpus.train)["company_city"] == 1.0
    assert checks.class_counts(replace(seen(corpus), corpus=one_city)) is None


def test_large_data_are_sampled_evenly_from_first_to_last() -> None:
    for size in (1, 5, 2000, 2001, 123_456):
        sample = checks.evenly_spaced(size)
        assert sample[0] == 0 and sample[-1] == size - 1 and len(sample) == min(size, 2000)
        assert np.diff(sample).max(initial=0) <= -(-size // 1999)


def test_a_guard_failure_survives_the_way_between_processes() -> None:
    failure = GuardFailure("windows_mixed", "17 pairs")
    again = pickle.loads(pickle.dumps(failure))
    assert type(again) is GuardFailure
    assert (again.guard, again.finding, str(again)) == ("windows_mixed", "17 pairs", "guard windows_mixed: 17 pairs")
