"""Answers generated token by token: whole wrong answers, and beam search."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ktrain.bios.tokenizer import decode_inside
from ktrain.data.corpus import Corpus

ROWS = 128
"""Rows of one batch."""


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


def answers_by_generation(
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
            prompts = pad_rows([composed[questions[k]][:width] for k in rows], network)
            output = generate(network, prompts, longest, eos=corpus.eos, beam=beam).cpu().numpy()
            for row, k in enumerate(rows):
                truth = composed[questions[k]][width:]
                said = output[row, width : width + len(truth)]
                exact[k] = len(said) == len(truth) and bool((said == truth).all())
                predicted[k] = answer_text(corpus, output[row, width:])
    return exact, predicted


def continue_answers(
    network: PreTrainedModel, corpus: Corpus, begun: dict[int, np.ndarray], prompts: dict[int, int]
) -> dict[int, np.ndarray]:
    """Continues greedy answers up to their end, or to as many tokens as the longest true answer has.

    `begun` holds, by question, the ids of the prompt and of the answer so far; `prompts` the length of the prompt.
    Returns the ids of each answer. Rows of one length share a batch, so nothing is padded.
    """
    longest = int((np.diff(corpus.questions.offsets) - corpus.questions.spans[:, 0, 0]).max())
    answers = {k: ids[prompts[k] :] for k, ids in begun.items()}
    groups: dict[tuple[int, int], list[int]] = {}
    for k, ids in begun.items():
        if ids[-1] != corpus.eos and len(answers[k]) < longest:
            groups.setdefault((len(ids), prompts[k]), []).append(k)
    for (width, prompt), alike in groups.items():
        for batch in (alike[i : i + ROWS] for i in range(0, len(alike), ROWS)):
            rows = pad_rows([begun[k] for k in batch], network)
            output = generate(network, rows, longest - (width - prompt), eos=corpus.eos).cpu().numpy()
            answers |= {k: output[row, prompt:] for row, k in enumerate(batch)}
    return answers


def pad_rows(rows: list[np.ndarray], network: PreTrainedModel) -> Tensor:
    """Returns ids (rows, T), padded on the right, on the network's device."""
    ids = np.full((len(rows), max(map(len, rows))), network.config.pad_token_id, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids).to(network.device)


def answer_text(corpus: Corpus, ids: np.ndarray) -> str:
    """Returns the text of an answer's ids, without EOS, with which generation also pads."""
    return decode_inside(corpus.tokenizer, ids.tolist())
