"""Cost: estimates a stage's tokens, FLOPs and bytes, and its time on a GPU."""

import os
from dataclasses import dataclass
from pathlib import Path

from ktrain.config import CellConfig, ModelConfig
from ktrain.data.background import UNNAMED, files
from ktrain.data.token_estimates import tokens_per_entry, tokens_per_question, vocabulary_size
from ktrain.errors import WrongRequest, nearest
from ktrain.model import sizes
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import Stage
from ktrain.system.processor import processor_has_bf16

BYTES_PER_TOKEN = 4
"""Of background text, typically."""
MOST_ON_A_CORE = 2e7
"""Parameters from which on a network is taken to train on a GPU."""
TOKENS_WITHOUT_TRAINING = 5e6
"""Tokens per second of stages that train nothing."""

PEAKS = {
    "h100": 989e12,
    "h200": 989e12,
    "b200": 2250e12,
    "a100": 312e12,
    "l40s": 362e12,
    "l4": 121e12,
    "a10": 125e12,
    "rtx4090": 165e12,
}
"""FLOP/s of dense bf16 matrix products with fp32 accumulation, from the makers' data sheets."""
UTILISATION = 0.4
"""Assumed share of the peak, for readouts too, because many adapters train at once."""


@dataclass(frozen=True)
class Device:
    """The device that estimates assume: `speed` in FLOP/s, and the `source` of that number."""

    name: str
    speed: float
    source: str


CORE = (
    Device("core", 1.1e11, "0.11 TFLOP/s, as measured on one core with AVX512-BF16 in training the miniature")
    if processor_has_bf16()
    else Device("core", 3.2e10, "0.03 TFLOP/s, as measured with AVX2 alone on two cores that each train a miniature")
)


def gpu(name: str) -> Device:
    """Returns a GPU of `PEAKS`. Raises `WrongRequest` for any other name."""
    if name not in PEAKS:
        raise WrongRequest(f"gpu={name}: must be one of {', '.join(PEAKS)}{nearest(name, PEAKS)}")
    peak = PEAKS[name]
    source = f"{100 * UTILISATION:.0f} % of its peak of {peak / 1e12:,.0f} TFLOP/s, assumed"
    return Device(name.upper(), UTILISATION * peak, source)


def devices_here(device: Device) -> int:
    """Returns how many of these devices a run here uses: each core that this process may use, or one GPU."""
    return len(os.sched_getaffinity(0)) if device == CORE else 1


def choose_device(name: str, tokens_per_second: float | None) -> Device | None:
    """Returns the device with a GPU's name, its measured speed in pretraining the paper's 124M GPT-2, or both.

    Returns None without either. Raises `WrongRequest` for an unknown GPU and for a speed that is not above 0.
    """
    named = gpu(name) if name else None
    if tokens_per_second is None:
        return named
    if not 0 < tokens_per_second < float("inf"):
        raise WrongRequest(f"tokens-per-second={tokens_per_second:g}: must be above 0")
    speed = tokens_per_second * sizes.flops_per_token(ModelConfig(size="124m"), 50_257, 512)
    source = f"{speed / 1e12:.3g} TFLOP/s, from {tokens_per_second:,.0f} tokens a second at 124M"
    return Device(named.name if named else "GPU", speed, source)


def tokens(stage: Stage, cell: CellConfig) -> int:
    """Returns the tokens that a stage trains on, writes (corpus) or answers (mixed)."""
    if stage.kind == "pretrain":
        return cell.train.steps * cell.train.batch * cell.train.context
    if stage.kind != "corpus":
        return kind_of(stage.kind).tokens(cell)
    questions = (cell.corpus.people + cell.corpus.celebrities) * len(cell.corpus.attributes)
    written = cell.corpus.entries * tokens_per_entry(cell.corpus) + questions * tokens_per_question(cell.corpus)
    return written + _background(cell)


def passes(stage: Stage, cell: CellConfig) -> float | None:
    """Returns how often a stage trains on each question that it trains on; None if it trains on no questions."""
    if stage.kind == "corpus" or (stage.kind == "pretrain" and not cell.train.qa_ratio):
        return None
    if stage.kind == "pretrain":
        each = cell.trained_questions * tokens_per_question(cell.corpus)
        return tokens(stage, cell) * cell.train.qa_ratio / each
    return kind_of(stage.kind).passes(cell)


def flops(stage: Stage, cell: CellConfig) -> float:
    """Returns the FLOPs of a stage's training: (6 N + 12 L d T) a token, N parameters, L layers, width d, T tokens."""
    if stage.kind == "corpus":
        return 0.0
    if stage.kind == "pretrain":
        # Frozen weights have no gradient: four of the six multiplications a parameter.
        share = 2 / 3 if cell.train.method == "lora" else 1.0
        return tokens(stage, cell) * per_token(cell, cell.train.context) * share
    kind = kind_of(stage.kind)
    return kind.flops(cell, per_token(cell, kind.row_tokens(cell), head=not kind.probe))


def parameters(cell: CellConfig) -> int:
    """Returns how many parameters a cell's network has."""
    return sizes.parameters(cell.model, vocabulary(cell))


def per_token(cell: CellConfig, context: int, *, head: bool = True) -> int:
    """Returns the FLOPs of training a cell's network on one token; probes train without its output `head`."""
    return sizes.flops_per_token(cell.model, vocabulary(cell), context, head=head)


def seconds(stage: Stage, cell: CellConfig, speed: float) -> float:
    """Returns the seconds of a stage at `speed` FLOP/s."""
    return flops(stage, cell) / speed or tokens(stage, cell) / TOKENS_WITHOUT_TRAINING


def size(stage: Stage, cell: CellConfig) -> int:
    """Returns a stage's bytes on disk: two for each token of a corpus, four for each parameter of a model."""
    if stage.kind == "corpus":
        return tokens(stage, cell) * 2
    if stage.kind == "pretrain":
        return 4 * parameters(cell)
    return kind_of(stage.kind).size(cell, vocabulary(cell))


def _background(cell: CellConfig) -> int:
    folder = cell.corpus.background
    if folder is None or folder == UNNAMED:
        return 0
    return sum(Path(path).stat().st_size for path in files(folder)) // BYTES_PER_TOKEN


def vocabulary(cell: CellConfig) -> int:
    """Returns the number of tokens of a cell's tokenizer."""
    return vocabulary_size(cell.corpus)
