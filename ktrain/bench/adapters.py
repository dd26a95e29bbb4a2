"""Speed of stacked adapters and probes against the same ones trained one by one, in one run.

The reference is the best loop for a single adapter: the same forward, compiled, in the same precision, with fused AdamW
and without an engine. The two loops are interleaved, on all cores.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ktrain.bench import interleaved, machine
from ktrain.bench.interleaved import WARM, Loop, Row
from ktrain.config import ModelConfig, ReadoutConfig, RuntimeConfig
from ktrain.model import networks
from ktrain.model.hashed_dropout import dropout_seeds
from ktrain.model.heads import Classifier, LanguageHead
from ktrain.model.lora import Adapters, AdapterSpec, Rank
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.readout import adapter_batch_size
from ktrain.system.device import autocast, training_device
from ktrain.system.process_group import join_alone
from ktrain.training.deepspeed_engine import Engine

RANKS_QV: tuple[int, ...] = (2, 4, 8, 16, 32)
RANKS_EMBEDDING: tuple[Rank, ...] = (0, 16, 32, 64, 128, "full")
SAMPLED: tuple[tuple[Rank, int], ...] = ((0, 8), (16, 8), (128, 8), ("full", 8))
"""Adapters that are measured alone, by (r', r). Each other one counts as the sampled one with the nearest r'."""
TASKS = 11

COMPILE = True


@dataclass(frozen=True)
class Load:
    """One kind of stack: its adapters, and what each reads in a step: rows of `tokens`, scored at `places`."""

    name: str
    readout: ReadoutConfig
    members: tuple[AdapterSpec, ...]
    tokens: int
    places: int
    classes: int

    def flops(self, network: ModelConfig) -> float:
        """Returns the FLOPs of one adapter's step: four a weight and token; the last layer's query and MLP at places.

        4 d^2 (12 (L - 1) T + 2 T + 10 P) + 8 L d T T + 4 C d P for each row.
        """
        shape = network.shape
        d, t, p = shape.width, self.tokens, self.places
        blocks = 4 * d * d * (12 * (shape.layers - 1) * t + 2 * t + 10 * p) + 8 * shape.layers * d * t * t
        return float(self.readout.batch * (blocks + 4 * self.classes * d * p))


def loads(readouts: dict[str, ReadoutConfig], vocabulary: int) -> list[Load]:
    """Returns the paper's grid of 30 adapters (Figure 2), and its eleven P-probes and Q-probes."""
    grid = tuple(AdapterSpec(f"{e}-{r}", 0, e, r) for e in RANKS_EMBEDDING for r in RANKS_QV)
    probes = {
        kind: tuple(AdapterSpec(str(k), 0, readouts[kind].rank_embedding, 0) for k in range(TASKS))
        for kind in ("p_probe", "q_probe")
    }
    question = readouts["qa_finetune"].model_copy(update={"method": "lora"})
    return [
        Load("lora_grid", question, grid, 24, 6, vocabulary),
        Load("p_probe", readouts["p_probe"], probes["p_probe"], 80, 6, 25),
        Load("q_probe", readouts["q_probe"], probes["q_probe"], 8, 1, 25),
    ]


def fleet(
    readouts: dict[str, ReadoutConfig], network: ModelConfig, vocabulary: int, *, seconds: float
) -> dict[str, Any]:
    """Returns seconds for a step of all adapters, together and one by one; `ratios` are the former over the latter."""
    join_alone()
    torch.manual_seed(0)
    host = machine.describe()
    precision = readouts["p_probe"].precision
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    speeds: dict[str, float] = {}
    for load in loads(readouts, vocabulary):
        together, alone, flops = _measured(load, network, vocabulary, seconds, host)
        rows += [together, alone]
        ratios[load.name] = together.median / alone.median
        speeds |= {row.name: flops / row.median for row in (together, alone)}
    peak = machine.peak_of(host, precision)
    shares = {name: speed / peak for name, speed in speeds.items()}
    described = {"model": network.size, "vocabulary": vocabulary, "dropout": network.dropout, "precision": precision}
    formula = (
        "4 d^2 (12 (L - 1) T + 2 T + 10 P) + 8 L d T^2 + 4 C d P FLOPs of a member and row; ratios under 1 are faster"
    )
    return interleaved.result(rows, ratios, shares, host, described, formula)


def _measured(
    load: Load, network: ModelConfig, vocabulary: int, seconds: float, host: dict[str, Any]
) -> tuple[Row, Row, float]:
    """Returns the rows of all adapters together and one by one, and their FLOPs; keeps the best peaks in `host`."""
    cores = machine.cores()
    torch.set_num_threads(cores)
    # Each loop compiles the same functions again; beyond the limit they would run uncompiled.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64
    frozen = networks.build_network(network, vocabulary, 512, 0, 0).to(training_device())
    make = partial(_fleet, load, network, frozen)
    together: list[tuple[int, Loop]] = []
    sizes = []
    for whole in (False, True):
        kind = [m for m in load.members if (m.rank_embedding == "full") == whole]
        if not kind:
            continue
        with tempfile.TemporaryDirectory() as folder:
            runtime = RuntimeConfig(threads=cores)
            first = partial(_first, make, kind)
            size = adapter_batch_size.choose_batch_size(
                first, len(kind), load.readout, runtime, Path(folder) / "wave.json"
            )
        sizes.append(size)
        # Batches of one size take equally long, so the first stands for all.
        together.append((len(kind) // size, _engine_loop(load, make(kind[:size]))))
        if rest := len(kind) % size:
            together.append((1, _engine_loop(load, make(kind[-rest:]))))
    alone = [(count, _plain_loop(load, make([member]))) for member, count in _sampled(load)]

    def total(loops: Sequence[tuple[int, Loop]]) -> Loop:
        return lambda seconds: sum(count * loop(seconds / len(loops)) for count, loop in loops)

    timed = interleaved.interleave(
        {"together": total(together), "alone": total(alone)}, seconds, f"{load.name}, ", host
    )
    members = f"{len(load.members)} members"
    return (
        interleaved.row(load.name, timed["together"], "s", f"{members} in waves of {'/'.join(map(str, sizes))}"),
        interleaved.row(f"{load.name} one by one", timed["alone"], "s", members),
        load.flops(network) * len(load.members),
    )


def _sampled(load: Load) -> list[tuple[AdapterSpec, int]]:
    """Returns the adapters to measure alone, each with the number of adapters that it stands for."""
    if load.name != "lora_grid":
        return [(load.members[0], len(load.members))]

    def nearest(member: AdapterSpec) -> tuple[Rank, int]:
        if member.rank_embedding in (0, "full"):
            return member.rank_embedding, 8
        return (16, 8) if int(member.rank_embedding) <= 32 else (128, 8)

    stands = [nearest(member) for member in load.members]
    return [(AdapterSpec("alone", 0, e, r), stands.count((e, r))) for e, r in SAMPLED]


def _fleet(load: Load, network: ModelConfig, frozen: Any, members: Sequence[AdapterSpec]) -> StackedAdapters:
    adapters = Adapters(frozen, members, 1.0, network.dropout)
    if load.name == "lora_grid":
        return StackedAdapters(frozen, adapters, LanguageHead(frozen)).to(training_device()).train()
    width = frozen.config.hidden_size
    head = Classifier(members, [load.classes] * len(members), width, batch_norm=load.name == "q_probe")
    return StackedAdapters(frozen, adapters, head).to(training_device()).train()


def _first(make: Callable[[Sequence[AdapterSpec]], StackedAdapters], kind: Sequence[AdapterSpec], count: int) -> Any:
    fleet = make(kind[:count])
    load: Load = make.args[0]  # type: ignore[attr-defined]
    return fleet, _batch(load, fleet)


def _batch(load: Load, fleet: StackedAdapters) -> tuple[Tensor, ...]:
    members, rows = len(fleet.adapters.specs), load.readout.batch
    vocabulary = fleet.network.config.vocab_size
    ids = torch.randint(1, vocabulary, (members, rows, load.tokens))
    # Places are spread evenly over the row; the last one is its end.
    places = torch.linspace(load.tokens / load.places, load.tokens, load.places).long() - 1
    targets = torch.randint(0, load.classes, (members, rows, load.places))
    weights = torch.full(targets.shape, 1 / (rows * load.places))
    parts = (ids, places.expand(members, rows, -1), targets, weights, dropout_seeds([(0, "bench")] * members, 0))
    return tuple(part.to(training_device()) for part in parts)


def _engine_loop(load: Load, fleet: StackedAdapters) -> Loop:
    engine = Engine(fleet, load.readout, load.readout.batch, compile=COMPILE, clip=fleet.clip)
    batch = _batch(load, fleet)
    return _timed(lambda: engine.step(*batch, learning_rate=1e-4))


def _plain_loop(load: Load, fleet: StackedAdapters) -> Loop:
    setting, batch = load.readout, _batch(load, fleet)
    learned = [p for p in fleet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, weight_decay=setting.weight_decay, eps=setting.epsilon, fused=True)
    compiled: Callable[..., Tensor] = torch.compile(fleet)

    def step() -> None:
        with autocast(setting.precision, training_device()):
            loss = compiled(*batch).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, setting.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _timed(step)


def _timed(step: Callable[[], Any]) -> Loop:
    warmed: list[bool] = []

    def loop(seconds: float) -> float:
        for _ in range(0 if warmed else WARM):
            step()
        warmed.append(True)
        steps, passed = interleaved.repeated(lambda _: step(), seconds)
        return passed / steps

    return loop
