"""Speed of evaluation, against greedy generation by `transformers`, token by token."""

from typing import Any

import numpy as np
import torch

from ktrain import corpus as corpora
from ktrain import evaluation, model
from ktrain.bench import machine, turns
from ktrain.bench.turns import Loop
from ktrain.config import Corpus, Model
from ktrain.device import device

ASKED = 128
"""People in one round of questions."""


def evaluate(setting: Corpus, network: Model, *, context: int, seconds: float) -> dict[str, Any]:
    """Questions a second: the rows, and the ratio of reading answers off one forward over generating them.

    The reference generates for questions of one length together, so nothing is padded, as far as the longest answer.
    Raises `AssertionError` where the two do not find the same answers exact.
    """
    torch.set_num_threads(machine.cores())
    built = corpora.build(setting, 0)
    vocabulary = built.tokenizer.get_vocab_size()
    asked = model.build(network, vocabulary, context, built.eos, 0).to(device()).eval()
    people = np.arange(min(ASKED, len(built.people)))
    questions = (people[:, None] * 6 + np.arange(6)).ravel()
    mine = evaluation.answer(asked, built, people=people).exact
    with torch.no_grad():
        theirs, _ = evaluation.by_generation(asked, built, questions, 1)
    assert np.array_equal(mine, theirs)

    def ours(seconds: float) -> float:
        return _rate(lambda: evaluation.answer(asked, built, people=people), len(questions))(seconds)

    def generated(seconds: float) -> float:
        return _rate(lambda: evaluation.by_generation(asked, built, questions, 1), len(questions))(seconds)

    rounds = turns.rounds({"ktrain": ours, "generate": generated}, seconds)
    rows = [turns.row(name, values, "questions/s") for name, values in rounds.items()]
    about = {"model": network.size, "vocabulary": vocabulary, "questions": len(questions)}
    return turns.result(rows, {"generate": rows[0].median / rows[1].median}, {}, machine.told(), about)


def _rate(work: Any, count: int) -> Loop:
    def loop(seconds: float) -> float:
        steps, passed = turns.repeated(lambda _: work(), seconds)
        return steps * count / passed

    return loop
