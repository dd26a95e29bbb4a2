"""The work on a stage: training from its latest resume point to its end, and the files that stages have in common."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ktrain import memory, training
from ktrain.config import Readout, Runtime, Train
from ktrain.corpus import Corpus
from ktrain.engine import Engine, kept
from ktrain.forward import bidirectional
from ktrain.resume import KeptPoints, Point, ResumePoints, apart
from ktrain.store import Place
from ktrain.tokenizer import EOS, MASK, PAD
from ktrain.training import Batches, Progress, Schedule, curve_of, train

Report = Callable[[str, Progress], bool | None]
"""Called on every rank at the same steps, with the stage's key; says whether this place has to be left."""
LINES = 100
"""How many lines a stage's curve has, at most one a step."""


def fit(
    module: nn.Module,
    setting: Train | Readout,
    batches: Batches,
    tokens_per_step: int,
    place: Place,
    runtime: Runtime,
    report: training.Report,
    *,
    clip: Callable[[float], None] | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[Progress]:
    """Trains `module` in place, from the latest resume point in `place` if there is one; returns its curve.

    `watch` as in `train`. Raises `Diverged`, `Leaving`.
    """
    points = KeptPoints(place.folder, place.keep)
    resumed = _same_everywhere(points)
    if resumed:
        load(module, resumed.tensors)
        if resumed.step == setting.steps:
            return curve_of(resumed.record)
    module.train()
    # Dropout draws from torch's own generator, a stream of its own for each stage and rank.
    torch.manual_seed(int(place.folder.name[-8:], 16) + dist.get_rank())
    engine = Engine(module, setting, setting.batch // dist.get_world_size(), compile=runtime.compile, clip=clip)
    curve = train(
        engine,
        batches,
        _schedule(setting),
        tokens_per_step,
        points,
        report,
        resumed=resumed,
        every=max(1, setting.steps // LINES),
        apart=partial(apart, between_losses=runtime.between_losses, longest=runtime.checkpoint_seconds),
        watch=watch,
    )
    final = engine.state()
    engine.close()
    load(module, final)
    return curve


def _same_everywhere(points: ResumePoints) -> Point | None:
    """The point from which rank 0 goes on: another rank's machine may see an older one, or none."""
    found = points.latest() if not dist.get_rank() else None
    steps = [found.step if found else None]
    dist.broadcast_object_list(steps, src=0)
    if dist.get_rank() and steps[0] is not None:
        found = points.at(steps[0])
        if found is None:
            raise RuntimeError(f"the resume point at step {steps[0]} is not to be had on every machine")
    return found


def load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts the weights and statistics of `Engine.state` into a module; raises `ValueError` for another module's."""
    weights = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad} | set(kept(module))
    if trained != set(weights):
        raise ValueError(f"weights of another network: {sorted(trained ^ set(weights))[:3]}")
    module.load_state_dict(weights, strict=False)


def save_model(folder: Path, network: Any, corpus: Corpus) -> None:
    """Network and tokenizer in Hugging Face format, in `folder/model`."""
    network.save_pretrained(folder / "model")
    fills = {"mask_token": MASK, "pad_token": PAD} if bidirectional(network) else {"pad_token": EOS}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=corpus.tokenizer, bos_token=EOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )
    # In the order of their ids, which follow the tokenizer's own.
    tokenizer.add_special_tokens(fills)
    tokenizer.save_pretrained(folder / "model")


def write(path: Path, value: Any) -> None:
    """A JSON file of what was measured, where NaN has no place."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False))


def write_numbers(
    folder: Path,
    curve: list[Progress],
    metrics: dict[str, float],
    counts: dict[str, int],
    intervals: dict[str, tuple[float, float]],
) -> None:
    """Curve, metrics with the peak of memory, and how many people and which interval each metric has."""
    write(folder / "curve.json", lines(curve))
    write(folder / "metrics.json", metrics | memory.numbers())
    write(folder / "counts.json", {"n": counts, "interval": intervals})


def lines(curve: list[Progress]) -> list[dict[str, Any]]:
    """A curve as it is kept beside a result."""
    return [{**vars(p), "tokens_per_second": p.tokens_per_second} for p in curve]


def _schedule(setting: Train | Readout) -> Schedule:
    warmup, decay = (setting.warmup, "cosine") if isinstance(setting, Train) else (0, setting.decay)
    return Schedule(setting.learning_rate, setting.final_learning_rate, warmup, setting.steps, decay)
