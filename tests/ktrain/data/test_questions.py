from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ktrain.config import ATTRIBUTES, AugmentationConfig, ReadoutConfig
from ktrain.data.corpus import Corpus, load_corpus
from ktrain.data.questions import MULTIPLE, QuestionRows, pad_questions
from ktrain.errors import WrongRequest

Tiny = Callable[..., Corpus]


def made(corpus: Corpus, key: str = "key", seed: int = 0, fill: bool = False, **changes: object) -> QuestionRows:
    return QuestionRows(corpus, ReadoutConfig(**{"batch": 20} | changes), key, seed, fill=fill)


def asked(corpus: Corpus) -> list[tuple[int, str]]:
    """Person and attribute of each question of the train half."""
    return [(int(p), a) for p in np.flatnonzero(corpus.train) for a in ATTRIBUTES]


@pytest.mark.parametrize("loss", ["answer", "all"])
@pytest.mark.parametrize("tokenizer", ["bpe-600", "gpt2"])
def test_a_row_is_one_question_whose_targets_are_its_answer_or_all_of_it(tiny: Tiny, tokenizer: str, loss: str) -> None:
    corpus = tiny(tokenizer=tokenizer)
    rows = made(corpus, loss=loss)
    assert len(rows.ids) == len(rows.mask) == 180
    for row, (person, attribute) in enumerate(asked(corpus)):
        prompt, answer = corpus.question_text(person, attribute)
        said = corpus.tokenizer.encode(prompt).ids
        expected = [*corpus.tokenizer.encode(answer).ids, corpus.eos]
        question, padding = np.split(rows.ids[row], [len(said) + len(expected)])
        assert question.tolist() == said + expected
        assert (padding == corpus.eos).all()
        first = 1 if loss == "all" else len(said)
        assert np.flatnonzero(rows.mask[row]).tolist() == list(range(first, len(question)))


def test_rows_are_no_wider_than_the_longest_question_rounded_up(tiny: Tiny) -> None:
    corpus = tiny()
    length = np.diff(corpus.questions.offsets)
    order = np.argsort(length)
    for questions in (order[:5], order[-5:], order):
        ids, mask = pad_questions(corpus, questions, answers_only=True)
        longest = int(length[questions].max())
        assert ids.shape == mask.shape == (len(questions), ids.shape[1])
        assert ids.shape[1] % MULTIPLE == 0 and 0 <= ids.shape[1] - longest < MULTIPLE
        assert ids.dtype == np.int64 and mask.dtype == bool


def test_only_the_train_half_is_trained_on(tiny: Tiny) -> None:
    corpus = tiny(question_share=0.25)
    rows = made(corpus)
    assert rows.persons.tolist() == [p for p in np.flatnonzero(corpus.train) for _ in ATTRIBUTES]
    others = {
        tuple(corpus.questions[p * 6 + a].tolist()) for p in np.flatnonzero(~corpus.train).tolist() for a in range(6)
    }
    assert not others & {tuple(row[: np.flatnonzero(m)[-1] + 1]) for row, m in zip(rows.ids, rows.mask, strict=True)}


def test_a_batch_is_rows_and_their_masks_as_tensors(tiny: Tiny) -> None:
    rows = made(tiny(), batch=7)
    ids, truth, mask = rows.batch(3)
    assert ids.shape == mask.shape == (7, rows.ids.shape[1])
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert torch.equal(truth, ids), "nothing is hidden from a network that continues"
    masks = {row.tobytes(): m for row, m in zip(rows.ids, rows.mask, strict=True)}
    for row, m in zip(ids.numpy(), mask.numpy(), strict=True):
        assert np.array_equal(masks[row.tobytes()], m)


def test_every_epoch_asks_every_question_once_in_another_order(tiny: Tiny) -> None:
    rows = made(tiny())
    epochs = [
        [row.tobytes() for step in range(e * 9, e * 9 + 9) for row in rows.batch(step)[0].numpy()] for e in range(3)
    ]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(epochs[2]) == Counter(row.tobytes() for row in rows.ids)
    assert epochs[0] != epochs[1] and epochs[1] != epochs[2]


def test_batches_cross_epochs_where_the_batch_does_not_divide_the_questions(tiny: Tiny) -> None:
    rows = made(tiny(), batch=50)
    stream = [row.tobytes() for step in range(18) for row in rows.batch(step)[0].numpy()]
    whole = Counter(row.tobytes() for row in rows.ids)
    assert len(stream) == 900
    assert [Counter(stream[i : i + 180]) for i in range(0, 900, 180)] == [whole] * 5


def test_a_step_depends_on_key_seed_and_step_only(tiny: Tiny) -> None:
    corpus = tiny()
    run = made(corpus)
    steps = [run.batch(step)[0] for step in range(40)]
    other = made(corpus)
    for step in (39, 0, 17, 38, 3):
        assert torch.equal(other.batch(step)[0], steps[step])
    assert not torch.equal(made(corpus, seed=1).batch(0)[0], steps[0])
    assert not torch.equal(made(corpus, key="other").batch(0)[0], steps[0])


def test_finetuning_on_nobody_is_refused(tiny: Tiny) -> None:
    with pytest.raises(WrongRequest, match=r"^corpus\.question_share=0\.0: no question to finetune on$"):
        made(tiny(question_share=0.0))


@pytest.mark.parametrize("tokenizer", ["bpe-600", "gpt2"])
def test_a_row_to_fill_in_has_as_many_masks_as_its_answer_has_tokens(tiny: Tiny, tokenizer: str) -> None:
    """The prompt and the end are shown, and what follows is padding that is not read."""
    corpus = tiny(tokenizer=tokenizer)
    rows, plain = made(corpus, fill=True), made(corpus)
    vocabulary = corpus.tokenizer.get_vocab_size()
    assert len(rows.ids) == 180 and np.array_equal(rows.truth, plain.ids)
    for row, (person, attribute) in enumerate(asked(corpus)):
        prompt, answer = (corpus.tokenizer.encode(text).ids for text in corpus.question_text(person, attribute))
        shown = [*prompt, *[vocabulary] * len(answer), corpus.eos]
        padding = [vocabulary + 1] * (rows.ids.shape[1] - len(shown))
        assert rows.ids[row].tolist() == shown + padding
        assert np.flatnonzero(rows.mask[row]).tolist() == list(range(len(prompt), len(prompt) + len(answer)))
        assert rows.truth[row][rows.mask[row]].tolist() == answer
    assert rows.fill and not rows.all_tokens and not plain.fill


def test_a_batch_to_fill_in_goes_together(tiny: Tiny) -> None:
    rows = made(tiny(), fill=True, batch=7)
    ids, truth, mask = rows.batch(3)
    known = {t.tobytes(): (i, m) for i, t, m in zip(rows.ids, rows.truth, rows.mask, strict=True)}
    for i, t, m in zip(ids.numpy(), truth.numpy(), mask.numpy(), strict=True):
        assert np.array_equal(known[t.tobytes()][0], i) and np.array_equal(known[t.tobytes()][1], m)
    # The order is that of a network that continues.
    assert torch.equal(made(tiny(), batch=7).batch(3)[0], truth)


@pytest.mark.parametrize("fill", [False, True])
def test_a_fleet_reads_the_same_targets(tiny: Tiny, fill: bool) -> None:
    """A token is predicted from the one before it, or where it stands."""
    rows = made(tiny(), fill=fill, batch=9)
    ids, truth, mask = rows.batch(2)
    read, places, targets, weights = rows.targets(2)
    assert torch.equal(read, ids) and weights.sum() == pytest.approx(1.0)
    for row in range(9):
        wanted = [(p - (not fill), int(truth[row, p])) for p in mask[row].nonzero().flatten().tolist()]
        used = weights[row] > 0
        assert list(zip(places[row][used].tolist(), targets[row][used].tolist(), strict=True)) == wanted
        assert len(weights[row][used].unique()) == 1
    assert weights[weights > 0].unique().tolist() == pytest.approx([1 / int(mask.sum())])


def test_all_celebrities_are_trained_on_and_nobody_under_test(tiny: Tiny) -> None:
    corpus = tiny(celebrity_fraction=0.25, celebrity=AugmentationConfig(multi=2))
    rows = made(corpus, people="celebrity")
    assert rows.persons.tolist() == [p for p in range(60, 80) for _ in ATTRIBUTES]
    assert made(corpus).persons.tolist() == [p for p in np.flatnonzero(corpus.train) for _ in ATTRIBUTES]
    for row, question in zip(rows.ids, range(60 * 6, 80 * 6), strict=True):
        mine = corpus.questions[question]
        assert row[: len(mine)].tolist() == mine.tolist()


@pytest.mark.parametrize("unseen", [False, True])
def test_every_wording_is_trained_on_and_one_is_asked(tiny: Tiny, unseen: bool) -> None:
    corpus = tiny(question_wordings=3, question_unseen=unseen)
    people, six = len(corpus.people), len(ATTRIBUTES)
    assert len(corpus.questions) == (3 + unseen) * people * six
    for question in range(len(corpus.questions)):
        person, attribute, wording = corpus.locate_question(question)
        text = "".join(corpus.question_text(person, attribute, wording))
        assert corpus.tokenizer.decode(corpus.questions[question].tolist()) == text
    rows = made(corpus)
    trained = {corpus.tokenizer.decode(row[row != corpus.eos].tolist()) for row in rows.ids}
    assert trained == {
        "".join(corpus.question_text(person, attribute, wording))
        for person, attribute in asked(corpus)
        for wording in range(3)
    }
    assert sorted(set(rows.persons.tolist())) == np.flatnonzero(corpus.train).tolist()
    chosen = np.array([0, 7])
    prompts = [corpus.locate_question(question) for question in corpus.asked_questions(chosen)]
    assert prompts == [(person, attribute, 3 if unseen else 0) for person in (0, 7) for attribute in ATTRIBUTES]
    assert corpus.person_asked(corpus.asked_questions(chosen)).tolist() == [0] * six + [7] * six
    assert corpus.question_text(0, "major") == corpus.question_text(0, "major", 3 if unseen else 0)


def test_more_wordings_leave_everything_else_as_it_was(tiny: Tiny) -> None:
    one, three = tiny(), tiny(question_wordings=3, question_unseen=True)
    assert one.tokenizer.to_str() == three.tokenizer.to_str()
    assert np.array_equal(one.entries.ids, three.entries.ids) and np.array_equal(one.train, three.train)
    assert np.array_equal(one.questions.ids, three.questions.ids[: len(one.questions.ids)])


def test_a_stored_corpus_gets_the_questions_of_its_reader(tiny: Tiny, tmp_path: Path) -> None:
    plain, worded = tiny(), tiny(question_wordings=2, question_unseen=True)
    plain.save(tmp_path)
    loaded = load_corpus(tmp_path, worded.setting, plain.seed)
    assert loaded.wordings == worded.wordings and loaded.setting == worded.setting
    for name in ("ids", "offsets", "spans"):
        assert np.array_equal(getattr(loaded.questions, name), getattr(worded.questions, name))
    assert load_corpus(tmp_path, plain.setting, plain.seed).wordings == plain.wordings
