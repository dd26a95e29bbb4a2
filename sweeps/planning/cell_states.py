"""The state of each cell in the store, and what it tells the searchers and schedulers of a search."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from ktrain.config import CellConfig
from ktrain.data import corpus as corpora
from ktrain.errors import WrongRequest
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import Stages, lowest_recall, stages_of, texts
from ktrain.store.base import Store, StoreSnapshot
from ktrain.store.json_files import Damage, parse_curve
from ktrain.training.progress import DIVERGED
from sweeps.planning import feasibility
from sweeps.planning.grid import cells_by_part, searches
from sweeps.planning.sampling import Observation, Observe, loss_after
from sweeps.planning.sweep import Sweep
from sweeps.recipes import halving
from sweeps.recipes.halving import TO_THE_END, Fate


def fates_of(
    sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], most: int | None, observe: Observe
) -> dict[CellConfig, Fate]:
    """What the schedulers of searches have decided about cells. Of several that have a cell, and of sweeps without one,
    the one counts that lets it train longest."""
    fates: dict[CellConfig, Fate] = {}
    for leaf in sweep.leaves if any(leaf.scheduler for leaf in sweep.leaves) else ():
        try:
            (cells,) = cells_by_part(leaf, scale, overrides, most, observe).values()
        except WrongRequest:
            continue  # It cannot take the overrides, and is left out.
        drawn = [search.axes for search in searches(leaf, scale, overrides) if search.scheduler]
        plain = dict.fromkeys(cells, TO_THE_END)
        decided = halving.fates(cells, drawn[0], partial(loss_after, observe)) if drawn else plain
        for cell, fate in decided.items():
            fates[cell] = max(fate, fates.get(cell, fate), key=lambda one: one.reach)
    return fates


def observer(store: Store) -> Observe:
    """Looks up the metric of a search in the store."""
    losses = cache(partial(_losses, store))

    def observe(cell: CellConfig, metric: str) -> Observation:
        stages = stages_of(cell)
        if step := metric.partition("@")[2]:
            value = losses(stages.pretrain.key)(int(step))
            return Observation(value is not None, value)
        snapshot = store.snapshot(stage_keys([(cell, stages)]))
        state = state_of(cell, stages, snapshot, feasibility.refused_tasks(cell))
        if not is_final(state):
            return Observation(final=False)
        done = [snapshot.done[stage.key].metrics for stage in stages if stage.key in snapshot.done]
        values = [metrics[metric] for metrics in done if metric in metrics]
        # A network that does not recall what it read is not read out, and so is no sample to follow.
        return Observation(final=True, value=float(values[0]) if values and state == "done" else None)

    return observe


def _losses(store: Store, key: str) -> Callable[[int], float | None]:
    """What the store knows of the loss of a pretraining after so many steps: that of its last line up to there if it is
    done, that of the step itself if it has paused there or later, and infinity where it has diverged."""
    try:
        done = {int(line["step"]): float(line["loss"]) for line in parse_curve(store.read(key, "curve.json"))}
    except (FileNotFoundError, Damage):
        done = {}
    paused = {} if done else store.paused(key)
    unknown = math.inf if (store.failure(key) or "").startswith(DIVERGED) else None

    def loss(step: int) -> float | None:
        if not done:
            return paused.get(step, unknown)
        return done[max((line for line in done if line <= step), default=min(done))]

    return loss


def is_final(state: str) -> bool:
    """Whether a cell stays as it is however often its sweep runs."""
    return state == "done" or state.startswith(("blocked: recall", "blocked: not enough people", "stopped early"))


def stage_keys(cells: Iterable[tuple[CellConfig, Stages]]) -> set[str]:
    """The keys of the cells' stages, and of the texts that a language model writes for them."""
    keys = set()
    for cell, stages in cells:
        keys |= {stage.key for stage in stages} | {stage.key for stage, *_ in texts(cell)}
    return keys


def state_of(
    cell: CellConfig, stages: Stages, snapshot: StoreSnapshot, refused: Sequence[str], fate: Fate = TO_THE_END
) -> str:
    """The state of a cell in a snapshot of the store; what blocks it comes before what runs, has failed or is damaged.

    A cell whose readout is done is done without the stages before it, unless one of them is damaged.
    """
    damaged = damage_lines(stages, snapshot)
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
    elif fate.stopped or fate.waits:
        failure = snapshot.failures.get(stages.pretrain.key, "")
        diverged = fate.stopped and failure.startswith(DIVERGED)
        return f"stopped early: {failure.removeprefix(DIVERGED)}" if diverged else fate.state(cell.train.steps)
    for stage in stages:
        if line := snapshot.failures.get(stage.key):
            return f"failed: {line}"
    return f"damaged: {'; '.join(damaged)}" if damaged else "planned"


def damage_lines(stages: Stages, snapshot: StoreSnapshot) -> list[str]:
    """A line for each damaged stage, with its key."""
    return [f"{stage.key}: {snapshot.damaged[stage.key]}" for stage in stages if stage.key in snapshot.damaged]
