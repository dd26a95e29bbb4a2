"""Speed of fleets against the same members trained one by one, in one run.

One by one is the best loop there is for it: the same forward for one member, compiled, in the same precision, with
fused AdamW and without an engine. The two take turns, on all cores.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ktrain import model, waves
from ktrain.adapters import Adapters, Member, Rank
from ktrain.config import Model, Readout, Runtime
from ktrain.dropout import seeds
from ktrain.engine import Engine, join_alone
from ktrain.fleet import Fleet
from ktrain.heads import Classifier, LanguageHead

ROUNDS = 3
WARM = 3
"""Steps before the clock starts: compilation, allocation."""
RANKS_QV: tuple[int, ...] = (2, 4, 8, 16, 32)
RANKS_EMBEDDING: tuple[Rank, ...] = (0, 16, 32, 64, 128, "full")
SAMPLED: tuple[tuple[Rank, int], ...] = ((0, 8), (16, 8), (128, 8), ("full", 8))
"""Members of the grid that are measured alone; the others take as long as the sampled one with the nearest r'."""
TASKS = 11

COMPILE = True

Loop = Callable[[float], float]
"""Runs steps for about so many seconds and returns seconds a step."""


@dataclass(frozen=True)
class Load:
    """One kind of fleet: its members, and what each reads in a step."""

    name: str
    readout: Readout
    members: tuple[Member, ...]
    tokens: int
    places: int
    classes: int

    def flops(self, network: Model) -> float:
        """Of one member's step: four a weight and token, the last layer's query and MLP at the places only.

        4 d^2 (12 (L - 1) T + 2 T + 10 P) + 8 L d T T + 4 C d P for each row.
        """
        shape = model.SHAPES[network.size]
        d, t, p = shape.width, self.tokens, self.places
        blocks = 4 * d * d * (12 * (shape.layers - 1) * t + 2 * t + 10 * p) + 8 * shape.layers * d * t * t
        return float(self.readout.batch * (blocks + 4 * self.classes * d * p))


def loads(readouts: dict[str, Readout], vocabulary: int) -> list[Load]:
    """The paper's grid of 30 adapters, and its eleven P-probes and Q-probes."""
    grid = tuple(Member(f"{e}-{r}", 0, e, r) for e in RANKS_EMBEDDING for r in RANKS_QV)
    probes = {
        kind: tuple(Member(str(k), 0, readouts[kind].rank_embedding, 0) for k in range(TASKS))
        for kind in ("p_probe", "q_probe")
    }
    question = readouts["qa_finetune"].model_copy(update={"method": "lora"})
    return [
        Load("lora_grid", question, grid, 24, 6, vocabulary),
        Load("p_probe", readouts["p_probe"], probes["p_probe"], 80, 6, 25),
        Load("q_probe", readouts["q_probe"], probes["q_probe"], 8, 1, 25),
    ]


def fleet(readouts: dict[str, Readout], network: Model, vocabulary: int, *, seconds: float) -> dict[str, Any]:
    """Seconds a step of all members, together and one by one, and the ratios of the two for each kind of fleet."""
    join_alone()
    torch.manual_seed(0)
    peak = _peak(readouts["p_probe"].precision)
    rows = [_measured(load, network, vocabulary, seconds, peak) for load in loads(readouts, vocabulary)]
    return {
        "ratios": {row["name"]: row["fleet"] / row["one_by_one"] for row in rows},
        "share_of_peak": {row["name"]: row["share_of_peak"] for row in rows},
        "rows": rows,
        "peak_flops": peak,
        "setting": {
            "model": network.size,
            "vocabulary": vocabulary,
            "dropout": network.dropout,
            "precision": readouts["p_probe"].precision,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
        },
    }


def text(found: dict[str, Any]) -> str:
    """The result as a small table."""
    setting = found["setting"]
    lines = [
        f"{setting['model']}, {setting['precision']}, matrix products reach {found['peak_flops'] / 1e9:,.0f} GFLOP/s:",
        f"  {'':<12}{'members':>8}{'wave':>6}{'together':>12}{'one by one':>13}{'ratio':>8}{'of peak':>9}{'alone':>8}",
    ]
    for row in found["rows"]:
        lines.append(
            f"  {row['name']:<12}{row['members']:>8}{'/'.join(map(str, row['waves'])):>6}{row['fleet']:>10.3f} s"
            f"{row['one_by_one']:>11.3f} s{found['ratios'][row['name']]:>8.2f}{row['share_of_peak']:>9.1%}"
            f"{row['share_of_peak_one_by_one']:>8.1%}"
        )
    return "\n".join(lines)


def _measured(load: Load, network: Model, vocabulary: int, seconds: float, peak: float) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    # Every loop is a compilation of its own of the same functions; beyond the limit they would run uncompiled.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 64
    frozen = model.build(network, vocabulary, 512, 0, 0).to(_device())
    make = partial(_fleet, load, network, frozen)
    together: list[tuple[int, Loop]] = []
    sizes = []
    for whole in (False, True):
        kind = [m for m in load.members if (m.rank_embedding == "full") == whole]
        if not kind:
            continue
        with tempfile.TemporaryDirectory() as folder:
            runtime = Runtime(threads=cores)
            first = partial(_first, make, kind)
            size = waves.size(first, len(kind), load.readout, runtime, Path(folder) / "wave.json")
        sizes.append(size)
        # Waves of one size take as long as the first of them.
        together.append((len(kind) // size, _engine_loop(load, make(kind[:size]))))
        if rest := len(kind) % size:
            together.append((1, _engine_loop(load, make(kind[-rest:]))))
    alone = [(count, _plain_loop(load, make([member]))) for member, count in _sampled(load)]
    timed: dict[str, list[float]] = {"fleet": [], "one_by_one": []}
    for _ in range(ROUNDS):
        for name, loops in (("fleet", together), ("one_by_one", alone)):
            timed[name].append(sum(count * loop(seconds / len(loops)) for count, loop in loops))
    best = {name: statistics.median(runs) for name, runs in timed.items()}
    flops = load.flops(network) * len(load.members)
    return {
        "name": load.name,
        "members": len(load.members),
        "waves": sizes,
        **best,
        "spread": {name: max(runs) - min(runs) for name, runs in timed.items()},
        "unit": "seconds for one step of all members",
        "threads": cores,
        "flops": flops,
        "share_of_peak": flops / best["fleet"] / peak,
        "share_of_peak_one_by_one": flops / best["one_by_one"] / peak,
    }


def _sampled(load: Load) -> list[tuple[Member, int]]:
    """Members to be measured alone, each with how many it stands for."""
    if load.name != "lora_grid":
        return [(load.members[0], len(load.members))]

    def nearest(member: Member) -> tuple[Rank, int]:
        if member.rank_embedding in (0, "full"):
            return member.rank_embedding, 8
        return (16, 8) if int(member.rank_embedding) <= 32 else (128, 8)

    stands = [nearest(member) for member in load.members]
    return [(Member("alone", 0, e, r), stands.count((e, r))) for e, r in SAMPLED]


def _fleet(load: Load, network: Model, frozen: Any, members: Sequence[Member]) -> Fleet:
    adapters = Adapters(frozen, members, 1.0, network.dropout)
    if load.name == "lora_grid":
        return Fleet(frozen, adapters, LanguageHead(frozen)).to(_device()).train()
    width = frozen.config.hidden_size
    head = Classifier(members, [load.classes] * len(members), width, batch_norm=load.name == "q_probe")
    return Fleet(frozen, adapters, head).to(_device()).train()


def _first(make: Callable[[Sequence[Member]], Fleet], kind: Sequence[Member], count: int) -> Any:
    fleet = make(kind[:count])
    load: Load = make.args[0]  # type: ignore[attr-defined]
    return fleet, _batch(load, fleet)


def _batch(load: Load, fleet: Fleet) -> tuple[Tensor, ...]:
    members, rows = len(fleet.adapters.members), load.readout.batch
    vocabulary = fleet.network.config.vocab_size
    ids = torch.randint(1, vocabulary, (members, rows, load.tokens))
    # Places spread over the row, the last one at its end.
    places = torch.linspace(load.tokens / load.places, load.tokens, load.places).long() - 1
    targets = torch.randint(0, load.classes, (members, rows, load.places))
    weights = torch.full(targets.shape, 1 / (rows * load.places))
    parts = (ids, places.expand(members, rows, -1), targets, weights, seeds([(0, "bench")] * members, 0))
    return tuple(part.to(_device()) for part in parts)


def _engine_loop(load: Load, fleet: Fleet) -> Loop:
    engine = Engine(fleet, load.readout, load.readout.batch, compile=COMPILE, clip=fleet.clip)
    batch = _batch(load, fleet)
    return _timed(lambda: engine.step(*batch, learning_rate=1e-4))


def _plain_loop(load: Load, fleet: Fleet) -> Loop:
    setting, batch = load.readout, _batch(load, fleet)
    learned = [p for p in fleet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, weight_decay=setting.weight_decay, eps=setting.epsilon, fused=True)
    compiled: Callable[..., Tensor] = torch.compile(fleet)

    def step() -> None:
        with torch.autocast(_device().type, torch.bfloat16, enabled=setting.precision == "bf16"):
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
        _wait()
        begin, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - begin < seconds:
            step()
            steps += 1
            _wait()
        return (time.perf_counter() - begin) / steps

    return loop


def _peak(precision: str) -> float:
    """FLOPs a second that a matrix product of the precision reaches here, on all cores."""
    size = 8192 if torch.cuda.is_available() else 2048
    torch.set_num_threads(os.cpu_count() or 1)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=_device(), dtype=kind) for _ in range(2))
    return 2 * size**3 / min(_timed(lambda: a @ b)(0.3) for _ in range(3))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
