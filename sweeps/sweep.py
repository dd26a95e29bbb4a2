"""A sweep: a grid over axes, expanded by Ray Tune's own variant generator into cells."""

import logging
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ktrain.background import TO_BE_NAMED
from ktrain.config import Cell
from ktrain.errors import WrongRequest, nearest
from ktrain.stages import axes
from sweeps.scales import SCALES, base

log = logging.getLogger("ktrain.sweep")
BUILTIN = Path(__file__).parent
AXES = tuple(axes(Cell()))
"""The names of all axes: every identity field of the config."""
BACKGROUND = "corpus.background"
MODEL = "corpus.writer.model"
FOLDERS = ("corpus.pools_folder", "corpus.templates_folder", BACKGROUND)


@dataclass(frozen=True)
class Sweep:
    """What to vary. `grid` maps axes to `tune.grid_search([...])` or to a fixed value; it may be a function of the
    scale's name where a scale needs other values.

    A grid search over dicts of axes, under any name that is no axis, varies several axes together: the rows of a
    figure are seldom a product. A whole has `parts` and no grid of its own: its cells are those of its parts, each
    once. Raises `ValueError` for a whole with a grid.
    """

    name: str
    grid: Mapping[str, Any] | Callable[[str], Mapping[str, Any]] = field(default_factory=dict)
    question: str = ""
    """One sentence for the report: what this sweep asks."""
    figure: str = ""
    """The figure of the paper that it regenerates, such as `fig3`."""
    best_of: tuple[str, ...] = ()
    """Axes over which the best test accuracy is shown, as the paper does over its finetunings; of a whole, those of
    its parts."""
    parts: tuple["Sweep", ...] = ()
    """The sweeps of which this one is the whole."""

    def __post_init__(self) -> None:
        if not self.parts:
            return
        if self.grid:
            raise ValueError(f"Sweep {self.name!r} has parts, so it has no grid of its own")
        best_of = (*self.best_of, *(axis for part in self.parts for axis in part.best_of))
        object.__setattr__(self, "best_of", tuple(dict.fromkeys(best_of)))

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures of the paper that it and its parts regenerate."""
        found = (self.figure, *(figure for part in self.parts for figure in part.figures))
        return tuple(dict.fromkeys(filter(None, found)))


def load(name: str) -> Sweep:
    """The sweep of a module in `sweeps/` or of the user's own file, which defines `sweep = Sweep(...)`.

    Raises `WrongRequest` for a name that does not exist and for a file that raises or defines no sweep.
    """
    path = Path(name) if name.endswith(".py") else BUILTIN / f"{name}.py"
    if not path.is_file() or (not name.endswith(".py") and name not in builtin()):
        known = ", ".join(builtin())
        if name == "fig4":
            raise WrongRequest(f"sweep {name}: Figure 4 is an illustration without data; there are {known}")
        raise WrongRequest(f"sweep {name}: no such sweep or file; there are {known}{nearest(name, builtin())}")
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        # Not imported, which would leave a __pycache__ beside the user's file and might read an old one there.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as e:
        raise WrongRequest(_line_of(f"sweep {name}: the file raises {type(e).__name__}{_where(e, path)}: {e}")) from e
    found = getattr(module, "sweep", None)
    if not isinstance(found, Sweep):
        raise WrongRequest(f"sweep {name}: the file defines no `sweep = Sweep(...)`")
    if not re.fullmatch(r"\w[\w .+-]*", found.name):
        raise WrongRequest(f"sweep {name}: Sweep(name={found.name!r}) is not a name of letters, digits, `_ .+-`")
    return found


def builtin() -> list[str]:
    """The names of the sweeps that come with the project."""
    names = [p.stem for p in BUILTIN.glob("*.py") if "\nsweep = Sweep(" in p.read_text(encoding="utf-8")]
    # fig2 before fig10.
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def overridden(words: Sequence[str]) -> dict[str, list[Any]]:
    """`axis=v1,v2` words as lists of values. Raises `WrongRequest` for another word."""
    overrides: dict[str, list[Any]] = {}
    for word in words:
        axis, equals, values = word.partition("=")
        if not equals or not values:
            raise WrongRequest(f"{word}: an axis is set as axis=v1,v2")
        overrides[axis] = values.split(",")
    return overrides


def expand(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """The cells of a sweep at a scale, duplicates removed, in grid order.

    `overrides` replace axes of the grid, or add to it: `{"seed": [0, 1, 2]}`. Of a whole, a part that cannot take them
    is left out with a warning. Where a sweep leaves `corpus.background` to be named, the folder given goes to those
    cells alone. Raises `WrongRequest` naming the axis.
    """
    return list(dict.fromkeys(cell for cells in divided(sweep, scale, overrides).values() for cell in cells))


def divided(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]]) -> dict[str, list[Cell]]:
    """The cells of `expand` under the name of each part that has them, or under the sweep's own."""
    if scale not in SCALES:
        raise WrongRequest(f"scale={scale}: must be one of {', '.join(SCALES)}{nearest(scale, SCALES)}")
    for axis in overrides:
        _check_axis(axis)
    if named := overrides.get(BACKGROUND):
        others = {axis: values for axis, values in overrides.items() if axis != BACKGROUND}
        found = divided(sweep, scale, others)
        if any(_unnamed(cell) for cells in found.values() for cell in cells):
            return {name: list(_filled(cells, named)) for name, cells in found.items()}
    if not sweep.parts:
        return {sweep.name: _cells(sweep, scale, overrides)}
    found = {}
    refusals = []
    for part in sweep.parts:
        try:
            cells = expand(part, scale, overrides)
        except WrongRequest as e:
            if not overrides:
                raise
            refusals.append((part.name, e))
        else:
            found.setdefault(part.name, []).extend(cells)
    if not found:
        raise refusals[0][1]
    for name, refusal in refusals:
        log.warning("%s is left out: %s", name, refusal)
    return found


def _unnamed(cell: Cell) -> bool:
    return cell.corpus.background == TO_BE_NAMED


def _filled(cells: Sequence[Cell], folders: Sequence[Any]) -> Iterator[Cell]:
    """The cells with a folder in place of those that are to be named."""
    for cell in cells:
        yield from (_cell(cell, {BACKGROUND: folder}) for folder in folders) if _unnamed(cell) else (cell,)


def _cells(sweep: Sweep, scale: str, overrides: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """The cells of a sweep without parts."""
    from ray.tune.search.sample import Domain
    from ray.tune.search.variant_generator import generate_variants

    space = {**_grid(sweep, scale), **{axis: {"grid_search": list(values)} for axis, values in overrides.items()}}
    for axis, value in space.items():
        if _holds(value, (Domain, types.FunctionType)):
            raise WrongRequest(f"{axis}={value}: an axis takes tune.grid_search([...]) or a fixed value")
    cells = []
    choices = {name: value["grid_search"] for name, value in space.items() if _flat(value)}
    # The generator copies the whole space for every variant, so long lists are expanded by number.
    numbers = {name: {"grid_search": list(range(len(values)))} for name, values in choices.items()}
    for _, variant in generate_variants({"grid": {**space, **numbers}}):
        chosen = {name: choices[name][v] if name in choices else v for name, v in variant["grid"].items()}
        changes = dict(_merged(chosen, overrides))
        cells.append(_cell(base(scale, str(changes.get("readout.kind"))), changes))
    if not cells:
        raise WrongRequest(f"sweep {sweep.name}: a grid search over nothing leaves no cell")
    return list(dict.fromkeys(cells))


def _grid(sweep: Sweep, scale: str) -> dict[str, Any]:
    try:
        return dict(sweep.grid(scale) if callable(sweep.grid) else sweep.grid)
    except Exception as e:
        raise WrongRequest(_line_of(f"sweep {sweep.name}: no grid at scale={scale}: {type(e).__name__}: {e}")) from e


def _flat(value: Any) -> bool:
    """Whether it is a grid search over values that are none themselves."""
    if not isinstance(value, dict) or set(value) != {"grid_search"} or not isinstance(value["grid_search"], list):
        return False
    rows = (row for row in value["grid_search"] if isinstance(row, dict))
    return not any(isinstance(inner, dict) for row in rows for inner in row.values())


def _holds(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value of one of `kinds` stands anywhere in it."""
    if isinstance(value, dict | list | tuple):
        return any(_holds(inner, kinds) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, kinds)


def _merged(variant: Mapping[str, Any], overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in variant.items():
        if not isinstance(value, dict):
            _check_axis(name)
            yield name, value
            continue
        for axis, inner in value.items():
            _check_axis(axis)
            if axis not in overrides:
                yield axis, inner


def _check_axis(axis: str) -> None:
    if axis not in AXES:
        raise WrongRequest(f"axis {axis}: no such axis{nearest(axis, AXES)} (axes: {', '.join(AXES)})")


def _cell(base: Cell, changes: Mapping[str, Any]) -> Cell:
    tree = base.model_dump()
    for axis, value in changes.items():
        *path, last = axis.split(".")
        node = tree
        for part in path:
            node = node[part]
        here = axis in FOLDERS or (axis == MODEL and Path(str(value)).exists())
        if here and value and value != TO_BE_NAMED and isinstance(value, str | Path):
            # Workers run elsewhere: a folder is named in full.
            value = str(Path(value).absolute())
        node[last] = value
    try:
        return Cell.model_validate(tree)
    except ValidationError as e:
        raise WrongRequest(_line(e)) from e


def _line(error: ValidationError) -> str:
    """The first finding of pydantic, as one line with field, value and what is allowed."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    if first["type"] == "value_error" and (not place or isinstance(first["input"], dict | BaseModel)):
        return f"{place}.{message}" if place else message
    allowed = str(first.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
    return f"{place}={first['input']}: {message}{nearest(str(first['input']), allowed)}"


def _line_of(text: str) -> str:
    """A text of several lines as one."""
    return " ".join(text.split())


def _where(error: BaseException, path: Path) -> str:
    trace, line = error.__traceback__, None
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" in line {line}" if line else ""
