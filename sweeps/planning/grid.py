"""The expansion of a sweep's grid into cells, and the files that define sweeps."""

import contextlib
import logging
import re
import statistics
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ktrain.config import CellConfig
from ktrain.data.background import UNNAMED
from ktrain.errors import WrongRequest, nearest, shorten
from ktrain.system.home_folder import expanded
from sweeps.planning import sampling, space
from sweeps.planning.axes import BACKGROUND, check_axis, with_axes
from sweeps.planning.sampling import Observation, Observe, Search, unknown
from sweeps.planning.sweep import BUILTIN, NAME, Sweep
from sweeps.recipes.halving import Bracket
from sweeps.recipes.scales import SCALES, base
from sweeps.recipes.search import grid_search

log = logging.getLogger("ktrain.sweep")
MOST_CELLS = 100_000
"""A grid of more cells is taken for a mistake, unless `--many-cells` says otherwise."""


def load(name: str) -> Sweep:
    """Loads the sweep of a module in `sweeps/figures/` or of the user's own file, which defines `sweep = Sweep(...)`.

    Raises `WrongRequest` for an unknown name, and for a file that raises or defines no sweep.
    """
    path = expanded(name) if name.endswith(".py") else BUILTIN / f"{name}.py"
    if not path.is_file() or (not name.endswith(".py") and name not in builtin()):
        known = ", ".join(builtin())
        if name == "fig4":
            raise WrongRequest(f"sweep {name}: Figure 4 is an illustration without data; there are {known}")
        raise WrongRequest(f"sweep {name}: no such sweep or file; there are {known}{nearest(name, builtin())}")
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        with warnings.catch_warnings():
            # Python's remarks on the file would stand before the one line of a refusal.
            warnings.simplefilter("ignore", SyntaxWarning)
            code = compile(path.read_bytes(), str(path), "exec")
        # An import would write a __pycache__ beside the user's file, and might read a stale one there.
        exec(code, module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        raised = "" if isinstance(e, WrongRequest) else f"raises {type(e).__name__}"
        raise WrongRequest(f"sweep {name}: the file {raised}{_where(e, path)}: {shorten(e, 300)}") from e
    sweep = getattr(module, "sweep", None)
    if not isinstance(sweep, Sweep):
        raise WrongRequest(f"sweep {name}: the file defines no `sweep = Sweep(...)`")
    try:
        _ = sweep.depth
    except RecursionError:
        raise WrongRequest(f"sweep {name}: a sweep is a part of itself") from None
    if not re.fullmatch(NAME, sweep.name):
        raise WrongRequest(f"sweep {name}: Sweep(name={sweep.name!r}) is not a name of letters, digits, `_ .+-`")
    return sweep


def builtin() -> list[str]:
    """Returns the names of the sweeps that come with the project."""
    names = [p.stem for p in BUILTIN.glob("*.py") if "\nsweep = Sweep(" in p.read_text(encoding="utf-8")]
    # fig2 before fig10.
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def parse_overrides(words: Sequence[str]) -> dict[str, list[Any]]:
    """Parses words of the form `axis=v1,v2` into lists of values.

    Raises `WrongRequest` for any other word, and for an axis of two words.
    """
    overrides: dict[str, list[Any]] = {}
    for word in words:
        axis, equals, text = word.partition("=")
        values = text.split(",")
        if not equals or not all(values):
            raise WrongRequest(f"{word}: an axis is set as axis=v1,v2")
        if axis in overrides:
            together = ",".join(dict.fromkeys([*overrides[axis], *values]))
            raise WrongRequest(f"{word}: {axis} is set twice; several values are one word, {axis}={together}")
        overrides[axis] = values
    return overrides


def expand(
    sweep: Sweep,
    scale: str,
    overrides: Mapping[str, Sequence[Any]],
    most: int | None = MOST_CELLS,
    observe: Observe = unknown,
) -> list[CellConfig]:
    """Returns the cells of a sweep at a scale, in grid order and without duplicates.

    `overrides` replace axes of the grid or add to it: `{"seed": [0, 1, 2]}`. A part of a sweep that cannot take them is
    left out with a warning. If a sweep has cells whose `corpus.background` is still to be named, a folder given there
    goes to those cells alone. An adaptive search has the cells that follow from the results which `observe` knows.
    Raises `WrongRequest` naming the axis, and for a grid of more than `most` cells.
    """
    cells = cells_by_part(sweep, scale, overrides, most, observe).values()
    return list(dict.fromkeys(cell for of_part in cells for cell in of_part))


def cells_by_part(
    sweep: Sweep,
    scale: str,
    overrides: Mapping[str, Sequence[Any]],
    most: int | None = MOST_CELLS,
    observe: Observe = unknown,
) -> dict[str, list[CellConfig]]:
    """Returns the cells of `expand` by the name of each part that has them; without parts, by the sweep's own."""
    if scale not in SCALES:
        raise WrongRequest(f"scale={scale}: must be one of {', '.join(SCALES)}{nearest(scale, SCALES)}")
    for axis in overrides:
        check_axis(axis)
    if folders := overrides.get(BACKGROUND):
        without_folder = {axis: values for axis, values in overrides.items() if axis != BACKGROUND}
        parts = cells_by_part(sweep, scale, without_folder, most, observe)
        if any(_lacks_background(cell) for cells in parts.values() for cell in cells):
            return {name: _with_background(cells, folders) for name, cells in parts.items()}
    if sweep.parts:
        return _cells_of_parts(sweep, scale, overrides, most, observe)
    return {sweep.name: _cells(sweep, scale, overrides, most, observe)}


def _cells_of_parts(
    sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], most: int | None, observe: Observe
) -> dict[str, list[CellConfig]]:
    """The cells of each part that can take the overrides. Raises the first part's `WrongRequest` if none can."""
    parts: dict[str, list[CellConfig]] = {}
    refusals: list[tuple[str, WrongRequest]] = []
    for part in sweep.parts:
        try:
            cells = expand(part, scale, overrides, most, observe)
        except WrongRequest as e:
            if not overrides:
                raise
            refusals.append((part.name, e))
        else:
            parts.setdefault(part.name, []).extend(cells)
    if not parts:
        raise refusals[0][1]
    for name, refusal in refusals:
        log.warning("%s is left out: %s", name, refusal)
    return parts


def _lacks_background(cell: CellConfig) -> bool:
    return cell.corpus.background == UNNAMED


def _with_background(cells: Sequence[CellConfig], folders: Sequence[Any]) -> list[CellConfig]:
    """The cells, with one for each folder in place of every cell whose folder is still to be named."""
    named = []
    for cell in cells:
        if _lacks_background(cell):
            named += [with_axes(cell, {BACKGROUND: folder}) for folder in folders]
        else:
            named.append(cell)
    return named


def _cells(
    sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], most: int | None, observe: Observe
) -> list[CellConfig]:
    """The cells of a sweep without parts."""
    axes, drawn = _axes(sweep, scale, overrides)
    if most is not None and (count := space.count(axes) * (sweep.samples if drawn else 1)) > most:
        raise WrongRequest(
            f"sweep {sweep.name}: its grid has {shorten(f'{count:,}')} cells, above {most:,}; --many-cells allows it"
        )

    def made(variant: Mapping[str, Any], sample: Mapping[str, Any]) -> CellConfig:
        changes = sampling.joined(sweep.name, sample, dict(space.merged(variant, overrides)))
        kind = changes.get("readout.kind")
        return with_axes(base(scale, kind if isinstance(kind, str) else ""), changes)

    if drawn and sweep.searcher == "optuna":
        cells = [cell for point in space.points(axes) for cell in _proposed_cells(sweep, drawn, point, made, observe)]
    else:
        samples = sampling.samples_of(drawn, sweep=sweep.name, search_seed=sweep.search_seed, count=sweep.samples)
        # All variants have the same samples, so that what they differ in is compared at the same settings.
        cells = [made(variant, sample) for variant in space.variants(axes) for sample in samples]
    if not cells:
        raise WrongRequest(f"sweep {sweep.name}: a grid search over nothing leaves no cell")
    sampling.check_metric(sweep.name, sweep.metric, drawn, cells)
    sampling.check_scheduler(sweep.name, sweep.scheduler, drawn, cells)
    return list(dict.fromkeys(cells))


def _axes(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The space of a sweep's grid, and apart from it the axes that are drawn; one that is overridden is not."""
    grid = _grid(sweep, scale)
    drawn = {axis: value for axis, value in _drawn(sweep, grid).items() if axis not in overrides}
    fixed = {axis: value for axis, value in grid.items() if axis not in drawn}
    return space.checked({**fixed, **{axis: grid_search(list(values)) for axis, values in overrides.items()}}), drawn


def _proposed_cells(
    sweep: Sweep,
    drawn: Mapping[str, Any],
    point: Sequence[Mapping[str, Any]],
    made: Callable[[Mapping[str, Any], Mapping[str, Any]], CellConfig],
    observe: Observe,
) -> list[CellConfig]:
    """The cells of one point of the grid, with all its seeds, as far as an adaptive search has proposed them.

    A sample is worth the mean over its seeds. One that no cell can have is told to the searcher as a failure, but for
    the first ones, which are refused before any compute.
    """

    def cells_of(sample: Mapping[str, Any]) -> list[CellConfig]:
        return [made(variant, sample) for variant in point]

    bracket = Bracket(partial(sampling.loss_after, observe))

    def observed(sample: Mapping[str, Any]) -> Observation:
        try:
            cells = cells_of(sample)
        except WrongRequest:
            return Observation(final=True)
        if sweep.scheduler and (fate := bracket.add(cells)).step is not None:
            return Observation(fate.stopped, fate.told)
        seen = [observe(cell, sweep.metric) for cell in cells]
        values = [one.value for one in seen if isinstance(one.value, float)]
        return Observation(all(one.final for one in seen), statistics.fmean(values) if values else None)

    samples = sampling.proposed_samples(
        drawn,
        observed,
        sweep=sweep.name,
        search_seed=sweep.search_seed,
        count=sweep.samples,
        lowest=sampling.METRICS[sweep.metric] == "lowest",
        point=space.point_name(point[0]),
    )
    cells = [cell for sample in samples[: sampling.STARTUP] for cell in cells_of(sample)]
    for sample in samples[sampling.STARTUP :]:
        with contextlib.suppress(WrongRequest):
            cells += cells_of(sample)
    return cells


def searches(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]], part: str = "") -> tuple[Search, ...]:
    """Returns the searches of a sweep and of its parts; an axis that is overridden is not drawn."""
    if sweep.parts:
        return tuple(found for inner in sweep.parts for found in searches(inner, scale, overrides, part or inner.name))
    axes, drawn = _axes(sweep, scale, overrides)
    if not drawn:
        return ()
    cells = space.count(axes) * sweep.samples
    name, axes_drawn = part or sweep.name, tuple(drawn)
    return (Search(name, sweep.samples, axes_drawn, sweep.metric, sweep.searcher, cells, sweep.scheduler),)


def _drawn(sweep: Sweep, grid: Mapping[Any, Any]) -> dict[str, Any]:
    """The axes of a sweep's grid with distributions."""
    try:
        return sampling.distributions(grid, sweep.samples)
    except WrongRequest as e:
        raise WrongRequest(f"sweep {sweep.name}: {e}") from e


def _grid(sweep: Sweep, scale: str) -> dict[Any, Any]:
    """The grid of a sweep at a scale. Raises `WrongRequest` for a function that raises or returns no dict."""
    if not callable(sweep.grid):
        return dict(sweep.grid)
    try:
        grid = sweep.grid(scale)
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        line = f"sweep {sweep.name}: no grid at scale={scale}: {type(e).__name__}: {shorten(e, 300)}"
        raise WrongRequest(line) from e
    if not isinstance(grid, Mapping):
        raise WrongRequest(f"sweep {sweep.name}: no grid at scale={scale}: {shorten(grid)} is no dict of axes")
    return dict(grid)


def _where(error: BaseException, path: Path) -> str:
    """Names the line of the file at which an error was raised; empty if it was not raised there."""
    trace, line = error.__traceback__, None
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" in line {line}" if line else ""
