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
from ktrain.forward import bidirectional
from ktrain.masking import Masker
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


def answer(network: PreTrainedModel, corpus: Corpus, *, beam: int = 1, people: np.ndarray | None = None) -> Answers:
    """Asks all six questions of everyone, or of `people` (indices, rising).

    Greedy answers are read off one teacher-forced forward: an answer is generated exactly if and only if every one of
    its tokens, EOS included, is the likeliest after the true ones before it. A bidirectional network fills in as many
    masks as the answer has tokens, all at once (paper, appendix B).
    """
    chosen = np.arange(len(corpus.people)) if people is None else people
    questions = (chosen[:, None] * len(ATTRIBUTES) + np.arange(len(ATTRIBUTES))).ravel()
    exact = np.zeros(len(questions), dtype=bool)
    first = np.zeros(len(questions), dtype=bool)
    predicted = [""] * len(questions)
    length = np.diff(corpus.questions.offsets)[questions]
    fill = bidirectional(network)
    for rows in _batches(length):
        ids = _padded([corpus.questions[q] for q in questions[rows]], network)
        # A copy: on a CPU it would be the memory in which answers are hidden next.
        truth = ids.cpu().numpy().copy()
        begins = corpus.questions.spans[questions[rows], 0, 0].astype(int)
        ends = length[rows] - fill
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True) if fill else ()):
            ids[row, begin:end] = network.config.mask_token_id
        guess = _likeliest(network, ids)
        for row, (k, begin, end) in enumerate(zip(rows, begins, ends, strict=True)):
            said = guess[row, begin - (not fill) : end - (not fill)]
            right = said == truth[row, begin:end]
            exact[k], first[k] = right.all(), right[0]
            # Filled in all at once, an answer has no first wrong token.
            upto = len(right) if fill or right.all() else int(right.argmin()) + 1
            predicted[k] = _text(corpus, said[:upto])
    if beam > 1:
        exact, predicted = by_generation(network, corpus, questions, beam)
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


@dataclass(frozen=True)
class Recalled:
    """What a network gives back of one entry of each person: `person` (people,), then by person and attribute how many
    `tokens` of it were asked, how many of them were `right`, and 1 or 0 for the `first` token, NaN where it was not
    asked, each (people, 6).
    """

    person: np.ndarray
    tokens: np.ndarray
    right: np.ndarray
    first: np.ndarray

    def share(self, people: np.ndarray) -> float:
        """Accuracy on attribute tokens of `people` (bool, by index of all people)."""
        mine = people[self.person]
        return float(self.right[mine].sum() / max(1, self.tokens[mine].sum()))


def recall(network: PreTrainedModel, corpus: Corpus, people: np.ndarray | None = None) -> Recalled:
    """Teacher-forced accuracy on the attribute tokens of one whole entry of every person, or of `people` (indices), as
    it stands in a window. Of a bidirectional network, words are masked as in training.

    A model below the recall gate has not learned what it is asked about, and its accuracies would mean nothing.
    """
    rng, starts = generator(corpus.seed, "recall"), np.cumsum(corpus.entries_of) - corpus.entries_of
    each = [(corpus.setting.people, corpus.setting.entries_per_person)]
    each += [(corpus.setting.celebrities, corpus.setting.celebrity.entries_per_person)]
    entry = starts + np.concatenate([rng.integers(entries, size=count) for count, entries in each])
    chosen = np.arange(len(corpus.people)) if people is None else people
    shape, fill = (len(chosen), len(ATTRIBUTES)), bidirectional(network)
    tokens, right, first = (np.zeros(shape, dtype=kind) for kind in (int, int, float))
    masker = Masker(corpus.tokenizer, "recall", corpus.seed)
    for rows in _batches(np.diff(corpus.entries.offsets)[entry[chosen]]):
        entries = entry[chosen[rows]]
        # In a window an entry follows the EOS of the one before it.
        ids = _padded([np.concatenate([[corpus.eos], corpus.entries[e]]) for e in entries], network)
        truth = ids.cpu().numpy().copy()
        counted = np.ones(truth.shape, dtype=bool)
        if fill:
            plain = np.where(truth < corpus.tokenizer.get_vocab_size(), truth, corpus.eos)
            # Of each person by themselves: what is asked must not depend on who else is.
            asked = zip(plain, chosen[rows].tolist(), strict=True)
            counted = np.concatenate([masker.chosen(row[None], person) for row, person in asked])
            ids[torch.from_numpy(counted).to(ids.device)] = network.config.mask_token_id
        guess = _likeliest(network, ids)
        correct = np.zeros(truth.shape, dtype=bool)
        correct[:, 1:] = (guess[:, 1:] if fill else guess[:, :-1]) == truth[:, 1:]
        for row, (k, e) in enumerate(zip(rows, entries, strict=True)):
            for a, (begin, end) in enumerate(corpus.entries.spans[e].astype(int)):
                span = slice(begin + 1, end + 1)
                tokens[k, a] = counted[row, span].sum()
                right[k, a] = (correct[row, span] & counted[row, span]).sum()
                first[k, a] = correct[row, begin + 1] if counted[row, begin + 1] else np.nan
    return Recalled(chosen, tokens, right, first)


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


def by_generation(
    network: PreTrainedModel, corpus: Corpus, questions: np.ndarray, beam: int
) -> tuple[np.ndarray, list[str]]:
    """Exact match and text by generation, greedy where `beam` is 1; prompts of one length share a batch, so nothing is
    padded.
    """
    composed = corpus.questions
    exact = np.zeros(len(questions), dtype=bool)
    predicted = [""] * len(questions)
    begin = composed.spans[questions, 0, 0].astype(int)
    longest = int((np.diff(composed.offsets)[questions] - begin).max())
    for width in np.unique(begin):
        alike = np.flatnonzero(begin == width)
        for rows in np.split(alike, range(ROWS, len(alike), ROWS)):
            prompts = _padded([composed[questions[k]][:width] for k in rows], network)
            output = generate(network, prompts, longest, eos=corpus.eos, beam=beam).cpu().numpy()
            for row, k in enumerate(rows):
                truth = composed[questions[k]][width:]
                said = output[row, width : width + len(truth)]
                exact[k] = len(said) == len(truth) and bool((said == truth).all())
                predicted[k] = _text(corpus, output[row, width:])
    return exact, predicted


def _batches(length: np.ndarray) -> list[np.ndarray]:
    """Rows of similar length together, so that little is padded."""
    order = np.argsort(length, kind="stable")
    return np.split(order, range(ROWS, len(order), ROWS))


def _padded(rows: list[np.ndarray], network: PreTrainedModel) -> Tensor:
    ids = np.full((len(rows), max(map(len, rows))), network.config.pad_token_id, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids).to(network.device)


@torch.no_grad()
def _likeliest(network: PreTrainedModel, ids: Tensor) -> np.ndarray:
    """The likeliest next token at every place, or the one that is filled in there, (rows, T); in fp32, as a user who
    loads the model would see it.
    """
    network.eval()
    read = (ids != network.config.pad_token_id).long() if bidirectional(network) else None
    guess: np.ndarray = network(input_ids=ids, attention_mask=read, use_cache=False).logits.argmax(-1).cpu().numpy()
    return guess


def _text(corpus: Corpus, ids: np.ndarray) -> str:
    return str(corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=True))
