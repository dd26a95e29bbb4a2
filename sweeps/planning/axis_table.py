"""What each axis is: its type and limits, its value at a scale, and its meaning, read from the configs themselves."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from ktrain.config import CellConfig, FrozenConfig
from ktrain.errors import WrongRequest, nearest
from sweeps.planning.axes import AXES

BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


@dataclass(frozen=True)
class AxisDescription:
    """One axis as `ktrain axes` lists it."""

    name: str
    allowed: str
    """The type with its limits, or the choices."""
    value: Any
    """The value at the scale that was asked for."""
    meaning: str


def describe_axes(prefix: str, cell: CellConfig) -> tuple[AxisDescription, ...]:
    """Returns the axes whose name begins with `prefix`, or has it as a part, with their values in `cell`.

    Raises `WrongRequest` if no axis does.
    """
    everything = tuple(_described("", cell))
    chosen = tuple(axis for axis in everything if axis.name.startswith(prefix) or prefix in axis.name.split("."))
    if not chosen:
        names = sorted({part for axis in AXES for part in (axis, axis.split(".")[0], axis.split(".")[-1])})
        raise WrongRequest(f"axes {prefix}: no axis begins so{nearest(prefix, names)}")
    return chosen


def _described(path: str, config: FrozenConfig) -> Iterator[AxisDescription]:
    meanings = _docstrings(type(config))
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, FrozenConfig):
            yield from _described(f"{path}{name}.", value)
        else:
            yield AxisDescription(f"{path}{name}", _allowed(field), value, meanings.get(name, ""))


def _docstrings(config: type[FrozenConfig]) -> dict[str, str]:
    """The texts below the fields of a config class; Python keeps none of them at run time."""
    (body,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if is_field and is_text:
            texts[statement.target.id] = " ".join(str(following.value.value).split())  # type: ignore[attr-defined]
    return texts


def _allowed(field: FieldInfo) -> str:
    """`cut, whole` of choices, `integer at least 1` of numbers, `text` of anything else."""
    options = _options(field.annotation)
    limits = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for kind, (name, word) in BOUNDS.items()
        if isinstance(limit, kind)
    ]
    return " ".join((" or ".join(options), " and ".join(limits))).strip()


def _options(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [", ".join(map(str, get_args(annotation)))]
    if members := get_args(annotation):
        return [option for member in members if member is not type(None) for option in _options(member)]
    return [{int: "integer", float: "number", bool: "true, false", str: "text"}.get(annotation, "text")]
