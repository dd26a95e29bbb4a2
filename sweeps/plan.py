"""The plan: cells, the distinct stages that they share, what is done and what it would cost. Touches nothing."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ktrain import corpus as corpora
from ktrain import people, pools, probes, shapes, templates
from ktrain.config import Cell
from ktrain.errors import WrongRequest
from ktrain.lease import holder
from ktrain.stages import Stage, axes, cell_key, chain, lowest_recall
from ktrain.store import Store
from sweeps import sweep as grids
from sweeps.scales import base
from sweeps.sweep import Sweep

log = logging.getLogger("ktrain.plan")
TOKENS_PER_QUESTION = 24
TOKENS_PER_NAME = 8
TOKENS_PER_ENTRY = {"gpt2": 73, "bpe": 82}
"""Typical lengths, for estimates only."""
FLOPS_PER_SECOND = {"mini": 1.1e11, "gpu": 4e14}
"""What the estimates assume: a laptop's core, and 40 % of an H100's bf16 peak."""


@dataclass(frozen=True)
class Planned:
    """One distinct stage and what doing it means."""

    stage: Stage
    state: str
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class PlannedCell:
    """One cell; `state` is `done`, `planned`, `running`, `failed: ...` or `blocked: ...`."""

    key: str
    cell: Cell
    stages: tuple[Stage, ...]
    state: str
    refused: tuple[str, ...] = ()
    """One line for each probe task whose classes have too few people."""

    @property
    def axes(self) -> dict[str, Any]:
        """All identity fields by axis name."""
        return axes(self.cell)


@dataclass(frozen=True)
class Plan:
    """A sweep at a scale against a store."""

    sweep: Sweep
    scale: str
    store: Store
    cells: tuple[PlannedCell, ...]

    def refused(self) -> list[str]:
        """The probe tasks that are not run, each with the numbers and the cells that miss it."""
        found: dict[str, list[str]] = {}
        for cell in self.cells:
            for line in cell.refused:
                found.setdefault(line, []).append(cell.key)
        return [f"{line} ({len(keys)} cells)" for line, keys in found.items()]

    def varied(self) -> list[str]:
        """The axes whose value differs between cells; of a readout, between cells of one kind."""
        found = []
        for axis in self.cells[0].axes if self.cells else ():
            of_kind = axis.startswith("readout.") and axis != "readout.kind"
            values: dict[str, set[Any]] = {}
            for cell in self.cells:
                values.setdefault(cell.cell.readout.kind if of_kind else "", set()).add(cell.axes[axis])
            if any(len(different) > 1 for different in values.values()):
                found.append(axis)
        return found

    @cached_property
    def stages(self) -> tuple[Planned, ...]:
        """The distinct stages, parents before children."""
        owners = {stage.key: (stage, cell.cell) for cell in self.cells for stage in cell.stages}
        return tuple(self._planned(stage, cell) for stage, cell in owners.values())

    def trials(self) -> dict[str, list[Cell]]:
        """What is to be run: the unfinished cells by the key of the pretraining that they share."""
        groups: dict[str, list[Cell]] = {}
        for planned in self.cells:
            if planned.state != "done" and not planned.state.startswith("blocked"):
                groups.setdefault(planned.stages[1].key, []).append(planned.cell)
        return groups

    def as_json(self) -> dict[str, Any]:
        """The contract of `plan --json`."""
        return {
            "sweep": self.sweep.name,
            "scale": self.scale,
            "cells": [
                {
                    "key": c.key,
                    "axes": c.axes,
                    "stages": [s.key for s in c.stages],
                    "state": c.state,
                    "refused": list(c.refused),
                }
                for c in self.cells
            ],
            "stages": [
                {
                    "key": p.stage.key,
                    "kind": p.stage.kind,
                    "state": p.state,
                    "tokens": p.tokens,
                    "flops": p.flops,
                    "seconds": p.seconds,
                }
                for p in self.stages
            ],
            "totals": self.totals(),
        }

    def totals(self) -> dict[str, Any]:
        """Sums over the distinct stages; those with `to_do` leave out what is done."""
        missing = [p for p in self.stages if p.state != "done"]
        return {
            "cells": len(self.cells),
            "cells_done": sum(c.state == "done" for c in self.cells),
            "stages": len(self.stages),
            "stages_done": len(self.stages) - len(missing),
            "tokens": sum(p.tokens for p in self.stages),
            "tokens_to_do": sum(p.tokens for p in missing),
            "flops": sum(p.flops for p in self.stages),
            "flops_to_do": sum(p.flops for p in missing),
            "seconds_to_do": sum(p.seconds for p in missing),
            "bytes": sum(_bytes(p.stage, cell) for p, cell in zip(self.stages, self._owners, strict=True)),
        }

    def departures(self) -> list[str]:
        """Where these cells differ from the paper, and what had to be assumed because the paper does not say."""
        lines: dict[str, dict[str, None]] = {}
        for cell in self.cells:
            paper = axes(base("full", cell.cell.readout.kind))
            for axis, value in paper.items():
                if axis not in PAPER_VARIES and cell.axes[axis] != value:
                    kind = f" ({cell.cell.readout.kind})" if axis.startswith("readout.") else ""
                    lines.setdefault(f"{axis}{kind}: the paper has {value}, here ", {})[str(cell.axes[axis])] = None
        found = [line + ", ".join(values) for line, values in lines.items()]
        kinds = {cell.cell.readout.kind for cell in self.cells}
        return found + [f"assumed: {text}" for text, about in ASSUMED.items() if not about or about & kinds]

    @property
    def _owners(self) -> list[Cell]:
        return list({stage.key: cell.cell for cell in self.cells for stage in cell.stages}.values())

    def _planned(self, stage: Stage, cell: Cell) -> Planned:
        tokens = _tokens(stage, cell)
        context = cell.train.context if stage.kind == "pretrain" else _row(cell)
        per_token = shapes.flops_per_token(cell.model, _vocabulary(cell), context)
        # Frozen weights have no gradient: four of the six multiplications a parameter.
        share = 2 / 3 if stage.kind not in ("corpus", "pretrain") and cell.readout.adapted else 1.0
        flops = 0.0 if stage.kind in ("corpus", "mixed") else float(tokens * per_token * share)
        speed = FLOPS_PER_SECOND["mini" if cell.model.size == "mini" else "gpu"]
        seconds = flops / speed if flops else tokens / 5e6
        return Planned(stage, "done" if finished(self.store, stage.key) else "to do", tokens, flops, seconds)


PAPER_VARIES = {
    "corpus.multi", "corpus.permute", "corpus.fullname", "train.qa_ratio", "readout.kind", "readout.beam", "seed",
    "readout.rank_qv", "readout.rank_embedding", "readout.method", "readout.people_per_class",
}  # fmt: skip
"""Axes that the paper itself varies: no departure."""
_ANSWERS, _PROBES = {"qa_finetune", "mixed"}, {"p_probe", "q_probe"}
ASSUMED: dict[str, set[str]] = {
    "no dropout in pretraining (model.dropout), initial weights normal with deviation 0.02": set(),
    "AdamW's betas 0.9, 0.999 at full scale, gradient clipping at 1, weight decay on every parameter": set(),
    "bf16 by autocast, fp32 weights": set(),
    "a finetuning row holds one question and the loss covers its answer (readout.loss)": {"qa_finetune"},
    "LoRA products scaled by 1 (readout.lora_scale), and the output embedding not updated": {"qa_finetune", *_PROBES},
    "answers are greedy unless readout.beam is 4, as in the paper, which reports the same without beam": _ANSWERS,
    "probes train with the dropout of the network on (model.dropout), and read after the final norm": _PROBES,
    "P-probes: an EOS before the entry, all entries of a person (readout.entries), the loss averaged over places": {
        "p_probe"
    },
    "Q-probes: EOS is both start and end token": {"q_probe"},
    "probes: a task needs so many training people a class (readout.people_per_class)": _PROBES,
    "biography templates and pools are this project's own, of the paper's sizes": set(),
}
"""What the paper does not state, and the readout kinds that it concerns; none is all of them."""


def make(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], store: Store, workers: int = 1) -> Plan:
    """The plan of a sweep. Raises `WrongRequest` for anything that could not run."""
    cells = grids.expand(sweep, scale, overrides)
    for folder in {c.corpus.pools_folder for c in cells if c.corpus.pools_folder}:
        for line in pools.load(folder).contained():
            log.warning("%s: %s; an answer may be taken for the other", folder, line)
    for cell in cells:
        check(cell, workers)
    return Plan(sweep, scale, store, tuple(_cell(cell, store) for cell in cells))


def check(cell: Cell, workers: int = 1) -> None:
    """Finds in a moment what would fail after minutes. Raises `WrongRequest`."""
    drawn = pools.shrink(pools.load(cell.corpus.pools_folder), cell.corpus.pools)
    templates.load(cell.corpus.templates_folder)
    if cell.corpus.people + cell.corpus.celebrities > drawn.names:
        # The same words as where they are drawn.
        people.draw(drawn, cell.corpus.people, cell.seed, cell.corpus.celebrities)
    for name in ("train", "readout") if cell.readout.kind != "mixed" else ("train",):
        batch = getattr(cell, name).batch
        if batch % workers:
            raise WrongRequest(f"workers={workers}: does not divide {name}.batch={batch}")


def finished(store: Store, key: str) -> bool:
    """Whether a stage is complete and says what came out; one whose numbers are damaged is to be built again."""
    if not store.exists(key):
        return False
    try:
        store.metrics(key)
    except FileNotFoundError:
        return False
    return True


def _cell(cell: Cell, store: Store) -> PlannedCell:
    stages = chain(cell)
    refused = tuple(_refused(cell).values()) if cell.readout.probe else ()
    return PlannedCell(cell_key(cell), cell, stages, _state(cell, stages, store, refused), refused)


def _refused(cell: Cell) -> dict[probes.Task, str]:
    drawn = pools.shrink(pools.load(cell.corpus.pools_folder), cell.corpus.pools)
    plain = cell.corpus.model_copy(update={"multi": 1, "permute": 0, "fullname": False})
    people = int(cell.corpus.people * cell.corpus.question_share)
    return probes.refused(drawn, _bpe(plain, cell.seed), people, cell.readout)


_bpe = cache(corpora.bpe_of)
"""Cells that differ in how their people are described share a tokenizer."""


def _state(cell: Cell, stages: Sequence[Stage], store: Store, refused: Sequence[str]) -> str:
    _, pretrain, readout = stages
    if finished(store, readout.key):
        return "done"
    if len(refused) == len(probes.TASKS):
        return f"blocked: not enough people: {refused[-1]}"
    for stage in stages:
        if holder(store.root, stage.key):
            return "running"
    if finished(store, pretrain.key):
        recalled = lowest_recall(store.metrics(pretrain.key))
        if recalled < cell.readout.recall_gate:
            return f"blocked: recall {recalled:.1%}"
    for line in filter(None, (store.failure(stage.key) for stage in stages)):
        return f"failed: {line}"
    return "planned"


def _tokens(stage: Stage, cell: Cell) -> int:
    if stage.kind == "pretrain":
        return cell.train.steps * cell.train.batch * cell.train.context
    if stage.kind in ("qa_finetune", "p_probe", "q_probe"):
        members = len(probes.TASKS) if cell.readout.probe else 1
        return cell.readout.steps * cell.readout.batch * _row(cell) * members
    if stage.kind == "mixed":
        return cell.corpus.people * 6 * TOKENS_PER_QUESTION
    entry = TOKENS_PER_ENTRY["gpt2" if cell.corpus.tokenizer == "gpt2" else "bpe"]
    return cell.corpus.people * (cell.corpus.entries_per_person * entry + 6 * TOKENS_PER_QUESTION)


def _row(cell: Cell) -> int:
    """Tokens that a readout's row holds."""
    if cell.readout.kind == "p_probe":
        return TOKENS_PER_ENTRY["gpt2" if cell.corpus.tokenizer == "gpt2" else "bpe"]
    return TOKENS_PER_NAME if cell.readout.kind == "q_probe" else TOKENS_PER_QUESTION


def _bytes(stage: Stage, cell: Cell) -> int:
    """Disk: tokens in two bytes, or a model in fp32."""
    if stage.kind == "corpus":
        return _tokens(stage, cell) * 2
    if stage.kind in ("p_probe", "q_probe"):
        # Adapters and heads, and a few bytes for every example of the predictions.
        per_task = _vocabulary(cell) * int(cell.readout.rank_embedding if cell.readout.rank_embedding != "full" else 0)
        return len(probes.TASKS) * (4 * per_task + 16 * cell.corpus.people * cell.corpus.entries_per_person)
    return 4 * shapes.parameters(cell.model, _vocabulary(cell))


def _vocabulary(cell: Cell) -> int:
    return 50_257 if cell.corpus.tokenizer == "gpt2" else int(cell.corpus.tokenizer.removeprefix("bpe-"))
