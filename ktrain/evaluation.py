"""Evaluation: which questions a network answers, and how much of what it has read it recalls."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ktrain.config import ATTRIBUTES
from ktrain.corpus import Corpus
from ktrain.errors import GuardFailure
from ktrain.fleet import Fleet
from ktrain.probes import Rows
from ktrain.randomness import generator

ROWS = 128
"""Rows of one forward."""


@dataclass(frozen=True)
class Answers:
    """Answers to questions, all (n,): `exact` includes the end of the answer, `first_token` only its first token.

    `predicted` is the greedy answer up to its first wrong token, or the whole beam answer.
    """

    person: np.ndarray
    attribute: np.ndarray
    exact: np.ndarray
    first_token: np.ndarray
    predicted: list[str]


def answer(network: PreTrainedModel, corpus: Corpus, *, beam: int = 1) -> Answers:
    """Asks all six questions of everyone.

    Greedy answers are read off one teacher-forced forward: an answer is generated exactly if and only if every one of
    its tokens, EOS included, is the likeliest after the true ones before it.
    """
    questions = np.arange(len(corpus.questions))
    exact = np.zeros(len(questions), dtype=bool)
    first = np.zeros(len(questions), dtype=bool)
    predicted = [""] * len(questions)
    length = np.diff(corpus.questions.offsets)
    for rows in _batches(length):
        ids = _padded([corpus.questions[q] for q in rows], corpus.eos, network.device)
        guess = _likeliest(network, ids)
        for row, q in enumerate(rows):
            begin, end = int(corpus.questions.spans[q, 0, 0]), int(length[q])
            right = guess[row, begin - 1 : end - 1] == ids[row, begin:end].cpu().numpy()
            exact[q], first[q] = right.all(), right[0]
            upto = len(right) if right.all() else int(right.argmin()) + 1
            predicted[q] = _text(corpus, guess[row, begin - 1 : begin - 1 + upto])
    if beam > 1:
        exact, predicted = _beam(network, corpus, beam)
    return Answers(questions // len(ATTRIBUTES), questions % len(ATTRIBUTES), exact, first, predicted)


@torch.no_grad()
def classify(fleet: Fleet, rows: Rows, precision: str) -> np.ndarray:
    """The likeliest class of each member at each place, (members, rows, P).

    Raises `GuardFailure` where dropout, or a norm over the batch, was left on.
    """
    members, device = len(fleet.adapters.members), next(fleet.parameters()).device
    found = np.zeros((members, *rows.places.shape), dtype=np.int32)

    def logits(chosen: slice, word: int) -> Tensor:
        ids, places = (torch.from_numpy(x[chosen]).to(device) for x in (rows.ids, rows.places))
        fleet.adapters.at(torch.full((members, 2), word, dtype=torch.int32, device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return fleet.logits(ids.expand(members, -1, -1), places.expand(members, -1, -1))

    some = slice(0, 8)
    if any(m.training for m in fleet.modules()) or not torch.equal(logits(some, 1), logits(some, 2)):
        raise GuardFailure("dropout_off", "the network is evaluated as if it were trained: two forwards differ")
    for begin in range(0, len(rows), ROWS):
        chosen = slice(begin, begin + ROWS)
        found[:, chosen] = logits(chosen, 0).argmax(-1).cpu().numpy()
    return found


def recall(network: PreTrainedModel, corpus: Corpus) -> float:
    """Teacher-forced accuracy on the attribute tokens of one whole entry of every person, as it stands in a window.

    A model below the recall gate has not learned what it is asked about, and its accuracies would mean nothing.
    """
    per_person = corpus.setting.entries_per_person
    people = len(corpus.people)
    chosen = np.arange(people) * per_person + generator(corpus.seed, "recall").integers(per_person, size=people)
    length = np.diff(corpus.entries.offsets)[chosen]
    right = total = 0
    for rows in _batches(length):
        entries = chosen[rows]
        # In a window an entry follows the EOS of the one before it.
        ids = _padded([np.concatenate([[corpus.eos], corpus.entries[e]]) for e in entries], corpus.eos, network.device)
        guess = _likeliest(network, ids)
        truth = ids.cpu().numpy()
        for row, e in enumerate(entries):
            for begin, end in corpus.entries.spans[e].astype(int):
                right += int((guess[row, begin:end] == truth[row, begin + 1 : end + 1]).sum())
                total += end - begin
    return right / total


def generate(network: PreTrainedModel, prompts: Tensor, tokens: int, *, eos: int, beam: int = 1) -> Tensor:
    """Token-by-token generation with `transformers` for prompts of one length, (rows, prompt + at most `tokens`)."""
    # The beam scores as the paper's: no sampling, EOS ends an answer.
    output = network.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=tokens,
        num_beams=beam,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    assert isinstance(output, Tensor)
    return output


def _beam(network: PreTrainedModel, corpus: Corpus, beam: int) -> tuple[np.ndarray, list[str]]:
    """Exact match and text with beam search; prompts of one length share a batch, so nothing is padded."""
    composed = corpus.questions
    exact = np.zeros(len(composed), dtype=bool)
    predicted = [""] * len(composed)
    begin = composed.spans[:, 0, 0].astype(int)
    longest = int((np.diff(composed.offsets) - begin).max())
    for width in np.unique(begin):
        alike = np.flatnonzero(begin == width)
        for rows in np.split(alike, range(ROWS, len(alike), ROWS)):
            prompts = _padded([composed[q][:width] for q in rows], corpus.eos, network.device)
            output = generate(network, prompts, longest, eos=corpus.eos, beam=beam).cpu().numpy()
            for row, q in enumerate(rows):
                truth = composed[q][width:]
                said = output[row, width : width + len(truth)]
                exact[q] = len(said) == len(truth) and bool((said == truth).all())
                predicted[q] = _text(corpus, output[row, width:])
    return exact, predicted


def _batches(length: np.ndarray) -> list[np.ndarray]:
    """Rows of similar length together, so that little is padded."""
    order = np.argsort(length, kind="stable")
    return np.split(order, range(ROWS, len(order), ROWS))


def _padded(rows: list[np.ndarray], eos: int, device: torch.device) -> Tensor:
    ids = np.full((len(rows), max(map(len, rows))), eos, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids).to(device)


@torch.no_grad()
def _likeliest(network: PreTrainedModel, ids: Tensor) -> np.ndarray:
    """The likeliest next token at every place, (rows, T); in fp32, as a user who loads the model would see it."""
    network.eval()
    guess: np.ndarray = network(input_ids=ids, use_cache=False).logits.argmax(-1).cpu().numpy()
    return guess


def _text(corpus: Corpus, ids: np.ndarray) -> str:
    return str(corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=True))
