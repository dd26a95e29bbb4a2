"""The plan: cells, the distinct stages that they share, what is done, and what the rest would cost. Read-only."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ktrain.config import CellConfig
from ktrain.stages import Stage, Stages, axes, cell_key, stages_of
from ktrain.store.base import Store, StoreSnapshot
from sweeps.planning import cost, feasibility
from sweeps.planning.cell_states import damage_lines, fates_of, is_final, observer, stage_keys, state_of
from sweeps.planning.cost import Device
from sweeps.planning.grid import MOST_CELLS, cells_by_part, searches
from sweeps.planning.sampling import Search
from sweeps.planning.sweep import Sweep
from sweeps.recipes.halving import TO_THE_END, Fate
from sweeps.recipes.scales import MINIATURES


@dataclass(frozen=True)
class Planned:
    """One distinct stage and its cost. `state` is `done`, `to do`, or, if none of its cells comes to it, `blocked` or
    `stopped early`."""

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
    """One cell; `state` is `done`, `planned`, `running`, `failed: ...`, `blocked: ...`, `damaged: ...`, or what the
    scheduler of a search has made of it, `stopped early: ...` or `paused: ...`."""

    key: str
    cell: CellConfig
    stages: Stages
    state: str
    refused: tuple[str, ...] = ()
    """One line for each probe task whose classes have too few people."""
    parts: tuple[str, ...] = ()
    """The parts of the sweep, such as figures of the paper, that have this cell; if there are none, the sweep."""
    fate: Fate = TO_THE_END
    """What the scheduler of a search has decided about it, if there is one."""

    @cached_property
    def axes(self) -> dict[str, Any]:
        """All identity fields by axis name."""
        return axes(self.cell)

    @property
    def blocked(self) -> bool:
        """Whether the cell lacks something that running it does not produce."""
        return self.state.startswith("blocked")

    @property
    def stopped_early(self) -> bool:
        """Whether a search has done with it before the end of its training."""
        return self.state.startswith("stopped early")


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
            if search.searcher != "random" and not all(is_final(cell.state) for cell in drawn):
                count += max(search.cells - len(drawn), 0)
        return count

    @property
    def unfolding(self) -> bool:
        """Whether more is to do once the trials of the plan are done: searches draw cells, or let some train on."""
        return bool(self.waiting) or any(c.fate.step is not None and not c.fate.stopped for c in self.cells)

    def damage(self, cell: PlannedCell) -> list[str]:
        """Returns a line for each damaged stage of a cell, with its key; no number of the cell is to be shown."""
        return damage_lines(cell.stages, self.snapshot)

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
        runnable = {s.key for cell in self.cells if not (cell.blocked or cell.stopped_early) for s in cell.stages}
        stopped = {stage.key for cell in self.cells if cell.stopped_early for stage in cell.stages}
        planned = []
        for key, (stage, cell) in owners.items():
            unfinished = "to do" if key in runnable else "stopped early" if key in stopped else "blocked"
            state = "done" if key in self.snapshot.done else unfinished
            tokens, flops = cost.tokens(stage, cell), cost.flops(stage, cell)
            seconds = cost.seconds(stage, cell, self.speed(cell))
            size, passes = cost.size(stage, cell), cost.passes(stage, cell)
            planned.append(Planned(stage, state, tokens, flops, seconds, size, passes))
        return tuple(planned)

    @property
    def device(self) -> Device:
        """The device that estimates of time assume."""
        small = all(cost.parameters(cell.cell) < cost.MOST_ON_A_CORE for cell in self.cells)
        on_a_core = small or self.scale in MINIATURES
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
            if planned.state != "done" and not planned.state.startswith(("blocked", "stopped early", "paused")):
                groups.setdefault(planned.stages.pretrain.key, []).append(planned)
        return {key: tuple(cells) for key, cells in groups.items()}

    def pause_at(self, trial: str) -> int | None:
        """Returns the step of its pretraining at which a trial pauses; None where a cell of it trains to the end."""
        steps = [cell.fate.step for cell in self.trials()[trial] if not cell.fate.stopped]
        known = [step for step in steps if step is not None]
        return max(known) if known and len(known) == len(steps) else None

    def compared(self, trial: str) -> bool:
        """Whether the scheduler of a search decides about all cells of a trial."""
        return all(cell.fate.scheduler for cell in self.trials()[trial])

    def refreshed(self, keys: Collection[str]) -> "Plan":
        """Returns the plan of the cells with these keys alone, with their states in the store now; `varied` is still
        that of all cells."""
        chosen = [cell for cell in self.cells if cell.key in keys]
        snapshot = self.store.snapshot(stage_keys((cell.cell, cell.stages) for cell in chosen))
        cells = tuple(replace(c, state=state_of(c.cell, c.stages, snapshot, c.refused, c.fate)) for c in chosen)
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
    observe = observer(store)
    for part, cells in cells_by_part(sweep, scale, overrides, most, observe).items():
        for cell in dict.fromkeys(cells):
            parts.setdefault(cell, []).append(part)
    feasibility.forget_files()
    feasibility.check_all(parts, workers)
    stages = {cell: stages_of(cell) for cell in parts}
    snapshot = store.snapshot(stage_keys(stages.items()))
    fates = fates_of(sweep, scale, overrides, most, observe)
    planned = []
    for cell, names in parts.items():
        refused, fate = feasibility.refused_tasks(cell), fates.get(cell, TO_THE_END)
        state = state_of(cell, stages[cell], snapshot, refused, fate)
        planned.append(PlannedCell(cell_key(cell), cell, stages[cell], state, refused, tuple(names), fate))
    found = searches(sweep, scale, overrides)
    return Plan(sweep, scale, store, snapshot, tuple(planned), searches=found)


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
