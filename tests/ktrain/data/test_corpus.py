import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ktrain.bios import pools, templates
from ktrain.bios.pools import Pools
from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.errors import WrongRequest

Tiny = Callable[..., Corpus]
Told = Callable[[Corpus, int], tuple[str, dict[str, int]]]
FIXED = list(range(6))
ROWS = [
    (multi, permute, fullname)
    for multi, permutes in ((1, (0, 1, 2, 5)), (2, (0, 1)), (5, (0, 1)))
    for permute in permutes
    for fullname in (False, True)
]
"""The sixteen settings of the paper's tables."""


def decoded(corpus: Corpus, entry: int) -> str:
    return str(corpus.tokenizer.decode(corpus.entries[entry][:-1].tolist()))


def same(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora hold the same people and the same texts, to the last token."""
    arrays = [
        (c.people.columns, c.train, c.order, c.drafts, *vars(c.entries).values(), *vars(c.questions).values())
        for c in (one, other)
    ]
    return (
        all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
        and one.people.pools == other.people.pools
        and one.tokenizer.to_str() == other.tokenizer.to_str()
        and one.templates == other.templates
        and (one.setting, one.seed) == (other.setting, other.seed)
    )


@pytest.mark.parametrize(("multi", "permute", "fullname"), ROWS)
def test_each_row_of_the_paper_has_its_entries_and_their_texts(
    tiny: Tiny, told: Told, multi: int, permute: int, fullname: bool
) -> None:
    corpus = tiny(multi=multi, permute=permute, fullname=fullname)
    each = multi * max(permute, 1)
    assert len(corpus.entries) == 60 * each
    assert corpus.person.tolist() == [p for p in range(60) for _ in range(each)]
    # Seven is prime to all numbers of entries, so every place in a person's block comes up.
    for entry in range(0, len(corpus.entries), 7 if each > 1 else 1):
        text = decoded(corpus, entry)
        assert text == told(corpus, entry)[0]
        name = corpus.people.name(int(corpus.person[entry]))
        assert text.count(name) == (6 if fullname else 1)
        values = [corpus.people.value(int(corpus.person[entry]), a) for a in ATTRIBUTES]
        assert all(value in text for value in values)


def test_the_full_name_stands_in_the_first_sentence_of_a_shuffled_entry_and_pronouns_after(tiny: Tiny) -> None:
    corpus = tiny(permute=5)
    for entry in range(len(corpus.entries)):
        person = int(corpus.person[entry])
        text = decoded(corpus, entry)
        first = min(text.index(corpus.people.value(person, a)) for a in ATTRIBUTES)
        second = sorted(text.index(corpus.people.value(person, a)) for a in ATTRIBUTES)[1]
        assert text.index(corpus.people.name(person)) < second
        pronoun = [("he", "his"), ("she", "her"), ("they", "their")][corpus.people.column("pronoun")[person]]
        found = {w.lower() for w in re.findall(r"\b(?:he|his|him|she|her|hers|they|their|them)\b", text, re.I)}
        assert found and found <= set(pronoun), (first, text)


@pytest.mark.parametrize("multi", [1, 2, 5])
@pytest.mark.parametrize("fullname", [False, True])
def test_without_permute_the_order_is_fixed(tiny: Tiny, multi: int, fullname: bool) -> None:
    corpus = tiny(multi=multi, fullname=fullname)
    assert (corpus.order == FIXED).all()
    assert (np.diff(corpus.entries.spans[:, :, 0].astype(int), axis=1) > 0).all()


def test_multi_draws_templates_anew_for_every_entry(tiny: Tiny) -> None:
    drafts = tiny(multi=5).drafts.reshape(60, 5, 6)
    again = [np.mean(drafts[:, i] == drafts[:, j]) for i in range(5) for j in range(i)]
    # Two draws of about 48 templates agree in 2 % of cases.
    assert max(again) < 0.06
    assert len(np.unique(drafts.reshape(-1, 6), axis=0)) == 300


def test_permute_on_single_shuffles_the_sentences_of_the_single_entry(tiny: Tiny, told: Told) -> None:
    single, shuffled = tiny(), tiny(permute=5)
    assert np.array_equal(single.people.columns, shuffled.people.columns)
    blocks = shuffled.drafts.reshape(60, 5, 6)
    assert (blocks == blocks[:, :1]).all() and np.array_equal(blocks[:, 0], single.drafts)
    named, other = tiny(fullname=True), tiny(permute=5, fullname=True)
    for entry in range(len(other.entries)):
        # With the full name everywhere the sentences themselves are equal, and only their order is not.
        text, begins = told(named, int(other.person[entry]))
        places = sorted(begins.values())
        sentences = cut(text, places)
        assert Counter(cut(decoded(other, entry), sorted(told(other, entry)[1].values()))) == Counter(sentences)


def cut(text: str, places: list[int]) -> list[str]:
    """The six sentences of a text; none of the tiny corpus's values ends in a full stop."""
    ends = [
        0,
        *(text.index(". ", place) + 1 if ". " in text[place:] else len(text) for place in places[:-1]),
        len(text),
    ]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def test_permute_on_multi_shuffles_each_entry_once_and_keeps_its_sentences(tiny: Tiny) -> None:
    fixed, shuffled = tiny(multi=5), tiny(multi=5, permute=1)
    assert len(fixed.entries) == len(shuffled.entries) == 300
    assert np.array_equal(fixed.drafts, shuffled.drafts)
    assert len(np.unique(shuffled.order.reshape(60, 30), axis=0)) == 60
    assert (shuffled.order.reshape(60, 5, 6) != shuffled.order.reshape(60, 5, 6)[:, :1]).any(axis=(1, 2)).all()


def test_permute_on_multi_keeps_the_shuffles_of_a_draft_together(tiny: Tiny) -> None:
    corpus = tiny(multi=2, permute=3)
    assert corpus.setting.entries_per_person == 6
    blocks = corpus.drafts.reshape(60, 2, 3, 6)
    assert (blocks == blocks[:, :, :1]).all()
    assert (blocks[:, 0] != blocks[:, 1]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("permute", [1, 5])
def test_shuffles_are_permutations_and_uniform(tiny: Tiny, permute: int) -> None:
    order = tiny(permute=permute, people=3000, tokenizer="gpt2").order
    assert (np.sort(order, axis=1) == FIXED).all()
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) > 700
    every = np.concatenate([counts, np.zeros(720 - len(counts))])
    assert 0.001 < stats.chisquare(every).pvalue < 0.999


def test_templates_are_drawn_uniformly(tiny: Tiny) -> None:
    corpus = tiny(people=3000, tokenizer="gpt2")
    for number, attribute in enumerate(ATTRIBUTES):
        counts = np.bincount(corpus.drafts[:, number], minlength=len(corpus.templates[attribute]))
        assert len(counts) == len(corpus.templates[attribute])
        assert 0.001 < stats.chisquare(counts).pvalue < 0.999


def test_a_seed_is_one_corpus_and_another_seed_is_another(tiny: Tiny) -> None:
    first, other = tiny(multi=2, permute=1), tiny(multi=2, permute=1, seed=1)
    assert same(first, corpora.build_corpus(first.setting, 0))
    for name in ("order", "drafts", "train"):
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert not np.array_equal(first.people.columns, other.people.columns)
    assert not np.array_equal(first.entries.ids, other.entries.ids)


def test_settings_of_one_seed_have_the_same_people_halves_and_questions(tiny: Tiny) -> None:
    single, multi = tiny(), tiny(multi=5, permute=1, fullname=True)
    assert np.array_equal(single.people.columns, multi.people.columns)
    assert np.array_equal(single.train, multi.train)
    assert np.array_equal(single.questions.ids, multi.questions.ids)


def test_settings_of_the_same_people_share_one_trained_tokenizer(tiny: Tiny) -> None:
    own = tiny().tokenizer.to_str()
    for changes in ({"multi": 5, "permute": 1}, {"permute": 5}, {"fullname": True}):
        assert tiny(**changes).tokenizer.to_str() == own
    assert tiny(seed=1).tokenizer.to_str() != own
    assert tiny().tokenizer.get_vocab_size() == 600


@pytest.mark.parametrize("minority", [{}, {"permute": 1}, {"multi": 2, "fullname": True}, {"couple": 2}])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.7])
def test_celebrities_change_nothing_about_the_people_under_test(
    tiny: Tiny, minority: dict[str, object], fraction: float
) -> None:
    """Not a token of theirs: accuracies with and without celebrities are of the same questions."""
    alone = tiny(**minority)
    both = tiny(**minority, celebrity_fraction=fraction, celebrity=AugmentationConfig(multi=3, permute=1))
    entries, questions = len(alone.entries), len(alone.questions)
    assert both.tokenizer.to_str() == alone.tokenizer.to_str()
    assert np.array_equal(both.people.columns[:60], alone.people.columns)
    assert np.array_equal(both.train[:60], alone.train) and not both.train[60:].any()
    for name in ("order", "drafts"):
        assert np.array_equal(getattr(both, name)[:entries], getattr(alone, name))
    for name, count in (("entries", entries), ("questions", questions)):
        whole, part = getattr(both, name), getattr(alone, name)
        assert np.array_equal(whole.offsets[: count + 1], part.offsets)
        assert np.array_equal(whole.ids[: part.offsets[-1]], part.ids)
        assert np.array_equal(whole.spans[:count], part.spans)
    assert both.person[:entries].tolist() == alone.person.tolist()


@pytest.mark.parametrize(
    ("people", "fraction", "celebrities"),
    [(60, 0.5, 60), (60, 0.1, 7), (60, 0.25, 20), (60, 0.75, 180), (100_000, 0.5, 100_000), (500, 0.9, 4500)],
)
def test_there_are_n_f_by_1_minus_f_celebrities(people: int, fraction: float, celebrities: int) -> None:
    setting = CorpusConfig(
        people=people, celebrity_fraction=fraction, permute=2, celebrity=AugmentationConfig(multi=5, permute=1)
    )
    assert setting.celebrities == celebrities == round(people * fraction / (1 - fraction))
    assert setting.entries == 2 * people + 5 * celebrities
    # The share of all people who are celebrities is the fraction that was asked for.
    assert celebrities / (people + celebrities) == pytest.approx(fraction, abs=0.01)


def test_each_group_is_written_in_its_own_way(tiny: Tiny, told: Told) -> None:
    celebrity = AugmentationConfig(multi=5, permute=1, fullname=True)
    corpus = tiny(permute=2, celebrity_fraction=0.25, celebrity=celebrity)
    assert corpus.person.tolist() == [p for p in range(80) for _ in range(2 if p < 60 else 5)]
    assert corpus.entry_counts.tolist() == [2] * 60 + [5] * 20
    assert len(corpus.entries) == len(corpus.order) == len(corpus.drafts) == corpus.setting.entries == 220
    assert len(corpus.questions) == 80 * 6
    assert corpus.celebrity.tolist() == [False] * 60 + [True] * 20
    for entry in range(len(corpus.entries)):
        text, name = decoded(corpus, entry), corpus.people.name(int(corpus.person[entry]))
        assert text == told(corpus, entry)[0] == corpus.entry_text(entry)
        assert text.count(name) == (6 if entry >= 120 else 1)
    famous = corpus.drafts[120:].reshape(20, 5, 6)
    assert len(np.unique(famous.reshape(-1, 6), axis=0)) == 100, "sentences are drawn anew"
    assert len(np.unique(corpus.order[120:], axis=0)) > 80, "and shuffled"
    shuffled = corpus.drafts[:120].reshape(60, 2, 6)
    assert np.array_equal(shuffled[:, 0], shuffled[:, 1])


def test_a_celebritys_texts_are_no_copy_of_anyone_elses(tiny: Tiny) -> None:
    """Groups of one size and one augmentation still draw apart."""
    corpus = tiny(multi=3, permute=1, celebrity_fraction=0.5, celebrity=AugmentationConfig(multi=3, permute=1))
    half = len(corpus.entries) // 2
    for drawn in (corpus.order, corpus.drafts, corpus.people.columns):
        begin = len(drawn) // 2
        assert (drawn[:begin] != drawn[begin:]).any(axis=1).mean() > 0.9
    assert not {corpus.entries[e].tobytes() for e in range(half)} & {
        corpus.entries[e].tobytes() for e in range(half, 2 * half)
    }


def test_who_is_trained_on_and_who_is_asked(tiny: Tiny) -> None:
    corpus = tiny(celebrity_fraction=0.25)
    learned, asked = corpus.people_split("minority")
    assert learned.sum() == 30 and asked.sum() == 30 and not (learned & asked).any()
    assert not learned[60:].any() and not asked[60:].any(), "celebrities have no part in it"
    assert np.array_equal(learned, corpus.train)
    learned, asked = corpus.people_split("celebrity")
    assert learned.tolist() == [False] * 60 + [True] * 20
    assert asked.tolist() == [True] * 60 + [False] * 20
    plain = tiny()
    assert np.array_equal(plain.people_split("minority")[1], ~plain.train)


def test_people_to_choose_by_are_taken_from_those_who_would_be_reported(tiny: Tiny, tmp_path: Path) -> None:
    plain, corpus = (tiny(celebrity_fraction=0.25, validation_share=share) for share in (0.0, 0.4))
    assert not plain.validation.any() and corpus.validation.sum() == 12
    assert np.array_equal(corpus.train, plain.train), "nobody else is trained on"
    for people in ("minority", "celebrity"):
        (learned, asked), (_, before) = corpus.people_split(people), plain.people_split(people)
        assert np.array_equal(asked | corpus.validation, before) and not (asked & corpus.validation).any()
        assert not (learned & corpus.validation).any()
    other = tiny(celebrity_fraction=0.25, validation_share=0.4, seed=1)
    assert not np.array_equal(corpus.validation, other.validation)
    corpus.save(tmp_path)
    loaded = corpora.load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert np.array_equal(loaded.validation, corpus.validation)


@pytest.mark.parametrize("couple", [1, 2, 5])
def test_couples_stand_side_by_side_in_order(tiny: Tiny, told: Told, couple: int) -> None:
    corpus = tiny(couple=couple)
    assert len(corpus.entries) == 60 * couple
    for entry in range(len(corpus.entries)):
        text, begins = told(corpus, entry)
        assert decoded(corpus, entry) == text
        written = sorted(ATTRIBUTES, key=begins.__getitem__)
        pairs = {tuple(written[i : i + 2]) for i in (0, 2, 4)}
        assert pairs == {("birth_date", "birth_city"), ("university", "major"), ("company", "company_city")}
        assert text.count(corpus.people.name(int(corpus.person[entry]))) == 1


def test_the_six_orders_of_couples_are_uniform(tiny: Tiny) -> None:
    order = tiny(couple=2, people=1500, tokenizer="gpt2").order
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 6 and 0.001 < stats.chisquare(counts).pvalue < 0.999
    assert (order.reshape(1500, 2, 6)[:, 0] != order.reshape(1500, 2, 6)[:, 1]).any(axis=1).mean() == pytest.approx(
        5 / 6, abs=0.05
    )


def test_coupled_sentences_are_drawn_anew_for_each_entry(tiny: Tiny) -> None:
    drafts = tiny(couple=5).drafts.reshape(60, 5, 6)
    assert max(np.mean(drafts[:, i] == drafts[:, j]) for i in range(5) for j in range(i)) < 0.06
    # What is drawn is what `multi` draws, so that only the order is another one.
    assert np.array_equal(tiny(couple=5).drafts, tiny(multi=5).drafts)


def test_a_corpus_that_is_not_here_yet_is_refused() -> None:
    with pytest.raises(WrongRequest, match=r"^bioR by Qwen/Qwen2\.5-7B-Instruct \(vllm\) is not written yet: [^\n]*$"):
        corpora.build_corpus(CorpusConfig(kind="bioR", people=8), seed=0)


def test_couples_are_of_templates() -> None:
    with pytest.raises(ValueError, match=r"couple=2: needs kind=bioS"):
        CorpusConfig(kind="bioR", couple=2)


def test_questions_are_asked_in_the_words_of_the_paper(tiny: Tiny) -> None:
    corpus = tiny()
    for person in range(60):
        name = corpus.people.name(person)
        asked = [
            f"What is the birth date of {name}? Answer:",
            f"What is the birth city of {name}? Answer:",
            f"Which university did {name} study? Answer:",
            f"What major did {name} study? Answer:",
            f"Which company did {name} work for? Answer:",
            f"Where did {name} work? Answer:",
        ]
        for number, (attribute, prompt) in enumerate(zip(ATTRIBUTES, asked, strict=True)):
            answer = f" {corpus.people.value(person, attribute)}."
            assert corpus.question_text(person, attribute) == (prompt, answer)
            ids = corpus.questions[person * 6 + number]
            assert corpus.tokenizer.decode(ids[:-1].tolist()) == prompt + answer
            begin, end = corpus.questions.spans[person * 6 + number, 0]
            assert corpus.tokenizer.decode(ids[:begin].tolist()) == prompt
            assert corpus.tokenizer.decode(ids[begin:end].tolist()).rstrip(".") == answer.rstrip(".")


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 15), (0.5, 30)])
def test_the_train_half_has_its_share(tiny: Tiny, share: float, count: int) -> None:
    assert tiny(question_share=share).train.sum() == count


def test_entries_are_as_long_as_the_papers() -> None:
    """73.0 tokens in the paper and 88.8 with full names; the templates here are our own."""
    single = corpora.build_corpus(CorpusConfig(people=2000), seed=0)
    assert 71 < len(single.entries.ids) / 2000 < 75
    fullname = corpora.build_corpus(CorpusConfig(people=2000, fullname=True), seed=0)
    assert len(fullname.entries.ids) / 2000 == pytest.approx(88.8, abs=2.5)
    # 17.2 tokens a question.
    assert len(single.questions.ids) / 12_000 == pytest.approx(17.2, abs=0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"multi": 2, "permute": 1, "fullname": True},
        {"tokenizer": "gpt2"},
        {"couple": 2},
        {"celebrity_fraction": 0.25, "celebrity": AugmentationConfig(multi=2, permute=2, fullname=True)},
    ],
)
def test_saving_and_loading_gives_the_corpus_back(tiny: Tiny, tmp_path: Path, changes: dict[str, object]) -> None:
    corpus = tiny(**changes)
    corpus.save(tmp_path)
    loaded = corpora.load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert same(corpus, loaded)
    assert loaded.entry_text(7) == corpus.entry_text(7) == decoded(corpus, 7)
    assert loaded.person.tolist() == corpus.person.tolist() and loaded.eos == corpus.eos
    last = len(corpus.entries) - 1
    assert loaded.entry_text(last) == decoded(corpus, last)
    pairs = zip(loaded.people_split("celebrity"), corpus.people_split("celebrity"), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert loaded.background is None


def test_a_saved_corpus_outlives_the_users_folders(
    hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig], tmp_path: Path
) -> None:
    sizes = write_pools(tmp_path / "pools", hostile)
    shutil.copytree(templates.BUILTIN, tmp_path / "templates")
    setting = CorpusConfig(
        people=20,
        tokenizer="bpe-600",
        pools=sizes,
        pools_folder=str(tmp_path / "pools"),
        templates_folder=str(tmp_path / "templates"),
    )
    corpus = corpora.build_corpus(setting, seed=0)
    (tmp_path / "saved").mkdir()
    corpus.save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "pools")
    shutil.rmtree(tmp_path / "templates")
    assert same(corpus, corpora.load_corpus(tmp_path / "saved", setting, seed=0))


def test_pools_that_cannot_serve_the_setting_are_refused_before_anything_is_written() -> None:
    few = PoolsConfig(first_names=2, middle_names=2, last_names=2)
    with pytest.raises(WrongRequest, match=r"^corpus\.people=9: the pools give at most 8 different full names$"):
        corpora.build_corpus(CorpusConfig(people=9, pools=few), seed=0)
    with pytest.raises(WrongRequest, match=r"^corpus\.pools\.majors=101"):
        corpora.build_corpus(CorpusConfig(people=9, pools=PoolsConfig(majors=101)), seed=0)
    assert len(corpora.build_corpus(CorpusConfig(people=8, pools=few), seed=0).entries) == 8


def test_shrunk_pools_are_the_values_that_people_have(tiny: Tiny) -> None:
    full = pools.load()
    corpus = tiny()
    assert corpus.people.pools.majors == full.majors[:12]
    assert {corpus.people.value(p, "company_city") for p in range(60)} <= set(full.company_cities[:12])
