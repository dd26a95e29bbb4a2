"""Masks fall on whole words in the paper's shares, and what is learned is what they hide."""

import math
from collections.abc import Callable

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktrain.bios.tokenizer import MASK, PAD, SPECIAL, mask_id, pad_id
from ktrain.config import ATTRIBUTES, TrainConfig
from ktrain.data.corpus import Corpus
from ktrain.data.masking import RANDOM, REPLACED, SHARE, Masker, evenly_weighted, target_places
from ktrain.data.packing import Windows

Tiny = Callable[..., Corpus]


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return tiny(multi=5, permute=1)


@pytest.fixture(scope="module")
def rows(corpus: Corpus) -> np.ndarray:
    """400 windows of biographies and questions."""
    windows = Windows(corpus, "key", TrainConfig(steps=50, batch=8, context=128, warmup=0, qa_ratio=0.3), seed=0)
    return np.concatenate([windows.rows(step) for step in range(50)])


def words(corpus: Corpus, row: np.ndarray) -> list[list[int]]:
    """The places of each word of a row, from its text: a word ends where a space follows, and at the end of a text."""
    found: list[list[int]] = []
    for place, token in enumerate(row.tolist()):
        if token == corpus.eos:
            found.append([])
            continue
        if not found or corpus.tokenizer.decode([token]).startswith(" "):
            found.append([])
        found[-1].append(place)
    return [word for word in found if word]


def test_the_shares_are_the_papers() -> None:
    assert (SHARE, REPLACED, RANDOM) == (0.15, 0.8, 0.1)
    assert SPECIAL == (MASK, PAD) and (mask_id(600), pad_id(600)) == (600, 601)


def test_whole_words_are_chosen_and_no_part_of_one(corpus: Corpus, rows: np.ndarray) -> None:
    chosen = Masker(corpus.tokenizer, "key", 0).chosen(rows, 0)
    assert chosen.shape == rows.shape and chosen.dtype == bool
    assert not chosen[rows == corpus.eos].any(), "the end of a text is no word"
    counted = []
    for row, mine in zip(rows, chosen, strict=True):
        each = [mine[word] for word in words(corpus, row)]
        assert all(word.all() or not word.any() for word in each)
        counted += [bool(word[0]) for word in each]
    assert max(len(word) for row in rows[:20] for word in words(corpus, row)) > 3, "some words are several tokens"
    # Four standard deviations.
    assert np.mean(counted) == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / len(counted)) ** 0.5)


def test_words_are_chosen_independently_of_each_other(corpus: Corpus, rows: np.ndarray) -> None:
    masker = Masker(corpus.tokenizer, "key", 0)
    places = words(corpus, rows[0])
    first = [word[0] for word in places]
    drawn = np.array([masker.chosen(rows[:1], step)[0, first] for step in range(2000)])
    assert drawn.mean(axis=0) == pytest.approx(np.full(len(places), SHARE), abs=5 * (SHARE * 0.85 / 2000) ** 0.5)
    both = (drawn[:, 1:] & drawn[:, :-1]).mean()
    assert both == pytest.approx(SHARE**2, abs=5 * (SHARE**2 / (2000 * len(places))) ** 0.5)


def test_eight_in_ten_are_masked_one_is_random_and_one_stays(corpus: Corpus, rows: np.ndarray) -> None:
    masker = Masker(corpus.tokenizer, "key", 0)
    ids, chosen = masker.masked(rows, 0)
    assert ids.dtype == np.int64 and np.array_equal(ids[~chosen], rows[~chosen])
    fate, truth = ids[chosen], rows[chosen].astype(np.int64)
    count = len(fate)
    assert count > 5000
    masked, stays = fate == 600, fate == truth
    assert masked.mean() == pytest.approx(0.8, abs=5 * 0.4 / count**0.5)
    assert stays.mean() == pytest.approx(0.1 + 0.1 / 600, abs=5 * 0.3 / count**0.5)
    other = fate[~masked & ~stays]
    assert other.max() < 600 and other.min() >= 0, "a random token is one of the tokenizer's"
    assert len(np.unique(other)) > 0.5 * min(600, len(other))
    # Tokens of one word meet fates of their own.
    alone = [set(masked_of.tolist()) for masked_of in _of_words(corpus, rows[:50], chosen[:50], ids[:50] == 600)]
    assert any(len(fates) == 2 for fates in alone)


def _of_words(corpus: Corpus, rows: np.ndarray, chosen: np.ndarray, fate: np.ndarray) -> list[np.ndarray]:
    """The fates of the tokens of each chosen word."""
    return [fate[i, w] for i, row in enumerate(rows) for w in words(corpus, row) if chosen[i, w[0]]]


def test_masks_depend_on_key_seed_and_step_only(corpus: Corpus, rows: np.ndarray) -> None:
    run = Masker(corpus.tokenizer, "key", 0)
    steps = [run.masked(rows, step) for step in range(5)]
    for step in (3, 0, 4):
        again = Masker(corpus.tokenizer, "key", 0).masked(rows, step)
        assert all(np.array_equal(one, other) for one, other in zip(again, steps[step], strict=True))
    for other in (
        run.masked(rows, 5),
        Masker(corpus.tokenizer, "key", 1).masked(rows, 0),
        Masker(corpus.tokenizer, "other", 0).masked(rows, 0),
    ):
        assert not np.array_equal(other[1], steps[0][1]) and not np.array_equal(other[0], steps[0][0])


def test_the_next_row_changes_no_mask(corpus: Corpus, rows: np.ndarray) -> None:
    """Nor does what is padded behind."""
    masker = Masker(corpus.tokenizer, "key", 0)
    padded = np.pad(rows[:1], ((0, 0), (0, 9)), constant_values=corpus.eos)
    assert np.array_equal(masker.chosen(padded, 7)[0, :128], masker.chosen(rows[:1], 7)[0])


def test_weights_make_the_mean_over_ranks_the_mean_over_targets() -> None:
    chosen = np.array([[True, False, True], [False, False, True], [True, True, True], [False, True, False]])
    for ranks in (1, 2):
        weights = evenly_weighted(chosen, ranks)
        assert weights.dtype == torch.float32 and not weights[~torch.from_numpy(chosen)].any()
        assert torch.equal(weights[torch.from_numpy(chosen)].unique(), torch.tensor([ranks / 7]))
        shares = [weights[rank::ranks].sum() for rank in range(ranks)]
        assert float(sum(shares)) / ranks == pytest.approx(1.0)
    assert not evenly_weighted(np.zeros((2, 3), dtype=bool), 1).any()


@pytest.fixture(scope="module")
def windows(corpus: Corpus) -> Windows:
    """Whole biographies and questions, half of each."""
    setting = TrainConfig(steps=60, batch=8, context=192, warmup=0, qa_ratio=0.5, windows="whole")
    return Windows(corpus, "key", setting, seed=0)


def answer_runs(inside: np.ndarray) -> list[tuple[int, list[int]]]:
    """The row and the places of each run of answer tokens (n, T) bool."""
    runs = []
    for row, flags in enumerate(inside):
        places = np.flatnonzero(flags)
        runs += [(row, run.tolist()) for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(run)]
    return runs


def test_the_answers_of_a_step_are_values_of_people_asked_about(corpus: Corpus, windows: Windows) -> None:
    answers = {
        corpus.question_text(int(person), attribute)[1].strip()
        for person in np.flatnonzero(corpus.train)
        for attribute in ATTRIBUTES
    }
    rows, inside = windows.rows(0), windows.answers(0)
    assert not inside[[kind != "question" for kind in windows.kinds(0)]].any()
    found = {corpus.tokenizer.decode(rows[row, places].tolist()).strip() for row, places in answer_runs(inside)}
    # A window may cut its last answer.
    assert len(found) > 20 and len(found - answers) <= windows.batch


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_that_share_of_the_answers_is_masked_whole(corpus: Corpus, windows: Windows, share: float) -> None:
    plain, masker = (Masker(corpus.tokenizer, "key", 0, masked_answers=s) for s in (0.0, share))
    whole, total = 0, 0
    for step in range(60):
        rows, inside = windows.rows(step), windows.answers(step)
        ids, chosen = masker.masked(rows, step, inside)
        before, chosen_before = plain.masked(rows, step)
        assert np.array_equal(ids[~inside], before[~inside]) and np.array_equal(chosen[~inside], chosen_before[~inside])
        assert (chosen >= chosen_before).all()
        for row, places in answer_runs(inside):
            if (ids[row, places] == mask_id(600)).all() and chosen[row, places].all():
                # By the 15 % of words alone, a long answer is masked whole hardly ever.
                total, whole = total + (len(places) > 6), whole + (len(places) > 6)
            else:
                total += len(places) > 6
                assert np.array_equal(ids[row, places], before[row, places])
    assert total > 500 and whole / total == pytest.approx(share, abs=0.08)
    assert chosen.sum(axis=1).max() <= masker.most_targets * rows.shape[1]


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.booleans()),
)
def test_the_places_of_a_row_hold_all_its_targets_and_no_position_twice(chosen: np.ndarray) -> None:
    places = target_places(chosen, 0.45)
    room = math.ceil(0.45 * chosen.shape[1])
    assert places.shape[1] == (room if chosen.sum(axis=1).max() <= room else chosen.shape[1])
    for row, of_row in zip(chosen, places, strict=True):
        assert len(set(of_row.tolist())) == len(of_row)
        assert set(np.flatnonzero(row)) <= set(of_row.tolist())
        # The targets come first.
        assert row[of_row[: row.sum()]].all()


@pytest.mark.parametrize("share", [SHARE, 0.4])
def test_a_row_has_room_for_its_targets(corpus: Corpus, rows: np.ndarray, share: float) -> None:
    """Otherwise a second shape would be compiled in the midst of a training."""
    masker = Masker(corpus.tokenizer, "key", 0, share=share)
    targets = np.concatenate([masker.masked(rows, step)[1].sum(axis=1) for step in range(50)])
    assert targets.mean() + 5 * targets.std() <= masker.most_targets * rows.shape[1]
