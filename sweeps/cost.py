"""Cost: what a stage takes in tokens, FLOPs and bytes, and how long that is on a named GPU."""

from dataclasses import dataclass
from pathlib import Path

from ktrain import shapes
from ktrain.background import TO_BE_NAMED, files
from ktrain.config import Cell, Model
from ktrain.errors import WrongRequest, nearest
from ktrain.probes import TASKS
from ktrain.stages import Stage

TOKENS_PER_QUESTION = 24
TOKENS_PER_NAME = 8
TOKENS_PER_ENTRY = {("bioS", "gpt2"): 73, ("bioS", "bpe"): 82, ("bioR", "gpt2"): 73, ("bioR", "bpe"): 120}
BYTES_PER_TOKEN = 4
"""Typical lengths, of background text the last, for estimates only."""
TOKENS_WITHOUT_TRAINING = 5e6
"""A second, of stages that train nothing."""

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
"""FLOP/s of dense bf16 matrices with sums in fp32, from the data sheets of their maker."""
UTILISATION = 0.4
"""Share of the peak that the estimates assume, for readouts too, whose adapters are trained many at once."""


@dataclass(frozen=True)
class Device:
    """What the estimates assume to compute on: `speed` in FLOP/s, `told` says where that number is from."""

    name: str
    speed: float
    told: str


CORE = Device("core", 1.1e11, "0.11 TFLOP/s, as measured on one core with AVX512-BF16 in training the miniature")


def gpu(name: str) -> Device:
    """A GPU of `PEAKS`. Raises `WrongRequest` for any other."""
    if name not in PEAKS:
        raise WrongRequest(f"gpu={name}: must be one of {', '.join(PEAKS)}{nearest(name, PEAKS)}")
    peak = PEAKS[name]
    told = f"{100 * UTILISATION:.0f} % of its peak of {peak / 1e12:,.0f} TFLOP/s, assumed"
    return Device(name.upper(), UTILISATION * peak, told)


def chosen(name: str, tokens_per_second: float | None) -> Device | None:
    """The device of a GPU's name, of its speed in pretraining the paper's 124M GPT-2, or of both; None without either.

    Raises `WrongRequest` for a GPU that is not known and a speed that is none.
    """
    named = gpu(name) if name else None
    if tokens_per_second is None:
        return named
    if not 0 < tokens_per_second < float("inf"):
        raise WrongRequest(f"tokens-per-second={tokens_per_second:g}: must be above 0")
    speed = tokens_per_second * shapes.flops_per_token(Model(size="124m"), 50_257, 512)
    told = f"{speed / 1e12:.3g} TFLOP/s, from {tokens_per_second:,.0f} tokens a second at 124M"
    return Device(named.name if named else "GPU", speed, told)


def tokens(stage: Stage, cell: Cell) -> int:
    """Tokens that a stage trains on, or that it writes or answers."""
    if stage.kind == "pretrain":
        return cell.train.steps * cell.train.batch * cell.train.context
    if stage.kind in ("qa_finetune", "p_probe", "q_probe"):
        members = len(TASKS) if cell.readout.probe else 1
        return cell.readout.steps * cell.readout.batch * row(cell) * members
    if stage.kind == "mixed":
        return cell.corpus.people * 6 * TOKENS_PER_QUESTION
    everyone = cell.corpus.people + cell.corpus.celebrities
    return cell.corpus.entries * _entry(cell) + everyone * 6 * TOKENS_PER_QUESTION + _background(cell)


def flops(stage: Stage, cell: Cell) -> float:
    """Operations of a stage's training: 6 N + 12 L d T a token."""
    if stage.kind in ("corpus", "mixed"):
        return 0.0
    context = cell.train.context if stage.kind == "pretrain" else row(cell)
    # Frozen weights have no gradient: four of the six multiplications a parameter.
    share = 2 / 3 if stage.kind != "pretrain" and cell.readout.adapted else 1.0
    return tokens(stage, cell) * per_token(cell, context) * share


def per_token(cell: Cell, context: int) -> int:
    """Operations of one trained token of a cell's network."""
    return shapes.flops_per_token(cell.model, vocabulary(cell), context)


def seconds(stage: Stage, cell: Cell, speed: float) -> float:
    """Time of a stage at `speed` FLOP/s."""
    return flops(stage, cell) / speed or tokens(stage, cell) / TOKENS_WITHOUT_TRAINING


def size(stage: Stage, cell: Cell) -> int:
    """Bytes on disk: tokens in two bytes, or a model in fp32."""
    if stage.kind == "corpus":
        return tokens(stage, cell) * 2
    if cell.readout.probe and stage.kind != "pretrain":
        # Adapters and heads, and a few bytes for every example of the predictions.
        rank = cell.readout.rank_embedding
        adapter = vocabulary(cell) * (shapes.SHAPES[cell.model.size].width if rank == "full" else int(rank))
        examples = cell.corpus.people * (cell.corpus.entries_per_person if stage.kind == "p_probe" else 1)
        return len(TASKS) * (4 * adapter + 16 * examples)
    return 4 * shapes.parameters(cell.model, vocabulary(cell))


def row(cell: Cell) -> int:
    """Tokens that a readout's row holds."""
    if cell.readout.kind == "p_probe":
        return _entry(cell)
    return TOKENS_PER_NAME if cell.readout.kind == "q_probe" else TOKENS_PER_QUESTION


def _entry(cell: Cell) -> int:
    return TOKENS_PER_ENTRY[cell.corpus.kind, "gpt2" if cell.corpus.tokenizer == "gpt2" else "bpe"]


def _background(cell: Cell) -> int:
    folder = cell.corpus.background
    if folder is None or folder == TO_BE_NAMED:
        return 0
    return sum(Path(path).stat().st_size for path in files(folder)) // BYTES_PER_TOKEN


def vocabulary(cell: Cell) -> int:
    return 50_257 if cell.corpus.tokenizer == "gpt2" else int(cell.corpus.tokenizer.removeprefix("bpe-"))
