"""What a network of `model.start` can do before it reads the biographies, and what it forgets of another text."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ktrain.config import CellConfig
from ktrain.data.corpus import Corpus
from ktrain.errors import WrongRequest
from ktrain.fingerprint import file_digest
from ktrain.readout import evaluation, scores
from ktrain.store.regular_files import read_text
from ktrain.system.atomic_write import atomic_write

ROWS = 8
"""Windows of one forward: the logits of all their tokens are in memory."""


@dataclass(frozen=True)
class StartMeasures:
    """Metrics by name, over how many people each is a mean, and its 95 % interval."""

    metrics: dict[str, float]
    counts: dict[str, int]
    intervals: dict[str, tuple[float, float]]


def before_training(network: Any, corpus: Corpus, cell: CellConfig, folder: Path) -> StartMeasures:
    """Asks the network the questions of the test half, `start/exact_match/test/mean` and so on, and measures
    `forgetting/loss_before` if there is a text for it.

    Kept in a file of the work folder, so that a restart does not ask again. Raises `WrongRequest` like `text_loss`.
    """
    path = folder / "start.json"
    if path.is_file():
        return StartMeasures(**json.loads(read_text(path, folder)))
    groups = scores.asked_groups(corpus, "minority")
    answers = evaluation.answer(network, corpus, people=np.flatnonzero(groups["test"]), texts=False)
    metrics, counts, intervals = scores.score(answers, groups, "start")
    if cell.train.forgetting_text is not None:
        metrics["forgetting/loss_before"] = text_loss(network, corpus, cell)
    measured = StartMeasures(metrics, counts, intervals)
    atomic_write(path, json.dumps(asdict(measured), allow_nan=False))
    return measured


@torch.no_grad()
def text_loss(network: Any, corpus: Corpus, cell: CellConfig) -> float:
    """Returns the mean cross-entropy of a token of `train.forgetting_text`, in nats, in fp32.

    The text is cut into windows of `train.context` tokens; the first token of each is read and not predicted. Raises
    `WrongRequest` for a text of fewer than two tokens.
    """
    assert cell.train.forgetting_text is not None
    path = Path(cell.train.forgetting_text)
    text = _text(path, file_digest(path))
    ids = torch.tensor(corpus.tokenizer.encode(text).ids, device=network.device)
    whole = len(ids) // cell.train.context * cell.train.context
    windows = list(ids[:whole].view(-1, cell.train.context).split(ROWS))
    windows += [ids[None, whole:]] if len(ids) - whole > 1 else []
    if not windows:
        raise WrongRequest(f"train.forgetting_text={cell.train.forgetting_text}: has fewer than two tokens")
    network.eval()
    total, tokens = 0.0, 0
    for rows in windows:
        logits = network(input_ids=rows, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total += float(F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum"))
        tokens += rows[:, 1:].numel()
    return total / tokens


@cache
def _text(path: Path, digest: str) -> str:
    """Reads a text once for each content, so that it is the same before and after a training in which it is edited."""
    return path.read_text(encoding="utf-8")
