"""The plan: cells, the distinct stages that they share, what is done and what it would cost. Touches nothing."""

import logging
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from ktrain import corpus as corpora
from ktrain import people, pools, probes, templates
from ktrain.config import Augmentation, Cell, Corpus, Writer
from ktrain.errors import WrongRequest
from ktrain.stages import Stage, axes, cell_key, chain, lowest_recall, texts
from ktrain.store import Glance, Store
from sweeps import bill, cost
from sweeps import sweep as grids
from sweeps.cost import Device
from sweeps.departures import assumptions, departures
from sweeps.sweep import Sweep
from sweeps.writing_cost import Writing, wanted

log = logging.getLogger("ktrain.plan")


@dataclass(frozen=True)
class Planned:
    """One distinct stage and what doing it means. `state` is `done`, `to do`, or `blocked` with all of its cells."""

    stage: Stage
    state: str
    tokens: int
    flops: float
    seconds: float
    bytes: int


@dataclass(frozen=True)
class PlannedCell:
    """One cell; `state` is `done`, `planned`, `running`, `failed: ...` or `blocked: ...`."""

    key: str
    cell: Cell
    stages: tuple[Stage, ...]
    state: str
    refused: tuple[str, ...] = ()
    """One line for each probe task whose classes have too few people."""
    parts: tuple[str, ...] = ()
    """The parts of the sweep, such as figures of the paper, that have this cell; of a sweep without parts, itself."""

    @cached_property
    def axes(self) -> dict[str, Any]:
        """All identity fields by axis name."""
        return axes(self.cell)

    @property
    def blocked(self) -> bool:
        """Whether something is missing that running it does not make."""
        return self.state.startswith("blocked")


@dataclass(frozen=True)
class Plan:
    """A sweep at a scale against a store."""

    sweep: Sweep
    scale: str
    store: Store
    seen: Glance
    """What the store said of the stages when this was made."""
    cells: tuple[PlannedCell, ...]
    chosen: Device | None = None
    """What the user wants times for; None is a laptop's core for miniature networks and an H100 for others."""
    gpus: int = 1
    """How many devices work at once."""

    def refused(self) -> list[str]:
        """The probe tasks that are not run, each with the numbers and the cells that miss it."""
        found: dict[str, list[str]] = {}
        for cell in self.cells:
            for line in cell.refused:
                found.setdefault(line, []).append(cell.key)
        return [f"{line} ({len(keys)} cells)" for line, keys in found.items()]

    def varied(self, part: str = "") -> list[str]:
        """The axes whose value differs between cells, of a part or all; of a readout, between cells of one kind."""
        return self._varied[part]

    @cached_property
    def _varied(self) -> dict[str, list[str]]:
        groups: dict[str, list[PlannedCell]] = {"": []}
        for cell in self.cells:
            for part in ("", *cell.parts):
                groups.setdefault(part, []).append(cell)
        return {part: differing(cells) for part, cells in groups.items()}

    @cached_property
    def stages(self) -> tuple[Planned, ...]:
        """The distinct stages, parents before children."""
        owners = {stage.key: (stage, cell.cell) for cell in self.cells for stage in cell.stages}
        wanted = {s.key for c in self.cells if not c.blocked for s in c.stages}
        found = []
        for key, (stage, cell) in owners.items():
            state = "done" if key in self.seen.done else "to do" if key in wanted else "blocked"
            time = cost.seconds(stage, cell, self.speed(cell))
            need = cost.tokens(stage, cell), cost.flops(stage, cell), time, cost.size(stage, cell)
            found.append(Planned(stage, state, *need))
        return tuple(found)

    @property
    def device(self) -> Device:
        """What the estimates of time assume."""
        mini = all(cell.cell.model.size == "mini" for cell in self.cells)
        return self.chosen or (cost.CORE if mini else cost.gpu("h100"))

    def speed(self, cell: Cell) -> float:
        """FLOP/s: of the device, or where the user named none, those of pretrainings like this one that are done."""
        return (not self.chosen and self.measured.get(_network(cell))) or self.device.speed

    @cached_property
    def measured(self) -> dict[str, float]:
        """FLOP/s in pretraining, the median over the plan's finished stages, by family and size of the network."""
        found: dict[str, dict[str, float]] = {}
        for planned in self.cells:
            key, cell = planned.stages[1].key, planned.cell
            if key in self.seen.done:
                speed = float(self.seen.done[key].metrics.get("speed/tokens_per_second", 0.0))
                found.setdefault(_network(cell), {})[key] = speed * cost.per_token(cell, cell.train.context)
        return {network: statistics.median(speeds.values()) for network, speeds in found.items()}

    def trials(self) -> dict[str, tuple[PlannedCell, ...]]:
        """What is to be run: the unfinished cells by the key of the pretraining that they share."""
        return self._trials

    @cached_property
    def _trials(self) -> dict[str, tuple[PlannedCell, ...]]:
        groups: dict[str, list[PlannedCell]] = {}
        for planned in self.cells:
            if planned.state != "done" and not planned.blocked:
                groups.setdefault(planned.stages[1].key, []).append(planned)
        return {key: tuple(cells) for key, cells in groups.items()}

    def again(self, keys: Collection[str]) -> "Plan":
        """The cells of these keys alone, as they stand in the store now."""
        chosen = [cell for cell in self.cells if cell.key in keys]
        seen = self.store.glance(_keys({cell.cell: cell.stages for cell in chosen}))
        cells = tuple(replace(c, state=_state(c.cell, c.stages, seen, c.refused)) for c in chosen)
        return replace(self, seen=seen, cells=cells)

    def as_json(self) -> dict[str, Any]:
        """The contract of `plan --json`."""
        return {
            "sweep": self.sweep.name,
            "scale": self.scale,
            "cells": [
                {
                    "key": c.key,
                    "parts": list(c.parts),
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
                    "bytes": p.bytes,
                }
                for p in self.stages
            ],
            "totals": self.totals(),
            "departures": self.departures(),
        } | ({"writing": [writing.as_json() for writing in written]} if (written := self.writing()) else {})

    def totals(self) -> dict[str, Any]:
        """What all of it costs, and what is left of that: `bill.totals`."""
        return bill.totals(self)

    def writing(self) -> list[Writing]:
        """What a language model has to write before cells can run."""
        return wanted(self.cells, self.seen.done.keys(), self.device)

    def departures(self) -> list[str]:
        """Where these cells differ from the paper, and what had to be assumed because the paper does not say."""
        cells = [cell.cell for cell in self.cells]
        return departures(cells) + assumptions(cells)


def make(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], store: Store, workers: int = 1) -> Plan:
    """The plan of a sweep. Raises `WrongRequest` for anything that could not run."""
    parts: dict[Cell, dict[str, None]] = {}
    for name, cells in grids.divided(sweep, scale, overrides).items():
        for cell in cells:
            parts.setdefault(cell, {})[name] = None
    for folder in {c.corpus.pools_folder for c in parts if c.corpus.pools_folder}:
        for line in pools.load(folder).contained():
            log.warning("%s: %s; an answer may be taken for the other", folder, line)
    for cell in {_checked(cell): cell for cell in parts}.values():
        check(cell, workers)
    # The user's files may have changed since the last plan.
    _refused.cache_clear()
    chains = {cell: chain(cell) for cell in parts}
    seen = store.glance(_keys(chains))
    planned = tuple(_cell(cell, chains[cell], seen, tuple(names)) for cell, names in parts.items())
    return Plan(sweep, scale, store, seen, planned)


def _keys(chains: Mapping[Cell, Sequence[Stage]]) -> set[str]:
    """Of all stages of cells, those that a language model writes among them."""
    written = {stage.key for cell in chains for stage, *_ in texts(cell)}
    return written | {stage.key for stages in chains.values() for stage in stages}


def check(cell: Cell, workers: int = 1) -> None:
    """Finds in a moment what would fail after minutes. Raises `WrongRequest`."""
    drawn = pools.shrink(pools.load(cell.corpus.pools_folder), cell.corpus.pools)
    templates.load(cell.corpus.templates_folder)
    if cell.corpus.people + cell.corpus.celebrities > drawn.names:
        # The same words as where they are drawn.
        people.draw(drawn, cell.corpus.people, cell.seed, cell.corpus.celebrities)
    for name, batch in batches(cell).items():
        if batch % workers:
            raise WrongRequest(f"workers={workers}: does not divide {name}.batch={batch}")


def _checked(cell: Cell) -> tuple[Any, ...]:
    """What `check` looks at: cells that agree on it are checked once."""
    corpus = cell.corpus
    folders = corpus.pools_folder, corpus.pools, corpus.templates_folder
    return *folders, corpus.people, corpus.celebrities, *batches(cell).items()


def batches(cell: Cell) -> dict[str, int]:
    """The batches that workers share."""
    return {"train": cell.train.batch} | ({} if cell.readout.kind == "mixed" else {"readout": cell.readout.batch})


def _cell(cell: Cell, stages: tuple[Stage, ...], seen: Glance, parts: tuple[str, ...]) -> PlannedCell:
    refused: tuple[str, ...] = ()
    if cell.readout.probe:
        plain, readout = cell.corpus.model_copy(update=WRITTEN), cell.readout
        refused = _refused(plain, cell.seed, cell.learned_from, readout.people_per_class)
    return PlannedCell(cell_key(cell), cell, stages, _state(cell, stages, seen, refused), refused, parts)


WRITTEN = {
    "kind": "bioS", "multi": 1, "permute": 0, "fullname": False, "couple": 0, "celebrity_fraction": 0.0,
    "celebrity": Augmentation(), "background": None, "writer": Writer(),
}  # fmt: skip
"""Cells that differ in how their people are described share a tokenizer."""


@cache
def _refused(setting: Corpus, seed: int, learned: int, people_per_class: int) -> tuple[str, ...]:
    """Of so many people to learn from, the probe tasks that have too many classes."""
    drawn = pools.shrink(pools.load(setting.pools_folder), setting.pools)
    return tuple(probes.refused(drawn, lambda: corpora.bpe_of(setting, seed), learned, people_per_class).values())


def _state(cell: Cell, stages: Sequence[Stage], seen: Glance, refused: Sequence[str]) -> str:
    _, pretrain, readout = stages
    if readout.key in seen.done:
        return "done"
    written = all(stage.key in seen.done for stage, *_ in texts(cell))
    if lacking := corpora.lacking(cell.corpus, written=written):
        return f"blocked: {'; '.join(lacking)}"
    if len(refused) == len(probes.TASKS):
        return f"blocked: not enough people: {refused[-1]}"
    if any(stage.key in seen.held for stage in stages):
        return "running"
    if pretrain.key in seen.done:
        recalled = lowest_recall(seen.done[pretrain.key].metrics)
        if recalled < cell.readout.recall_gate:
            return f"blocked: recall {recalled:.1%}"
    for line in filter(None, (seen.failures.get(stage.key) for stage in stages)):
        return f"failed: {line}"
    return "planned"


def differing(cells: Sequence[PlannedCell]) -> list[str]:
    """The axes whose value differs between cells; of a readout, between cells of one kind."""
    found = []
    for axis in cells[0].axes if cells else ():
        of_kind = axis.startswith("readout.") and axis != "readout.kind"
        values: dict[str, set[Any]] = {}
        for cell in cells:
            values.setdefault(cell.cell.readout.kind if of_kind else "", set()).add(cell.axes[axis])
        if any(len(different) > 1 for different in values.values()):
            found.append(axis)
    return found


def _network(cell: Cell) -> str:
    return f"{cell.model.family} {cell.model.size}"
