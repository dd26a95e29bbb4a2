"""Answers read off one teacher-forced forward are those of token-by-token generation, end of the answer included."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig, ReadoutConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.masking import Masker
from ktrain.data.questions import QuestionRows, pad_questions
from ktrain.model.forward import LanguageModelLoss
from ktrain.model.masked_token_loss import MaskedTokenLoss
from ktrain.readout import evaluation, generated_answers

PEOPLE, VOCABULARY = 12, 600
Make = Callable[..., GPTNeoXForCausalLM]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Twelve people with one biography each; half of them may be asked about in training."""
    few = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 12)
    pools = PoolsConfig(first_names=20, middle_names=20, last_names=20, **few)
    return corpora.build_corpus(CorpusConfig(people=PEOPLE, tokenizer=f"bpe-{VOCABULARY}", pools=pools), seed=0)


def overfit(network: GPTNeoXForCausalLM, ids: np.ndarray, targets: np.ndarray, steps: int) -> GPTNeoXForCausalLM:
    """A plain loop on one batch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss, batch = LanguageModelLoss(network).train(), torch.from_numpy(ids)
    weights = torch.from_numpy(targets).float() / targets.sum()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(batch, weights).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def untrained(small: Make, corpus: Corpus) -> GPTNeoXForCausalLM:
    return small(width=64, vocabulary=VOCABULARY, context=128, eos=corpus.eos).eval()


@pytest.fixture(scope="module")
def student(small: Make, corpus: Corpus) -> GPTNeoXForCausalLM:
    """Knows the answers of the training half by heart; the others it makes up, and some come out right."""
    asked = np.flatnonzero(np.repeat(corpus.train, len(ATTRIBUTES)))
    network = small(width=64, vocabulary=VOCABULARY, context=128, eos=corpus.eos)
    return overfit(network, *pad_questions(corpus, asked, answers_only=True), steps=60)


@pytest.fixture(scope="module")
def generated(student: GPTNeoXForCausalLM, corpus: Corpus) -> list[list[int]]:
    """What the student says to each question: argmax after argmax, until EOS."""
    said = []
    for q in range(len(corpus.questions)):
        begin = int(corpus.questions.spans[q, 0, 0])
        ids, answer = corpus.questions[q][:begin].astype(int).tolist(), list[int]()
        while len(answer) < 30 and (not answer or answer[-1] != corpus.eos):
            with torch.no_grad():
                answer.append(int(student(input_ids=torch.tensor([ids + answer])).logits[0, -1].argmax()))
        said.append(answer)
    return said


def recall(network: object, corpus: Corpus) -> float:
    """Of everyone."""
    everyone = np.ones(len(corpus.people), dtype=bool)
    return evaluation.recall(network, corpus).share(everyone)  # type: ignore[arg-type]


def truth(corpus: Corpus, q: int) -> list[int]:
    return list(corpus.questions[q][corpus.questions.spans[q, 0, 0] :].astype(int).tolist())


def test_the_tests_below_see_right_and_wrong_answers(student: GPTNeoXForCausalLM, corpus: Corpus) -> None:
    answers = evaluation.answer(student, corpus)
    tested = np.repeat(~corpus.train, len(ATTRIBUTES))
    assert answers.exact[~tested].mean() > 0.5
    assert answers.exact[tested].mean() < 0.5
    assert (answers.first_token & ~answers.exact).any()
    assert not answers.first_token.all()


def test_exact_match_is_that_of_token_by_token_generation(
    student: GPTNeoXForCausalLM, corpus: Corpus, generated: list[list[int]]
) -> None:
    answers = evaluation.answer(student, corpus)
    questions = range(len(corpus.questions))
    assert answers.exact.tolist() == [generated[q] == truth(corpus, q) for q in questions]
    assert answers.first_token.tolist() == [generated[q][0] == truth(corpus, q)[0] for q in questions]
    assert answers.person.tolist() == [q // 6 for q in questions]
    assert answers.attribute.tolist() == [q % 6 for q in questions]


def test_generation_with_transformers_says_the_same(
    student: GPTNeoXForCausalLM, corpus: Corpus, generated: list[list[int]]
) -> None:
    begin = corpus.questions.spans[:, 0, 0].astype(int)
    for width in np.unique(begin):
        alike = np.flatnonzero(begin == width)
        prompts = torch.from_numpy(np.stack([corpus.questions[q][:width] for q in alike]).astype(np.int64))
        output = generated_answers.generate(student, prompts, 30, eos=corpus.eos)
        for row, q in enumerate(alike):
            said = output[row, width:].tolist()
            assert said[: len(generated[q])] == generated[q]
            assert set(said[len(generated[q]) :]) <= {corpus.eos}


def test_the_predicted_text_is_the_whole_answer_as_it_is_generated(
    student: GPTNeoXForCausalLM, corpus: Corpus, generated: list[list[int]]
) -> None:
    """Wrong answers too, which go on after their first wrong token, as long as the longest true answer."""
    answers = evaluation.answer(student, corpus)
    longest = max(len(truth(corpus, q)) for q in range(len(corpus.questions)))
    wrong_beyond_one_token = 0
    for q, predicted in enumerate(answers.predicted):
        shown = [token for token in generated[q][:longest] if token != corpus.eos]
        assert predicted == corpus.tokenizer.decode(shown)
        _, expected = corpus.question_text(q // 6, ATTRIBUTES[q % 6])
        assert (predicted == expected) == answers.exact[q]
        right = next((i for i, pair in enumerate(zip(shown, truth(corpus, q), strict=False)) if pair[0] != pair[1]), 0)
        wrong_beyond_one_token += not answers.exact[q] and len(shown) > right + 1
    assert wrong_beyond_one_token > 5


def test_nothing_is_generated_where_texts_are_not_wanted(
    student: GPTNeoXForCausalLM, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = evaluation.answer(student, corpus)
    monkeypatch.setattr(generated_answers, "generate", None)
    answers = evaluation.answer(student, corpus, texts=False)
    assert answers.predicted == [] and np.array_equal(answers.exact, wanted.exact)


def test_results_do_not_depend_on_the_rows_of_a_forward(
    student: GPTNeoXForCausalLM, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, recalled = evaluation.answer(student, corpus), evaluation.recall(student, corpus)
    monkeypatch.setattr(evaluation, "ROWS", 5)
    monkeypatch.setattr(generated_answers, "ROWS", 3)
    found = evaluation.answer(student, corpus)
    for field in dataclasses.fields(wanted):
        assert np.array_equal(getattr(found, field.name), getattr(wanted, field.name)), field.name
    again = evaluation.recall(student, corpus)
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(recalled).items())


def test_beam_answers_are_those_of_transformers_one_question_at_a_time(
    student: GPTNeoXForCausalLM, corpus: Corpus
) -> None:
    greedy, answers = evaluation.answer(student, corpus), evaluation.answer(student, corpus, beam=4)
    longest = max(len(truth(corpus, q)) for q in range(len(corpus.questions)))
    for q in range(len(corpus.questions)):
        prompt = corpus.questions[q][: corpus.questions.spans[q, 0, 0]].astype(np.int64)
        output = student.generate(
            input_ids=torch.from_numpy(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=longest,
            num_beams=4,
            do_sample=False,
            eos_token_id=corpus.eos,
            pad_token_id=corpus.eos,
        )[0, len(prompt) :].tolist()
        said = output[: output.index(corpus.eos) + 1] if corpus.eos in output else output
        assert answers.exact[q] == (said == truth(corpus, q))
        assert answers.predicted[q] == corpus.tokenizer.decode([token for token in said if token != corpus.eos])
    assert answers.exact.shape == greedy.exact.shape
    assert answers.exact.dtype == bool
    assert answers.exact.mean() > 0.3
    assert np.array_equal(answers.first_token, greedy.first_token), "a first token is greedy whatever the beam"


@pytest.mark.parametrize("beam", [1, 3])
def test_an_answer_that_does_not_end_is_wrong(student: GPTNeoXForCausalLM, corpus: Corpus, beam: int) -> None:
    """The truth goes on where the student stops: only the last token differs."""
    questions = corpus.questions
    ids = questions.ids.copy()
    ids[questions.offsets[1:] - 1] = ids[questions.offsets[1:] - 2]
    longer = dataclasses.replace(corpus, questions=dataclasses.replace(questions, ids=ids))
    wanted, found = (evaluation.answer(student, c, beam=beam) for c in (corpus, longer))
    assert wanted.exact.any()
    assert not found.exact[wanted.exact].any()
    assert np.array_equal(found.first_token, wanted.first_token)


class Parrot:
    """Stands for a network that says the true next token everywhere but at some places of the row."""

    device = torch.device("cpu")
    config = SimpleNamespace(pad_token_id=0)

    def __init__(self, wrong: set[tuple[tuple[int, ...], int]]) -> None:
        self.wrong = wrong

    def eval(self) -> None: ...

    def __call__(self, input_ids: Tensor, attention_mask: None, use_cache: bool) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, VOCABULARY)
        for row, ids in enumerate(input_ids.tolist()):
            spoilt = {place for start, place in self.wrong if tuple(ids[: len(start)]) == start}
            for place in range(len(ids) - 1):
                logits[row, place, (ids[place + 1] + (place + 1 in spoilt)) % VOCABULARY] = 1.0
        return SimpleNamespace(logits=logits)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_answer_is_right_if_and_only_if_each_of_its_tokens_is(corpus: Corpus, data: st.DataObject) -> None:
    asked = data.draw(st.sets(st.integers(0, len(corpus.questions) - 1), min_size=1))
    wrong = {q: data.draw(st.integers(0, len(truth(corpus, q)) - 1)) for q in asked}
    begin = corpus.questions.spans[:, 0, 0].astype(int)
    # The prompt is told apart by its words, which no other question has.
    spoilt = {(tuple(corpus.questions[q][: begin[q]].tolist()), int(begin[q]) + at) for q, at in wrong.items()}
    answers = evaluation.answer(Parrot(spoilt), corpus, texts=False)  # type: ignore[arg-type]
    assert set(np.flatnonzero(~answers.exact)) == asked
    assert set(np.flatnonzero(~answers.first_token)) == {q for q, at in wrong.items() if at == 0}


def test_what_is_said_to_the_prompt_itself_does_not_count(corpus: Corpus) -> None:
    begin = corpus.questions.spans[:, 0, 0].astype(int)
    spoilt = {
        (tuple(corpus.questions[q][: begin[q]].tolist()), place)
        for q in range(len(corpus.questions))
        for place in range(1, begin[q])
    }
    assert evaluation.answer(Parrot(spoilt), corpus, texts=False).exact.all()  # type: ignore[arg-type]


def test_recall_is_a_count_by_hand(student: GPTNeoXForCausalLM, corpus: Corpus) -> None:
    """Of the tokens that are part of an attribute's text, in the only entry of each person, after the EOS before it."""
    right = total = 0
    for person in range(PEOPLE):
        entry = corpus.entries[person].astype(int).tolist()
        with torch.no_grad():
            logits = student(input_ids=torch.tensor([[corpus.eos, *entry]])).logits[0]
        for attribute, (begin, end) in zip(ATTRIBUTES, corpus.entries.spans[person], strict=True):
            assert corpus.tokenizer.decode(entry[begin:end]).strip() == corpus.people.value(person, attribute)
            for place in range(begin, end):
                # The token at `place` of the entry is at `place + 1` of the row and is predicted one place before.
                right += int(logits[place].argmax()) == entry[place]
                total += 1
    assert recall(student, corpus) == right / total
    assert total == int(np.diff(corpus.entries.spans).sum())


def test_recall_sees_the_tokens_of_attributes_only(corpus: Corpus) -> None:
    entry, (begin, end) = corpus.entries[0], corpus.entries.spans[0, 2].astype(int)
    start = (corpus.eos, *entry.tolist())
    total = int(np.diff(corpus.entries.spans).sum())
    inside = {(start, int(place) + 1) for place in (begin, end - 1)}
    outside = {(start, int(place) + 1) for place in (begin - 1, end)}
    assert recall(Parrot(set()), corpus) == 1.0
    assert recall(Parrot(outside), corpus) == 1.0
    assert recall(Parrot(inside), corpus) == 1 - len(inside) / total


def test_recall_asks_for_one_entry_of_each_person(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    several = corpora.build_corpus(corpus.setting.model_copy(update={"multi": 3}), seed=0)
    asked: list[tuple[int, ...]] = []
    padded = generated_answers.pad_rows

    def spy(rows: list[np.ndarray], *others: object) -> Tensor:
        asked.extend(tuple(row.tolist()) for row in rows)
        return padded(rows, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "pad_rows", spy)
    evaluation.recall(Parrot(set()), several)  # type: ignore[arg-type]
    rows = {(several.eos, *several.entries[e].tolist()): e // 3 for e in range(len(several.entries))}
    assert sorted(rows[row] for row in asked) == list(range(PEOPLE))


def test_recall_is_near_chance_before_training_and_near_one_after(
    small: Make, untrained: GPTNeoXForCausalLM, corpus: Corpus
) -> None:
    assert recall(untrained, corpus) < 0.02
    rows = [np.concatenate([[corpus.eos], corpus.entries[e]]).astype(np.int64) for e in range(PEOPLE)]
    width = max(map(len, rows))
    ids = np.stack([np.pad(row, (0, width - len(row)), constant_values=corpus.eos) for row in rows])
    network = small(width=64, vocabulary=VOCABULARY, context=width, eos=corpus.eos)
    overfit(network, ids, np.arange(width) < np.array([[len(row)] for row in rows]), steps=120)
    assert recall(network, corpus) > 0.99


def test_some_people_are_asked_as_among_all(student: GPTNeoXForCausalLM, corpus: Corpus) -> None:
    some = np.array([1, 4, 5, 11])
    wanted, found = evaluation.answer(student, corpus), evaluation.answer(student, corpus, people=some)
    assert found.person.tolist() == [p for p in some for _ in ATTRIBUTES]
    for name in ("attribute", "exact", "first_token"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name).reshape(PEOPLE, 6)[some].ravel()), name
    assert found.predicted == [wanted.predicted[p * 6 + a] for p in some for a in range(6)]
    beam, whole = (evaluation.answer(student, corpus, beam=2, people=people) for people in (some, None))
    assert np.array_equal(beam.exact, whole.exact.reshape(PEOPLE, 6)[some].ravel())
    recalled, everyone = evaluation.recall(student, corpus, some), evaluation.recall(student, corpus)
    for name, value in vars(everyone).items():
        assert np.array_equal(getattr(recalled, name), value[some]), name


def test_recall_is_told_person_by_person(student: GPTNeoXForCausalLM, corpus: Corpus) -> None:
    found = evaluation.recall(student, corpus)
    assert found.tokens.tolist() == np.diff(corpus.entries.spans)[..., 0].tolist()
    assert not np.isnan(found.first).any() and (found.right <= found.tokens).all()
    assert ((found.right > 0) >= (found.first > 0)).all()
    group = np.arange(PEOPLE) % 3 == 0
    assert found.share(group) == found.right[group].sum() / found.tokens[group].sum()


@pytest.fixture(scope="module")
def famous(corpus: Corpus) -> Corpus:
    """Twelve people with one biography and four celebrities with three."""
    told = {"celebrity_fraction": 0.25, "celebrity": AugmentationConfig(multi=3, permute=1)}
    return corpora.build_corpus(corpus.setting.model_copy(update=told), seed=0)


def test_recall_asks_for_one_entry_of_each_celebrity_too(famous: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for the same one of everyone else as without celebrities."""
    asked: list[tuple[int, ...]] = []
    padded = generated_answers.pad_rows

    def spy(rows: list[np.ndarray], *others: object) -> Tensor:
        asked.extend(tuple(row.tolist()) for row in rows)
        return padded(rows, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "pad_rows", spy)
    found = evaluation.recall(Parrot(set()), famous)  # type: ignore[arg-type]
    rows = {(famous.eos, *famous.entries[e].tolist()): int(famous.person[e]) for e in range(len(famous.entries))}
    assert sorted(rows[row] for row in asked) == list(range(16))
    assert found.person.tolist() == list(range(16))
    chosen = {rows[row]: row for row in asked}
    for person in range(16):
        mine = np.flatnonzero(famous.person == person)
        entry = next(e for e in mine if chosen[person][1:] == tuple(famous.entries[e].tolist()))
        assert found.tokens[person].tolist() == np.diff(famous.entries.spans[entry])[:, 0].tolist()
    starts = {person: int(np.flatnonzero(famous.person == person)[0]) for person in range(12, 16)}
    nth = [next(i for i in range(3) if chosen[p][1:] == tuple(famous.entries[starts[p] + i].tolist())) for p in starts]
    assert len(set(nth)) > 1, "not always the first one"


def test_recall_of_a_group_is_that_of_its_people(famous: Corpus) -> None:
    """Everything wrong about one celebrity, and one token about one of the people under test."""
    asked = evaluation.recall(Parrot(set()), famous)  # type: ignore[arg-type]
    entries = [e for e in range(len(famous.entries)) if famous.person[e] in (13, 2)]
    wrong = set()
    for entry in entries:
        spans = famous.entries.spans[entry].astype(int)
        spoilt = [p for b, e in spans for p in range(b, e)] if famous.person[entry] == 13 else [int(spans[0, 0])]
        wrong |= {((famous.eos, *famous.entries[entry].tolist()), place + 1) for place in spoilt}
    found = evaluation.recall(Parrot(wrong), famous)  # type: ignore[arg-type]
    assert np.array_equal(found.tokens, asked.tokens)
    tokens = found.tokens.sum(axis=1)
    assert found.share(famous.celebrity) == pytest.approx(1 - tokens[13] / tokens[12:].sum())
    assert found.share(~famous.celebrity) == pytest.approx(1 - 1 / tokens[:12].sum())
    assert found.first[13].tolist() == [0.0] * 6 and found.first[2].tolist() == [0.0] + [1.0] * 5


class Filler:
    """Stands for a bidirectional network that knows every row, but for the tokens at some of its places.

    A row is told by the tokens that are not hidden; `asked` keeps what it was given.
    """

    device = torch.device("cpu")
    mask, padding = VOCABULARY, VOCABULARY + 1
    config = SimpleNamespace(is_causal=False, pad_token_id=padding, mask_token_id=mask, vocab_size=VOCABULARY + 2)

    def __init__(self, texts: list[list[int]], wrong: dict[int, set[int]]) -> None:
        self.texts, self.wrong = texts, wrong
        self.asked: list[list[int]] = []

    def eval(self) -> None: ...

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        assert torch.equal(attention_mask, (input_ids != self.padding).long())
        logits = torch.zeros(*input_ids.shape, VOCABULARY + 2)
        for row, ids in enumerate(input_ids.tolist()):
            self.asked.append([i for i in ids if i != self.padding])
            number = self.known(self.asked[-1])
            for place, token in enumerate(self.texts[number]):
                logits[row, place, (token + (place in self.wrong.get(number, ()))) % VOCABULARY] = 1.0
        return SimpleNamespace(logits=logits)

    def known(self, shown: list[int]) -> int:
        """The text of this length that agrees with all that is shown."""
        (found,) = [
            n
            for n, text in enumerate(self.texts)
            if len(text) == len(shown) and all(s in (t, self.mask) for s, t in zip(shown, text, strict=True))
        ]
        return found


def asked_of(corpus: Corpus, wrong: dict[int, set[int]] | None = None) -> Filler:
    return Filler([corpus.questions[q].astype(int).tolist() for q in range(len(corpus.questions))], wrong or {})


def test_a_bidirectional_network_fills_in_as_many_masks_as_an_answer_has_tokens(corpus: Corpus) -> None:
    """The prompt and the end are shown; knowing the answer is being right."""
    network = asked_of(corpus)
    answers = evaluation.answer(network, corpus)  # type: ignore[arg-type]
    assert answers.exact.all() and answers.first_token.all()
    assert len(network.asked) == len(corpus.questions)
    for row in network.asked:
        q = network.known(row)
        text, begin = network.texts[q], int(corpus.questions.spans[q, 0, 0])
        assert row == [*text[:begin], *[VOCABULARY] * (len(text) - begin - 1), corpus.eos]
    for q, predicted in enumerate(answers.predicted):
        assert predicted == corpus.question_text(q // 6, ATTRIBUTES[q % 6])[1]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_wrong_token_anywhere_in_an_answer_makes_it_wrong(corpus: Corpus, data: st.DataObject) -> None:
    begin = corpus.questions.spans[:, 0, 0].astype(int)
    asked = data.draw(st.sets(st.integers(0, len(corpus.questions) - 1), min_size=1))
    # All but the end, which is shown.
    at = {q: data.draw(st.integers(0, len(truth(corpus, q)) - 2)) for q in asked}
    network = asked_of(corpus, {q: {int(begin[q]) + place} for q, place in at.items()})
    answers = evaluation.answer(network, corpus)  # type: ignore[arg-type]
    assert set(np.flatnonzero(~answers.exact)) == asked
    assert set(np.flatnonzero(~answers.first_token)) == {q for q, place in at.items() if place == 0}
    for q in asked:
        said = truth(corpus, q)[:-1]
        said[at[q]] = (said[at[q]] + 1) % VOCABULARY
        assert answers.predicted[q] == corpus.tokenizer.decode(said)


def test_what_is_filled_in_where_nothing_is_hidden_does_not_count(corpus: Corpus) -> None:
    length, begin = np.diff(corpus.questions.offsets), corpus.questions.spans[:, 0, 0].astype(int)
    shown = {q: {*range(begin[q]), int(length[q]) - 1} for q in range(len(length))}
    assert evaluation.answer(asked_of(corpus, shown), corpus).exact.all()  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [128, 5])
def test_recall_of_a_bidirectional_network_is_of_the_words_that_are_masked(
    corpus: Corpus, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as in training, whole ones; wrong is what is hidden in an attribute and not known."""
    monkeypatch.setattr(evaluation, "ROWS", rows)
    texts = [[corpus.eos, *corpus.entries[e].astype(int).tolist()] for e in range(PEOPLE)]
    network = Filler(texts, {})
    found = evaluation.recall(network, corpus)  # type: ignore[arg-type]
    masker = Masker(corpus.tokenizer, "recall", corpus.seed)
    hidden = [masker.chosen(np.array([text]), person)[0] for person, text in enumerate(texts)]
    shown = {network.known(row): row for row in network.asked}
    for person, (text, mine) in enumerate(zip(texts, hidden, strict=True)):
        assert shown[person] == [VOCABULARY if h else t for t, h in zip(text, mine, strict=True)]
        for a, (begin, end) in enumerate(corpus.entries.spans[person].astype(int)):
            assert found.tokens[person, a] == mine[begin + 1 : end + 1].sum() == found.right[person, a]
            assert np.isnan(found.first[person, a]) == (not mine[begin + 1])
    everyone = np.ones(PEOPLE, dtype=bool)
    assert found.share(everyone) == 1.0 and 0.05 < found.tokens.sum() / np.diff(corpus.entries.spans).sum() < 0.3
    # One token that is hidden, and one that is not.
    person, a = (int(i) for i in np.argwhere(found.first == 1.0)[0])
    place = int(corpus.entries.spans[person, a, 0]) + 1
    open_place = int(np.flatnonzero(~hidden[person])[5])
    less = evaluation.recall(Filler(texts, {person: {place, open_place}}), corpus)  # type: ignore[arg-type]
    assert less.share(everyone) == pytest.approx(1 - 1 / found.tokens.sum()) and less.first[person, a] == 0.0


def test_a_bidirectional_network_that_learned_its_answers_gives_them(small: Make, corpus: Corpus) -> None:
    """From training rows to answers: what is filled in is compared with what was hidden."""
    rows = QuestionRows(corpus, ReadoutConfig(), "key", 0, fill=True)
    network = small(family="gbert", width=64, vocabulary=VOCABULARY, context=128, eos=corpus.eos)
    optimizer, loss = torch.optim.AdamW(network.parameters(), lr=3e-3), MaskedTokenLoss(network).train()
    ids, true, mask = (torch.from_numpy(x) for x in (rows.ids, rows.truth, rows.mask))
    for _ in range(140):
        optimizer.zero_grad()
        loss(ids, true, mask.float() / mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    answers = evaluation.answer(network, corpus)
    with torch.no_grad():
        said = network(input_ids=ids, attention_mask=(ids != VOCABULARY + 1).long()).logits.argmax(-1)
    right = torch.where(mask, said == true, True).all(dim=1).numpy()
    assert np.array_equal(answers.exact[np.repeat(corpus.train, 6)], right)
    assert right.mean() > 0.5 > answers.exact[np.repeat(~corpus.train, 6)].mean()
    # One token for each mask, of which the largest answer has the most, and none of those that pad.
    masks = int(np.diff(corpus.questions.spans[:, 0]).max()) + 1
    longest = max(len(corpus.tokenizer.decode([token])) for token in range(VOCABULARY))
    assert max(map(len, answers.predicted)) <= masks * longest
    assert not any("|>" in text for text in answers.predicted)
