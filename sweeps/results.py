"""Reads the results of a plan from MLflow and the store; what the store contradicts, or what rests on a damaged stage,
is not shown.

Like the command line and the report, this module knows ktrain, sweeps and analysis together.
"""

import io
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.measurements import curves as measurements_curves
from analysis.measurements.cells import Cell, Results, Search
from analysis.measurements.names import LEARNING, LOSS
from analysis.measurements.recorded import load_results
from ktrain.config import CellConfig
from ktrain.readout.kinds.base import kind_of
from sweeps.planning.departures import departures
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.tracking.runs import CellNumbers, UndeliverableStage, cell_numbers, learning_points, stored_losses
from sweeps.tracking.schema import await_schema
from sweeps.tracking.server_errors import refusal

REMEDY = "`ktrain run` delivers it again"


def read(plan: Plan, uri: str) -> Results:
    """Returns the results of a plan from MLflow and the store.

    Where the store has a cell's stages, whichever sweep has finished them, the cell has their numbers and its state in
    the store; `doubts` name what MLflow has instead. A cell with a damaged stage has no numbers. Raises `WrongRequest`
    if the server does not answer.
    """
    with _server_errors(uri):
        await_schema(uri)
        results = load_results(uri, plan.sweep.name, {cell.key: cell.axes for cell in plan.cells})
    cells = zip(plan.cells, results.cells, strict=True)
    compared = tuple(_compared(plan, planned, cell) for planned, cell in cells)
    return replace(results, cells=compared, searches=_searches(plan))


def _searches(plan: Plan) -> tuple[Search, ...]:
    """The searches of which only the best sample is shown."""
    searches = []
    for search in plan.searches:
        cells = [cell for cell in plan.cells if search.part in cell.parts]
        if search.metric:
            keys = frozenset(cell.key for cell in cells)
            following = _following([cell.cell for cell in cells])
            searches.append(Search(search.axes, search.metric, search.lowest, keys, following, search.chosen_on))
    return tuple(searches)


def _following(cells: Sequence[CellConfig]) -> tuple[str, ...]:
    """The axes of `stages.axes` that no cell sets in its own way: where their values differ, other axes say why."""
    kinds = {cell.readout.kind for cell in cells}
    set_to: dict[str, set[tuple[str, Any]]] = {
        "readout.dropout": {(cell.readout.kind, cell.readout.dropout) for cell in cells},
        "model.size": {(cell.readout.kind, cell.model.size) for cell in cells},
    }
    return tuple(axis for axis, values in set_to.items() if len(values) == len(kinds))


def undelivered(plan: Plan, results: Results) -> bool:
    """Whether the store has finished stages to which the runs of the sweep's cells in MLflow do not link."""
    return any(
        stage.key in plan.snapshot.done and stage.kind not in cell.runs
        for planned, cell in zip(plan.cells, results.cells, strict=True)
        if not plan.damage(planned)
        for stage in planned.stages
    )


def read_curves(plan: Plan, uri: str, results: Results) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the learning curves and losses behind the results that `read` has returned, and a line for each cell
    whose are left out, because they are not those in the store. Raises `WrongRequest` if the server does not answer."""
    with _server_errors(uri):
        curves = measurements_curves.read_curves(uri, results, (*LEARNING, LOSS))
    doubts = {cell.key: line for cell in plan.cells if (line := _curve_doubt(plan, cell, curves))}
    damaged = {cell.key for cell in plan.cells if plan.damage(cell)}
    return curves[~curves["key"].isin(doubts.keys() | damaged)], tuple(doubts.values())


def read_answers(plan: Plan, key: str, columns: Set[str]) -> pd.DataFrame | None:
    """Returns the predictions of the readout of the cell `key`; None where the store does not have them whole, with
    these columns."""
    (cell,) = (cell for cell in plan.cells if cell.key == key)
    if cell.stages.readout.key not in plan.snapshot.done or plan.damage(cell):
        return None
    try:
        answers = pd.read_parquet(io.BytesIO(plan.store.read(cell.stages.readout.key, "predictions.parquet")))
    except (FileNotFoundError, ValueError):
        return None
    return answers if set(answers.columns) >= columns else None


@contextmanager
def _server_errors(uri: str) -> Iterator[None]:
    """Turns any error of the tracking server into a one-line `WrongRequest`."""
    try:
        yield
    except Exception as e:
        raise refusal(uri, e) from e


def _compared(plan: Plan, planned: PlannedCell, cell: Cell) -> Cell:
    """The cell as it is to be shown."""
    finished = [stage for stage in planned.stages if stage.key in plan.snapshot.done]
    damage = plan.damage(planned)
    try:
        numbers = cell_numbers(plan, finished)
    except UndeliverableStage as e:
        damage, numbers = [*damage, str(e)], CellNumbers({}, {}, {})
    if damage:
        lines = tuple(f"{line}: no number of {cell.key} is shown" for line in damage)
        return replace(cell, state=f"damaged: {'; '.join(damage)}", metrics={}, n={}, interval={}, doubts=lines)
    if not cell.runs.keys() - {stage.kind for stage in finished}:
        known = {name.partition("/")[0] for name in numbers.metrics}
    else:
        # Of stages that are no longer in the store, MLflow may have numbers with the same names.
        prefix = kind_of(planned.cell.readout.kind).metric_prefix
        known = {prefix} & {name.partition("/")[0] for name in numbers.metrics}
    if len(finished) == len(planned.stages):
        cell = replace(cell, imported="")
    shown = _with_numbers(_as_stored(plan, planned, cell), numbers, known)
    # That MLflow lacks what was finished meanwhile, by another sweep perhaps, is no contradiction.
    late = not cell.doubts and any(stage.kind not in cell.runs for stage in finished)
    return replace(shown, doubts=()) if late else shown


def _as_stored(plan: Plan, planned: PlannedCell, cell: Cell) -> Cell:
    """The cell with its state, and what goes with it, as the store has them now.

    Where the store has no stage of it, MLflow knows better; so it does of a cell that is done.
    """
    places = {
        stage.kind: plan.snapshot.done[stage.key].where for stage in planned.stages if stage.key in plan.snapshot.done
    }
    if cell.done or (cell.state != "missing" and not places):
        return cell
    return replace(
        cell,
        state=planned.state,
        stages={**cell.stages, **places},
        scale=plan.scale,
        departures=tuple(departures([planned.cell])),
    )


def _with_numbers(cell: Cell, numbers: CellNumbers, known: set[str]) -> Cell:
    """The cell with `numbers` in place of all metrics whose names begin with a `known` part."""
    metrics = _replaced(cell.metrics, numbers.metrics, known)
    n = _replaced(cell.n, numbers.n, known)
    interval = _replaced(cell.interval, {name: (low, high) for name, (low, high) in numbers.interval.items()}, known)
    if (metrics, n, interval) == (cell.metrics, cell.n, cell.interval):
        return cell
    differences = [
        f"{name}{what}={_text(old.get(name))} instead of {_text(new.get(name))}"
        for what, old, new in (("", cell.metrics, metrics), (" n", cell.n, n), (" interval", cell.interval, interval))
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name)
    ]
    more = f" and {len(differences) - 1} more differences" if len(differences) > 1 else ""
    doubt = f"{cell.key}: MLflow has {min(differences)}{more} to the store, whose numbers are shown; {REMEDY}"
    return replace(cell, metrics=metrics, n=n, interval=interval, doubts=(doubt,))


def _replaced(old: Mapping[str, Any], new: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """`old` with the values of `new` for all names that begin with a known part."""
    others = {name: value for name, value in old.items() if name.partition("/")[0] not in known}
    return others | {name: value for name, value in new.items() if name.partition("/")[0] in known}


def _text(value: float | Sequence[float] | None) -> str:
    if value is None:
        return "nothing"
    return f"{value:g}" if isinstance(value, int | float) else "[" + ", ".join(f"{bound:g}" for bound in value) + "]"


def _curve_doubt(plan: Plan, cell: PlannedCell, curves: pd.DataFrame) -> str | None:
    """What is wrong with the learning curves of a cell in MLflow; None where they are those of the store, where none is
    delivered yet, and where the store no longer has them."""
    key = cell.stages.pretrain.key
    drawn = curves[curves["key"] == cell.key]
    if key not in plan.snapshot.done or drawn.empty:
        return None
    try:
        points, people = learning_points(plan, key)
        losses = stored_losses(plan, key)
    except UndeliverableStage as e:
        return f"{e}: no learning curve of {cell.key} is shown"
    stored = {(p.name, p.step): (p.value, people.get(f"learning.n.{_half(p.name)}")) for p in points}
    stored |= {(LOSS, step): (loss, None) for step, loss in losses.items()}
    recorded = {
        (name, step): (value, None if pd.isna(n) else int(n))
        for name, step, value, n in drawn[["metric", "step", "value", "n"]].itertuples(index=False, name=None)
    }
    if all(stored.get(place) == point for place, point in recorded.items()):
        return None
    return f"{cell.key}: MLflow has other learning curves than the store; they are not shown; {REMEDY}"


def _half(metric: str) -> str:
    return "train" if "/train/" in metric else "test"
