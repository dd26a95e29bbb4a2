from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain.bios.fragment_encoder import TokenizedTexts
from ktrain.config import AugmentationConfig, TrainConfig
from ktrain.data.corpus import Corpus
from ktrain.data.packing import PackedStream, Windows
from ktrain.errors import WrongRequest

Tiny = Callable[..., Corpus]
Text = tuple[int, ...]


def made(corpus: Corpus, key: str = "key", seed: int = 0, **changes: Any) -> Windows:
    train = TrainConfig.model_validate({"steps": 12, "batch": 8, "context": 64, "warmup": 0} | changes)
    return Windows(corpus, key, train, seed)


def texts(corpus: Corpus, composed: TokenizedTexts, chosen: Iterable[int] | None = None) -> Counter[Text]:
    return Counter(tuple(composed[i].tolist()) for i in (range(len(composed)) if chosen is None else chosen))


def pieces(stream: np.ndarray, eos: int) -> list[Text]:
    """A stream of tokens cut after every EOS; the last piece may be cut short."""
    return [tuple(p.tolist()) for p in np.split(stream, np.flatnonzero(stream == eos) + 1) if len(p)]


def epoch(stream: PackedStream, number: int) -> np.ndarray:
    first = sum(stream.count(earlier) for earlier in range(number))
    return np.concatenate([stream.window(first + i) for i in range(stream.count(number))])


def asks(windows: Windows, step: int) -> np.ndarray:
    """Which rows of a step hold questions, (batch,) bool."""
    return np.array(windows.kinds(step)) == "question"


def told(windows: Windows, steps: range, *, questions: bool) -> np.ndarray:
    """The rows of one kind, in the order in which they come."""
    return np.concatenate([windows.rows(step)[asks(windows, step) == questions] for step in steps])


BOTH = pytest.mark.parametrize("how", [{}, {"windows": "whole", "context": 192}], ids=["cut", "whole"])


@BOTH
@pytest.mark.parametrize("qa_ratio", [0.0, 0.5])
def test_any_step_gives_what_a_run_from_the_start_gives(tiny: Tiny, qa_ratio: float, how: dict[str, Any]) -> None:
    corpus = tiny(multi=2, permute=1)
    # 240 steps are several epochs, and the cache of epochs holds two.
    run = [made(corpus, steps=240, qa_ratio=qa_ratio, **how).rows(step) for step in range(240)]
    other = made(corpus, steps=240, qa_ratio=qa_ratio, **how)
    assert other.streams["biography"].count(0) * 3 < 240 * 8 * (1 - qa_ratio)
    for step in np.random.default_rng(0).permutation(240)[:60]:
        assert np.array_equal(other.rows(int(step)), run[step])
        assert np.array_equal(made(corpus, steps=240, qa_ratio=qa_ratio, **how).rows(int(step)), run[step])


@BOTH
def test_a_longer_run_begins_like_a_shorter_one(tiny: Tiny, how: dict[str, Any]) -> None:
    short, long = (made(tiny(), steps=steps, qa_ratio=0.5, **how) for steps in (10, 40))
    for step in range(10):
        assert np.array_equal(short.rows(step), long.rows(step))


@pytest.mark.parametrize("change", [{"key": "other"}, {"seed": 1}])
def test_key_and_seed_change_the_rows_and_which_of_them_ask(tiny: Tiny, change: dict[str, object]) -> None:
    first = made(tiny(), qa_ratio=0.5)
    other = made(tiny(), qa_ratio=0.5, **change)  # type: ignore[arg-type]
    assert np.array_equal(first.rows(0), made(tiny(), qa_ratio=0.5).rows(0))
    assert not np.array_equal(first.rows(0), other.rows(0))
    assert any(first.kinds(s) != other.kinds(s) for s in range(12))
    assert not np.array_equal(first.streams["question"].order(0), other.streams["question"].order(0))


def test_rows_are_windows_of_the_context_in_a_batch(tiny: Tiny) -> None:
    rows = made(tiny(), batch=6, context=48).rows(3)
    assert rows.shape == (6, 48) and rows.dtype == np.uint16


CELEBRITIES = {"permute": 1, "celebrity_fraction": 0.5, "celebrity": AugmentationConfig(multi=5, permute=1)}
"""The paper's main setting: one entry for each of the people under test, five for each celebrity."""


@pytest.mark.parametrize("setting", [{}, {"multi": 5, "permute": 1}, {"permute": 5, "fullname": True}, CELEBRITIES])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_epoch_holds_every_text_once_up_to_the_dropped_remainder(
    tiny: Tiny, setting: dict[str, object], number: int
) -> None:
    corpus = tiny(**setting)
    stream = made(corpus).streams["biography"]
    read = epoch(stream, number)
    total = len(corpus.entries.ids)
    assert len(read) == stream.count(number) * 64 and 0 <= total - len(read) < 64
    *whole, last = pieces(read, corpus.eos)
    every = texts(corpus, corpus.entries)
    assert not Counter(whole) - every
    missing = every - Counter(whole)
    assert any(text[: len(last)] == last for text in missing)
    assert sum(len(text) * n for text, n in missing.items()) == total - len(read) + len(last)


@pytest.mark.parametrize("number", [0, 3])
def test_every_entry_of_every_celebrity_is_read_in_one_epoch(tiny: Tiny, number: int) -> None:
    """A miniature elsewhere drew only the first entry of each."""
    corpus = tiny(**CELEBRITIES)
    stream = made(corpus).streams["biography"]
    assert np.array_equal(np.sort(stream.chosen[stream.order(number)]), np.arange(360))
    # By the words that are read: what stands in no window of the epoch is the end that was dropped.
    read = Counter(pieces(epoch(stream, number), corpus.eos))
    found = np.array([read[tuple(corpus.entries[e].tolist())] for e in range(360)])
    assert found.max() == 1 and (found == 0).sum() <= 1
    owners = np.bincount(corpus.person[found > 0], minlength=120)
    assert owners[:60].sum() >= 59 and owners[60:].sum() >= 299


def test_entries_are_sampled_uniformly_and_not_people(tiny: Tiny) -> None:
    """One entry against five: the people under test are a sixth of what is read, anywhere in an epoch."""
    corpus = tiny(**CELEBRITIES)
    stream = made(corpus).streams["biography"]
    famous = np.array([corpus.celebrity[corpus.person[stream.order(number)]] for number in range(40)])
    assert (famous.mean(axis=1) == 5 / 6).all()
    # At each tenth of an epoch, over 40 epochs: four standard deviations of 1440 draws.
    shares = famous.reshape(40, 10, 36).mean(axis=(0, 2))
    assert np.abs(shares - 5 / 6).max() < 4 * (5 / 36 / 1440) ** 0.5


def test_questions_of_celebrities_are_never_mixed_in(tiny: Tiny) -> None:
    corpus = tiny(**CELEBRITIES)
    stream = made(corpus, qa_ratio=0.5).streams["question"]
    assert sorted({int(q) // 6 for q in stream.chosen}) == np.flatnonzero(corpus.train).tolist()


def test_epochs_differ_in_order_and_in_where_they_cut(tiny: Tiny) -> None:
    corpus = tiny(multi=5)
    stream = made(corpus).streams["biography"]
    orders = [stream.order(number) for number in range(4)]
    assert all((np.sort(order) == np.arange(300)).all() for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
    cuts = [
        set(zip(*np.nonzero(epoch(stream, number).reshape(-1, 64) == corpus.eos), strict=True)) for number in range(4)
    ]
    assert len(cuts[0] & cuts[1]) < 0.2 * len(cuts[0])
    # Not one order turned round or shifted: neighbours of epoch 0 are apart in epoch 1.
    place = np.argsort(orders[1])
    assert (np.abs(np.diff(place[orders[0]])) == 1).mean() < 0.05


def test_windows_straddle(tiny: Tiny) -> None:
    """Entries of about 110 tokens in windows of 64: most windows begin in the middle of an entry."""
    corpus = tiny(multi=5)
    stream = made(corpus).streams["biography"]
    ends = epoch(stream, 0).reshape(-1, 64)[:-1, -1]
    assert 0 < (ends == corpus.eos).mean() < 0.1
    starts = {tuple(corpus.entries[e][:8].tolist()) for e in range(len(corpus.entries))}
    first = [tuple(window[:8].tolist()) in starts for window in epoch(stream, 0).reshape(-1, 64)]
    assert first[0] and np.mean(first) < 0.1


def test_without_mixing_every_row_is_biography(tiny: Tiny) -> None:
    corpus = tiny()
    windows = made(corpus, steps=30)
    assert set(windows.streams) == {"biography"}
    assert all(windows.kinds(step) == ["biography"] * 8 for step in range(30))
    rows = np.concatenate([windows.rows(step) for step in range(30)])
    assert np.array_equal(rows, np.stack([windows.streams["biography"].window(i) for i in range(240)]))


@pytest.mark.parametrize("qa_ratio", [0.2, 0.8])
def test_rows_are_all_biography_or_all_questions_and_each_stream_is_read_through(tiny: Tiny, qa_ratio: float) -> None:
    corpus = tiny(multi=2)
    windows = made(corpus, steps=60, qa_ratio=qa_ratio)
    asked, read = (told(windows, range(60), questions=q) for q in (True, False))
    assert len(asked) + len(read) == 480
    for rows, stream, composed in (
        (asked, windows.streams["question"], corpus.questions),
        (read, windows.streams["biography"], corpus.entries),
    ):
        assert np.array_equal(rows, np.stack([stream.window(i) for i in range(len(rows))]))
        one = rows[: stream.count(0)].reshape(-1)
        assert not Counter(pieces(one, corpus.eos)[:-1]) - texts(corpus, composed)


@pytest.mark.parametrize("qa_ratio", [0.1, 0.5, 0.8])
def test_the_share_of_question_rows_is_the_ratio_asked_for(tiny: Tiny, qa_ratio: float) -> None:
    windows = made(tiny(), steps=1000, batch=16, qa_ratio=qa_ratio)
    drawn = np.stack([asks(windows, step) for step in range(1000)])
    assert drawn.shape == (1000, 16)
    assert drawn.mean() == pytest.approx(qa_ratio, abs=4 * (qa_ratio * (1 - qa_ratio) / 16_000) ** 0.5)
    # Kinds are drawn row by row, not step by step.
    assert drawn.mean(axis=1).var() == pytest.approx(qa_ratio * (1 - qa_ratio) / 16, rel=0.2)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_only_questions_of_the_train_half_ever_appear(tiny: Tiny, share: float) -> None:
    corpus = tiny(question_share=share)
    stream = made(corpus, qa_ratio=0.5).streams["question"]
    mine = [p * 6 + a for p in np.flatnonzero(corpus.train).tolist() for a in range(6)]
    assert sorted(stream.chosen.tolist()) == mine
    ever: Counter[Text] = Counter()
    for number in range(4):
        *whole, last = pieces(epoch(stream, number), corpus.eos)
        assert not Counter(whole) - texts(corpus, corpus.questions, mine)
        assert any(text[: len(last)] == last for text in texts(corpus, corpus.questions, mine))
        ever |= Counter(whole)
    assert ever == texts(corpus, corpus.questions, mine)


def test_biographies_of_both_halves_appear(tiny: Tiny) -> None:
    stream = made(tiny(), qa_ratio=0.5).streams["biography"]
    assert np.array_equal(stream.chosen, np.arange(60))


def test_a_corpus_shorter_than_a_window_is_refused(tiny: Tiny) -> None:
    corpus = tiny(people=4)
    total = len(corpus.entries.ids)
    assert made(corpus, context=total).rows(0).shape == (8, total)
    with pytest.raises(WrongRequest, match=rf"^train\.context={total + 1}: all biography texts .* {total} tokens$"):
        made(corpus, context=total + 1)
    asked = int(np.diff(corpus.questions.offsets)[np.repeat(corpus.train, 6)].sum())
    assert asked < total
    with pytest.raises(WrongRequest, match=rf"^train\.context={asked + 1}: all question texts .* {asked} tokens$"):
        made(corpus, context=asked + 1, qa_ratio=0.5)


def test_mixing_without_any_question_is_refused(tiny: Tiny) -> None:
    with pytest.raises(WrongRequest, match=r"^train\.qa_ratio=0\.5: corpus\.question_share leaves no question$"):
        made(tiny(question_share=0.0), qa_ratio=0.5)


def stream_of(lengths: list[int], context: int, seed: int, chosen: np.ndarray, *, whole: bool) -> PackedStream:
    """Texts of these lengths; no two tokens are alike, as far as 16 bits go, and each text ends in 0."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(1, offsets[-1] + 1).astype(np.uint16)
    ids[offsets[1:] - 1] = 0
    composed = TokenizedTexts(ids, offsets, np.zeros((len(lengths), 1, 2), np.int16))
    return PackedStream("biography", composed, chosen, context, "key", seed, whole=whole)


def slow_windows(stream: PackedStream, lengths: list[int], number: int) -> list[list[tuple[int, int]]]:
    """The windows of an epoch, each as the text (of all) and the place in it of each token."""
    order = [int(stream.chosen[place]) for place in stream.order(number)]
    read = [(text, i) for text in order for i in range(lengths[text])]
    context = stream.context
    if not stream.whole:
        return [read[i : i + context] for i in range(0, len(read) - context + 1, context)]
    windows, begin = [], 0
    while begin < len(read):
        windows.append((read + read)[begin : begin + context])
        # Back to where the text begins that is cut; nowhere if none is.
        begin += context
        while begin < len(read) and read[begin][1] != 0:
            begin -= 1
    return windows


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)


@settings(max_examples=120, deadline=None)
@given(LENGTHS, st.integers(16, 64), st.integers(0, 99), st.booleans(), st.data())
def test_windows_are_those_of_a_slow_walk_through_the_texts(
    lengths: list[int], context: int, seed: int, whole: bool, data: st.DataObject
) -> None:
    lengths = [min(length, context) for length in lengths] + [64 if not whole else context]
    chosen = np.array(data.draw(st.permutations(range(len(lengths)))))[: data.draw(st.integers(1, len(lengths)))]
    chosen = np.unique([*chosen, len(lengths) - 1])
    owner = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths))))
    stream = stream_of(lengths, context, seed, chosen, whole=whole)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    index = 0
    for number in range(3):
        windows = slow_windows(stream, lengths, number)
        assert stream.count(number) == len(windows)
        for place, window in enumerate(windows):
            assert stream.locate(index) == (number, place)
            ids = [0 if i == lengths[text] - 1 else offsets[text] + i + 1 for text, i in window]
            assert stream.window(index).tolist() == ids
            index += 1
        parts = stream.parts(number)
        pieces = zip(parts.window, chosen[parts.text], parts.begin, parts.end, strict=True)
        assert [(w, t, i) for w, t, begin, end in pieces for i in range(begin, end)] == [
            (w, t, i) for w, window in enumerate(windows) for t, i in window
        ]
        pairs = [(a, b) for w in windows for a in {t for t, _ in w} for b in {t for t, _ in w} if a < b]
        assert stream.count_shared_windows(owner, number) == (sum(owner[a] == owner[b] for a, b in pairs), len(pairs))


@settings(max_examples=120, deadline=None)
@given(st.lists(st.integers(2, 40), max_size=40), st.integers(40, 64), st.integers(0, 99))
def test_whole_windows_hold_every_text_whole_in_every_epoch_and_begin_with_one(
    lengths: list[int], context: int, seed: int
) -> None:
    lengths = [*lengths, 24, 40]
    stream = stream_of(lengths, context, seed, np.arange(len(lengths)), whole=True)
    texts = {tuple(stream._ids[a:b].tolist()) for a, b in zip(stream._begin, stream._begin + lengths, strict=True)}
    firsts = {text[0] for text in texts}
    for number in range(4):
        windows = [stream.epoch(number)[place] for place in range(stream.count(number))]
        assert all(len(window) == context and window[0] in firsts for window in windows)
        held = {piece for window in windows for piece in pieces(window, 0)}
        assert texts <= held
        # No more windows than that takes: the last one begins with a text that no other holds whole.
        before = {piece for window in windows[:-1] for piece in pieces(window, 0)}
        assert not texts <= before


def test_texts_of_a_length_that_divides_the_window_are_never_cut() -> None:
    stream = stream_of([16] * 12, 48, 0, np.arange(12), whole=True)
    assert stream.count(0) == 4 and (stream.epoch(0)[:, 15::16] == 0).all()
    assert Counter(stream.parts(0).text.tolist()) == Counter(range(12))


def test_whole_windows_are_for_biographies_and_questions_and_not_for_background(tiny: Tiny, tmp_path: Path) -> None:
    """Which may be longer than any window."""
    (tmp_path / "long.txt").write_text("Words and words. " * 400)
    windows = made(tiny(background=str(tmp_path)), qa_ratio=0.5, windows="whole", context=192)
    assert {kind: stream.whole for kind, stream in windows.streams.items()} == {
        "biography": True, "question": True, "background": False,
    }  # fmt: skip


def test_a_text_that_no_window_holds_is_refused(tiny: Tiny) -> None:
    corpus = tiny()
    longest = int(np.diff(corpus.entries.offsets).max())
    made(corpus, windows="whole", context=longest)
    made(corpus, windows="cut", context=longest - 1)
    wanted = rf"^train\.windows=whole: the longest biography has {longest} tokens, train\.context={longest - 1}; "
    with pytest.raises(WrongRequest, match=wanted):
        made(corpus, windows="whole", context=longest - 1)
    asked = int(np.diff(corpus.questions.offsets)[np.repeat(corpus.train, 6)].max())
    short = replace(corpus, entries=replace(corpus.entries, offsets=np.arange(0, len(corpus.entries.ids), 16)))
    with pytest.raises(WrongRequest, match=rf"the longest question has {asked} tokens, train\.context=16; "):
        made(short, windows="whole", context=16, qa_ratio=0.5)
