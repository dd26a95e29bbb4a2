"""Evaluation: which questions a network answers, and how much of what it has read it recalls."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ktrain.config import ATTRIBUTES
from ktrain.data.corpus import Corpus
from ktrain.data.masking import Masker
from ktrain.errors import GuardFailure
from ktrain.model.forward import bidirectional
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.readout.generated_answers import answer_text, answers_by_generation, continue_answers, pad_rows
from ktrain.readout.probes import Rows
from ktrain.rng import generator
from ktrain.system.device import autocast

ROWS = 128
"""Rows of one forward."""


@dataclass(frozen=True)
class Answers:
    """Answers to questions, all (n,): `exact` includes the end of the answer, `first_token` only its first token.

    `attribute` are indices into `attributes`. `predicted` is the whole answer, greedy or by beam, as it was generated;
    none where texts were not wanted.
    """

    person: np.ndarray
    attribute: np.ndarray
    exact: np.ndarray
    first_token: np.ndarray
    predicted: list[str]
    attributes: tuple[str, ...] = ATTRIBUTES


def answer(
    network: PreTrainedModel,
    corpus: Corpus,
    *,
    beam: int = 1,
    people: np.ndarray | None = None,
    texts: bool = True,
) -> Answers:
    """Asks all questions of everyone, or of `people` (indices, rising). Without `texts`, `predicted` is empty.

    Greedy answers are read off one teacher-forced forward: an answer is generated exactly if and only if every one of
    its tokens, EOS included, is the likeliest after the true ones before it. A bidirectional network fills in as many
    masks as the answer has tokens, all at once (paper, appendix B). Only a wrong answer has to be generated, from its
    first wrong token on.
    """
    chosen = np.arange(len(corpus.people)) if people is None else people
    questions = corpus.asked_questions(chosen)
    exact = np.zeros(len(questions), dtype=bool)
    first = np.zeros(len(questions), dtype=bool)
    spoken: dict[int, np.ndarray] = {}
    begun: dict[int, np.ndarray] = {}
    for rows in _batches(np.diff(corpus.questions.offsets)[questions]):
        ids, truth, answered = _question_inputs(network, corpus, questions[rows])
        guess = _guesses(network, ids)
        right = guess == truth
        # Padding and prompts count as right, so that a row is right if its whole answer is.
        exact[rows] = (right | ~answered).all(axis=1)
        begin, length = answered.argmax(axis=1), answered.sum(axis=1)
        first[rows] = right[np.arange(len(rows)), begin]
        for row, k in enumerate(rows):
            span = slice(begin[row], begin[row] + length[row])
            # Filled in all at once, an answer has no first wrong token.
            if exact[k] or bidirectional(network):
                spoken[k] = guess[row, span]
            else:
                wrong = begin[row] + int(right[row, span].argmin())
                begun[k] = np.append(truth[row, :wrong], guess[row, wrong])
    predicted: list[str] = []
    if beam > 1:
        exact, predicted = answers_by_generation(network, corpus, questions, beam)
    elif texts:
        prompts = {k: int(corpus.questions.spans[questions[k], 0, 0]) for k in begun}
        spoken |= continue_answers(network, corpus, begun, prompts)
        predicted = [answer_text(corpus, spoken[k]) for k in range(len(questions))]
    attribute = questions % len(corpus.attributes)
    return Answers(corpus.person_asked(questions), attribute, exact, first, predicted, corpus.attributes)


def _question_inputs(
    network: PreTrainedModel, corpus: Corpus, questions: np.ndarray
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Ids (rows, T) that the network reads, the true ids, and which of them are the answer, (rows, T) bool.

    An answer includes its EOS, except where a bidirectional network fills in masks: there it ends before.
    """
    fills = bidirectional(network)
    ids = pad_rows([corpus.questions[q] for q in questions], network)
    # A copy: on a CPU, `numpy()` shares its memory with the ids, in which answers are hidden next.
    truth = ids.cpu().numpy().copy()
    begin = corpus.questions.spans[questions, 0, 0].astype(int)
    end = np.diff(corpus.questions.offsets)[questions] - fills
    column = np.arange(truth.shape[1])
    answered = (column >= begin[:, None]) & (column < end[:, None])
    if fills:
        ids[torch.from_numpy(answered).to(ids.device)] = network.config.mask_token_id
    return ids, truth, answered


@torch.no_grad()
def classify(stack: StackedAdapters, rows: Rows, precision: str) -> np.ndarray:
    """The likeliest class of each adapter at each place, (adapters, rows, P).

    Raises `GuardFailure` where dropout, or a norm over the batch, was left on.
    """
    adapters, device = len(stack.adapters.specs), next(stack.parameters()).device
    likeliest = np.zeros((adapters, *rows.places.shape), dtype=np.int32)

    def logits(chosen: slice, word: int) -> Tensor:
        ids, places = (torch.from_numpy(x[chosen]).to(device) for x in (rows.ids, rows.places))
        stack.adapters.at(torch.full((adapters, 2), word, dtype=torch.int32, device=device))
        with autocast(precision, device):
            return stack.logits(ids.expand(adapters, -1, -1), places.expand(adapters, -1, -1))

    some = slice(0, 8)
    if any(m.training for m in stack.modules()) or not torch.equal(logits(some, 1), logits(some, 2)):
        raise GuardFailure("dropout_off", "the network is evaluated as if it were trained: two forwards differ")
    for begin in range(0, len(rows), ROWS):
        chosen = slice(begin, begin + ROWS)
        likeliest[:, chosen] = logits(chosen, 0).argmax(-1).cpu().numpy()
    return likeliest


@dataclass(frozen=True)
class Recalled:
    """What a network gives back of one entry of each person: `person` (people,), then by person and attribute how many
    `tokens` of it were asked, how many of them were `right`, and 1 or 0 for the `first` token, NaN where it was not
    asked, each (people, attributes).
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
    chosen = np.arange(len(corpus.people)) if people is None else people
    entry = _recalled_entries(corpus)[chosen]
    shape = len(chosen), len(corpus.attributes)
    tokens, right, first = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int), np.zeros(shape)
    masker = Masker(corpus.tokenizer, "recall", corpus.seed)
    for rows in _batches(np.diff(corpus.entries.offsets)[entry]):
        ids, truth, counted = _entry_inputs(network, corpus, entry[rows], chosen[rows], masker)
        correct = (_guesses(network, ids) == truth) & counted
        # The EOS before the entry moves every span by one.
        begin, end = (corpus.entries.spans[entry[rows]].astype(int) + 1).transpose(2, 0, 1)
        tokens[rows] = _sums(counted, begin, end)
        right[rows] = _sums(correct, begin, end)
        line = np.arange(len(rows))[:, None]
        first[rows] = np.where(counted[line, begin], correct[line, begin], np.nan)
    return Recalled(chosen, tokens, right, first)


def _recalled_entries(corpus: Corpus) -> np.ndarray:
    """One entry of each person, (people,), drawn from the corpus' seed: the same whoever is asked about."""
    rng, starts = generator(corpus.seed, "recall"), np.cumsum(corpus.entry_counts) - corpus.entry_counts
    groups = [
        (corpus.setting.people, corpus.setting.entries_per_person),
        (corpus.setting.celebrities, corpus.setting.celebrity.entries_per_person),
    ]
    return np.asarray(starts + np.concatenate([rng.integers(entries, size=count) for count, entries in groups]))


def _entry_inputs(
    network: PreTrainedModel, corpus: Corpus, entries: np.ndarray, people: np.ndarray, masker: Masker
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Ids (rows, T) that the network reads, the true ids, and which of them it has to give, (rows, T) bool."""
    # In a window, an entry follows the EOS of the one before it.
    ids = pad_rows([np.concatenate([[corpus.eos], corpus.entries[entry]]) for entry in entries], network)
    truth = ids.cpu().numpy().copy()
    if not bidirectional(network):
        return ids, truth, np.ones(truth.shape, dtype=bool)
    plain = np.where(truth < corpus.tokenizer.get_vocab_size(), truth, corpus.eos)
    # Row by row: the masks of a person must not depend on who else is asked about.
    counted = np.concatenate(
        [masker.chosen(row[None], person) for row, person in zip(plain, people.tolist(), strict=True)]
    )
    ids[torch.from_numpy(counted).to(ids.device)] = network.config.mask_token_id
    return ids, truth, counted


def _sums(flags: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How many of `flags` (rows, T) are set from `begin` to `end`, all (rows, attributes)."""
    before = np.pad(flags.cumsum(axis=1), ((0, 0), (1, 0)))
    line = np.arange(len(flags))[:, None]
    return np.asarray(before[line, end] - before[line, begin])


def _batches(length: np.ndarray) -> list[np.ndarray]:
    """Rows of similar length together, so that little is padded."""
    order = np.argsort(length, kind="stable")
    return np.split(order, range(ROWS, len(order), ROWS))


@torch.no_grad()
def _guesses(network: PreTrainedModel, ids: Tensor) -> np.ndarray:
    """The likeliest token at every place, (rows, T), given those before it or, where masks are filled in, all others.

    In fp32, as a user who loads the model would see it. Nothing predicts the first token: its guess is -1.
    """
    network.eval()
    fills = bidirectional(network)
    visible = (ids != network.config.pad_token_id).long() if fills else None
    guess = network(input_ids=ids, attention_mask=visible, use_cache=False).logits.argmax(-1).cpu().numpy()
    return np.asarray(guess if fills else np.pad(guess[:, :-1], ((0, 0), (1, 0)), constant_values=-1))
