"""Packed rows against a slow oracle that packs one question after the other."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain.config import AugmentationConfig, ReadoutConfig
from ktrain.data.corpus import Corpus
from ktrain.data.questions import QuestionRows
from ktrain.errors import WrongRequest
from ktrain.rng import generator

Tiny = Callable[..., Corpus]
CONTEXT = 64
Row = list[tuple[int, int, bool]]
"""Input, true token and whether it is a target."""


def made(corpus: Corpus, fill: bool = False, context: int = CONTEXT, seed: int = 0, **changes: object) -> QuestionRows:
    readout = ReadoutConfig.model_validate({"batch": 5, "packed": True} | changes)
    return QuestionRows(corpus, readout, "key", seed, context=context, fill=fill)


def oracle(corpus: Corpus, context: int, seed: int, *, fill: bool, everything: bool) -> Iterator[Row]:
    """Packs question after question, pass after pass, from the corpus and its texts alone."""
    vocabulary, eos = corpus.tokenizer.get_vocab_size(), corpus.eos
    chosen, number = np.flatnonzero(np.repeat(corpus.train, 6)), 0
    padding = (vocabulary + 1 if fill else eos, eos, False)
    while True:
        row: Row = []
        for place in generator(seed, "order", "key", "question", number).permutation(len(chosen)):
            truth = corpus.questions[chosen[place]].tolist()
            begin = int(corpus.questions.spans[chosen[place], 0, 0])
            if fill:
                hidden = range(begin, len(truth) - 1)
                question = [(vocabulary if i in hidden else t, t, i in hidden) for i, t in enumerate(truth)]
            else:
                question = [(t, t, i >= (1 if everything else begin)) for i, t in enumerate(truth)]
            if len(row) + len(question) > context:
                yield row + [padding] * (context - len(row))
                row = []
            row += question
        yield row + [padding] * (context - len(row))
        number += 1


@pytest.mark.parametrize(("fill", "loss"), [(False, "answer"), (False, "all"), (True, "answer")])
@settings(deadline=None, max_examples=12)
@given(context=st.integers(28, 200), batch=st.integers(1, 40), seed=st.integers(0, 3), steps=st.integers(1, 12))
def test_rows_are_those_of_the_oracle(
    tiny: Tiny, fill: bool, loss: str, context: int, batch: int, seed: int, steps: int
) -> None:
    corpus = tiny()
    rows = made(corpus, fill, context, seed, batch=batch, loss=loss)
    expected = list(islice(oracle(corpus, context, seed, fill=fill, everything=loss == "all"), batch * steps))
    parts = [rows.batch(step) for step in range(steps)]
    ids, truth, mask = (torch.cat(column) for column in zip(*parts, strict=True))
    assert (ids.dtype, truth.dtype, mask.dtype) == (torch.int64, torch.int64, torch.bool)
    assert rows.width == ids.shape[1] == context
    for row, lists in zip(expected, zip(ids.tolist(), truth.tolist(), mask.tolist(), strict=True), strict=True):
        assert list(zip(*lists, strict=True)) == row


def test_a_pass_has_every_question_once_and_whole_in_another_order_each_time(tiny: Tiny) -> None:
    corpus = tiny()
    rows = made(corpus, batch=1)
    trained = np.flatnonzero(np.repeat(corpus.train, 6))
    whole = Counter(corpus.questions[question].tobytes() for question in trained.tolist())
    orders, step = [], 0
    for _ in range(3):
        read: list[bytes] = []
        while len(read) < len(trained):
            ids = rows.batch(step)[0][0].numpy().astype(np.uint16)
            ends = np.flatnonzero(ids == corpus.eos)
            texts = [ids[begin:end] for begin, end in zip([0, *(ends[:-1] + 1)], ends + 1, strict=True)]
            read += [text.tobytes() for text in texts if len(text) > 1]
            step += 1
        assert Counter(read) == whole
        orders.append(read)
    assert orders[0] != orders[1] != orders[2]


def test_a_step_depends_on_key_seed_and_step_only(tiny: Tiny) -> None:
    corpus = tiny()
    steps = [made(corpus).batch(step)[0] for step in range(30)]
    other = made(corpus)
    for step in (29, 0, 17, 28, 3):
        assert torch.equal(other.batch(step)[0], steps[step])
    assert not torch.equal(made(corpus, seed=1).batch(0)[0], steps[0])


@pytest.mark.parametrize("fill", [False, True])
def test_a_fleet_reads_the_same_targets_at_one_shape(tiny: Tiny, fill: bool) -> None:
    rows, shapes = made(tiny(), fill, batch=9), set()
    for step in range(6):
        ids, truth, mask = rows.batch(step)
        read, places, targets, weights = rows.targets(step)
        shapes.add(tuple(places.shape))
        assert torch.equal(read, ids) and weights.sum() == pytest.approx(1.0)
        for row in range(9):
            wanted = [(p - (not fill), int(truth[row, p])) for p in mask[row].nonzero().flatten().tolist()]
            used = weights[row] > 0
            assert list(zip(places[row][used].tolist(), targets[row][used].tolist(), strict=True)) == wanted
    assert len(shapes) == 1


def test_all_celebrities_are_packed_and_nobody_under_test(tiny: Tiny) -> None:
    corpus = tiny(celebrity_fraction=0.25, celebrity=AugmentationConfig(multi=2))
    rows = made(corpus, people="celebrity", batch=1, context=128)
    passed = np.concatenate([rows.batch(step)[0][0].numpy() for step in range(80)]).astype(np.uint16)
    read = {text.tobytes() for text in np.split(passed, np.flatnonzero(passed == corpus.eos) + 1)}
    celebrities = {corpus.questions[question].tobytes() for question in range(60 * 6, 80 * 6)}
    others = {corpus.questions[question].tobytes() for question in range(60 * 6)}
    assert celebrities <= read and not others & read


@pytest.mark.parametrize(
    ("context", "line"),
    [(16, r"the longest question has \d+ tokens"), (99_999, r"all questions together have \d+ tokens")],
)
def test_questions_that_cannot_be_packed_are_refused_in_one_line(tiny: Tiny, context: int, line: str) -> None:
    with pytest.raises(WrongRequest, match=rf"^readout\.packed=true: {line}, train\.context={context}; .*$"):
        made(tiny(), context=context)
