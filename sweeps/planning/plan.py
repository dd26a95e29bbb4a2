"""The plan: cells, the distinct stages that they share, what is done, and what the rest would cost. Read-only."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import Stage, Stages, axes, cell_key, lowest_recall, stages_of, texts
from ktrain.store.base import Store, StoreSnapshot
from sweeps.planning import cost, feasibility
from sweeps.planning.cost import Device
from sweeps.planning.grid import MOST_CELLS, cells_by_part, searches
from sweeps.planning.sampling import Observation, Observe, Search
from sweeps.planning.sweep import Sweep


@dataclass(frozen=True)
class Planned:
    """One distinct stage and its cost. `state` is `done`, `to do`, or, if all its cells are blocked, `blocked`."""

    stage: Stage
    state: str
    tokens: int
    flops: float
    seconds: float
    bytes: int
    passes: float | None
    """How often it trains on each training question, about; None if on no questions."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell; `state` is `done`, `planned`, `running`, `failed: ...`, `blocked: ...` or `damaged: ...`."""

    key: str
    cell: CellConfig
    stages: Stages
    state: str
    refused: tuple[str, ...] = ()
    """One line for each probe task whose classes have too few people."""
    parts: tuple[str, ...] = ()
    """The parts of the sweep, such as figures of the paper, that have this cell; if there are none, the sweep."""

    @cached_property
    def axes(self) -> dict[str, Any]:
        """All identity fields by axis name."""
        return axes(self.cell)

    @property
    def blocked(self) -> bool:
        """Whether the cell lacks something that running it does not produce."""
        return self.state.startswith("blocked")


@dataclass(frozen=True)
class Plan:
    """A sweep at a scale against a store."""

    sweep: Sweep
    scale: str
    store: Store
    snapshot: StoreSnapshot
    """What the store held of these stages when the plan was made."""
    cells: tuple[PlannedCell, ...]
    chosen: Device | None = None
    """The device that the user wants times for. None: a laptop's core at scale `mini` and for miniature networks,
    else an H100."""
    gpus: int = 1
    """How many devices work at once."""
    price_per_hour: float | None = None
    """Dollars for an hour of one device."""
    searches: tuple[Search, ...] = ()
    """The searches that have drawn cells of the plan."""

    @property
    def waiting(self) -> int:
        """How many cells adaptive searches will draw once those of the plan are done; each is one at most."""
        count = 0
        for search in self.searches:
            drawn = [cell for cell in self.cells if search.part in cell.parts]
            if search.searcher != "random" and not all(_is_final(cell.state) for cell in drawn):
                count += max(search.cells - len(drawn), 0)
        return count

    def damage(self, cell: PlannedCell) -> list[str]:
        """Returns a line for each damaged stage of a cell, with its key; no number of the cell is to be shown."""
        return _damage(cell.stages, self.snapshot)

    def refused(self) -> list[str]:
        """Returns a line for each probe task that does not run, with the numbers and how many cells lack it."""
        cells: dict[str, int] = {}
        for cell in self.cells:
            for line in cell.refused:
                cells[line] = cells.get(line, 0) + 1
        return [f"{line} ({count} cells)" for line, count in cells.items()]

    def varied(self, part: str = "") -> list[str]:
        """Returns the axes whose values differ between the cells of a part, or of the whole sweep.

        Axes of the readout count only if they differ between cells of one readout kind.
        """
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
        runnable = {stage.key for cell in self.cells if not cell.blocked for stage in cell.stages}
        planned = []
        for key, (stage, cell) in owners.items():
            state = "done" if key in self.snapshot.done else "to do" if key in runnable else "blocked"
            tokens, flops = cost.tokens(stage, cell), cost.flops(stage, cell)
            seconds = cost.seconds(stage, cell, self.speed(cell))
            size, passes = cost.size(stage, cell), cost.passes(stage, cell)
            planned.append(Planned(stage, state, tokens, flops, seconds, size, passes))
        return tuple(planned)

    @property
    def device(self) -> Device:
        """The device that estimates of time assume."""
        small = all(cost.parameters(cell.cell) < cost.MOST_ON_A_CORE for cell in self.cells)
        on_a_core = small or self.scale == "mini"
        return self.chosen or (cost.CORE if on_a_core else cost.gpu("h100"))

    def speed(self, cell: CellConfig) -> float:
        """Returns FLOP/s: the chosen device's, else those measured in finished pretrainings of the same network."""
        return (not self.chosen and self.measured.get(_network(cell))) or self.device.speed

    @cached_property
    def measured(self) -> dict[str, float]:
        """Median FLOP/s over the plan's finished pretrainings, by family and size of the network."""
        speeds: dict[str, dict[str, float]] = {}
        for planned in self.cells:
            key, cell = planned.stages.pretrain.key, planned.cell
            if key in self.snapshot.done:
                tokens_per_second = float(self.snapshot.done[key].metrics.get("speed/tokens_per_second", 0.0))
                flops_per_second = tokens_per_second * cost.per_token(cell, cell.train.context)
                speeds.setdefault(_network(cell), {})[key] = flops_per_second
        return {network: statistics.median(by_key.values()) for network, by_key in speeds.items()}

    def trials(self) -> dict[str, tuple[PlannedCell, ...]]:
        """Returns the cells to run, grouped into trials by the key of the pretraining that they share."""
        return self._trials

    @cached_property
    def _trials(self) -> dict[str, tuple[PlannedCell, ...]]:
        groups: dict[str, list[PlannedCell]] = {}
        for planned in self.cells:
            if planned.state != "done" and not planned.blocked:
                groups.setdefault(planned.stages.pretrain.key, []).append(planned)
        return {key: tuple(cells) for key, cells in groups.items()}

    def refreshed(self, keys: Collection[str]) -> "Plan":
        """Returns the plan of the cells with these keys alone, with their states in the store now; `varied` is still
        that of all cells."""
        chosen = [cell for cell in self.cells if cell.key in keys]
        snapshot = self.store.snapshot(_stage_keys((cell.cell, cell.stages) for cell in chosen))
        cells = tuple(replace(c, state=_state(c.cell, c.stages, snapshot, c.refused)) for c in chosen)
        narrowed = replace(self, snapshot=snapshot, cells=cells)
        # What varies in the sweep names its runs, also where only some of its cells are looked at.
        vars(narrowed)["_varied"] = self._varied
        return narrowed


def make(
    sweep: Sweep,
    scale: str,
    overrides: Mapping[str, Sequence[Any]],
    store: Store,
    workers: int = 1,
    most: int | None = MOST_CELLS,
) -> Plan:
    """Plans a sweep: expands its grid, checks that its cells can run, and looks up their stages in the store.

    Raises `WrongRequest` for anything that could not run, and for a grid of more than `most` cells.
    """
    parts: dict[CellConfig, list[str]] = {}
    for part, cells in cells_by_part(sweep, scale, overrides, most, _observer(store)).items():
        for cell in dict.fromkeys(cells):
            parts.setdefault(cell, []).append(part)
    feasibility.forget_files()
    feasibility.check_all(parts, workers)
    stages = {cell: stages_of(cell) for cell in parts}
    snapshot = store.snapshot(_stage_keys(stages.items()))
    planned = []
    for cell, names in parts.items():
        refused = feasibility.refused_tasks(cell)
        state = _state(cell, stages[cell], snapshot, refused)
        planned.append(PlannedCell(cell_key(cell), cell, stages[cell], state, refused, tuple(names)))
    found = searches(sweep, scale, overrides)
    return Plan(sweep, scale, store, snapshot, tuple(planned), searches=found)


def _observer(store: Store) -> Observe:
    """Looks up the metric of a search in the store."""

    def observe(cell: CellConfig, metric: str) -> Observation:
        stages = stages_of(cell)
        snapshot = store.snapshot(_stage_keys([(cell, stages)]))
        state = _state(cell, stages, snapshot, feasibility.refused_tasks(cell))
        if not _is_final(state):
            return Observation(final=False)
        done = [snapshot.done[stage.key].metrics for stage in stages if stage.key in snapshot.done]
        values = [metrics[metric] for metrics in done if metric in metrics]
        # A network that does not recall what it read is not read out, and so is no sample to follow.
        return Observation(final=True, value=float(values[0]) if values and state == "done" else None)

    return observe


def _is_final(state: str) -> bool:
    """Whether a cell stays as it is however often its sweep runs."""
    return state == "done" or state.startswith(("blocked: recall", "blocked: not enough people"))


def _stage_keys(cells: Iterable[tuple[CellConfig, Stages]]) -> set[str]:
    """The keys of the cells' stages, and of the texts that a language model writes for them."""
    keys = set()
    for cell, stages in cells:
        keys |= {stage.key for stage in stages} | {stage.key for stage, *_ in texts(cell)}
    return keys


def _state(cell: CellConfig, stages: Stages, snapshot: StoreSnapshot, refused: Sequence[str]) -> str:
    """The state of a cell in a snapshot of the store; what blocks it comes before what runs, has failed or is damaged.

    A cell whose readout is done is done without the stages before it, unless one of them is damaged.
    """
    damaged = _damage(stages, snapshot)
    if stages.readout.key in snapshot.done and not damaged:
        return "done"
    written = all(stage.key in snapshot.done for stage, *_ in texts(cell))
    if missing := corpora.missing_inputs(cell.corpus, written=written):
        return f"blocked: {'; '.join(missing)}"
    if len(refused) == kind_of(cell.readout.kind).task_count(cell):
        return f"blocked: not enough people: {refused[-1]}"
    if any(stage.key in snapshot.held for stage in stages):
        return "running"
    if stages.pretrain.key in snapshot.done:
        recalled = lowest_recall(snapshot.done[stages.pretrain.key].metrics)
        if recalled < cell.readout.recall_gate:
            return f"blocked: recall {recalled:.1%}"
    for stage in stages:
        if line := snapshot.failures.get(stage.key):
            return f"failed: {line}"
    return f"damaged: {'; '.join(damaged)}" if damaged else "planned"


def _damage(stages: Stages, snapshot: StoreSnapshot) -> list[str]:
    return [f"{stage.key}: {snapshot.damaged[stage.key]}" for stage in stages if stage.key in snapshot.damaged]


def differing(cells: Sequence[PlannedCell]) -> list[str]:
    """Returns the axes whose values differ between cells; axes of the readout, between cells of one readout kind."""
    different = []
    for axis in cells[0].axes if cells else ():
        within_kind = axis.startswith("readout.") and axis != "readout.kind"
        values: dict[str, set[Any]] = {}
        for cell in cells:
            values.setdefault(cell.cell.readout.kind if within_kind else "", set()).add(cell.axes[axis])
        if any(len(of_kind) > 1 for of_kind in values.values()):
            different.append(axis)
    return different


def _network(cell: CellConfig) -> str:
    return f"{cell.model.family} {cell.model.name}"
