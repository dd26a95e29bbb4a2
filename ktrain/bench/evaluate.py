"""Speed of evaluation, against greedy generation by `transformers`, token by token."""

from typing import Any

import numpy as np
import torch

from ktrain.bench import interleaved, machine
from ktrain.bench.interleaved import Loop
from ktrain.config import CorpusConfig, ModelConfig
from ktrain.data import corpus as corpora
from ktrain.model import networks
from ktrain.readout import evaluation
from ktrain.readout.generated_answers import answers_by_generation
from ktrain.system.device import training_device

PEOPLE = 128
"""People in one batch of questions."""


def evaluate(setting: CorpusConfig, network: ModelConfig, *, context: int, seconds: float) -> dict[str, Any]:
    """Returns questions a second, and the ratio of reading answers off one forward over generating them.

    The reference batches questions of one length, so nothing is padded, and generates up to the longest answer.
    Raises `AssertionError` if the two disagree on which answers are exact.
    """
    torch.set_num_threads(machine.cores())
    built = corpora.build_corpus(setting, 0)
    vocabulary = built.tokenizer.get_vocab_size()
    trained = networks.build_network(network, vocabulary, context, built.eos, 0).to(training_device()).eval()
    people = np.arange(min(PEOPLE, len(built.people)))
    questions = (people[:, None] * 6 + np.arange(6)).ravel()
    mine = evaluation.answer(trained, built, people=people, texts=False).exact
    with torch.no_grad():
        theirs, _ = answers_by_generation(trained, built, questions, 1)
    assert np.array_equal(mine, theirs)

    def ours(seconds: float) -> float:
        return _rate(lambda: evaluation.answer(trained, built, people=people, texts=False), len(questions))(seconds)

    def generated(seconds: float) -> float:
        return _rate(lambda: answers_by_generation(trained, built, questions, 1), len(questions))(seconds)

    rounds = interleaved.interleave({"ktrain": ours, "generate": generated}, seconds)
    rows = [interleaved.row(name, values, "questions/s") for name, values in rounds.items()]
    described = {"model": network.size, "vocabulary": vocabulary, "questions": len(questions)}
    return interleaved.result(rows, {"generate": rows[0].median / rows[1].median}, {}, machine.describe(), described)


def _rate(work: Any, count: int) -> Loop:
    def loop(seconds: float) -> float:
        steps, passed = interleaved.repeated(lambda _: work(), seconds)
        return steps * count / passed

    return loop
