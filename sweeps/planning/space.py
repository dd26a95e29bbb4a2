"""The space of a grid: checks it whole, counts its variants before any is made, and yields them."""

import itertools
import math
import numbers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ktrain.errors import WrongRequest, shorten
from sweeps.planning.axes import check_axis
from sweeps.recipes.distributions import describe, is_distribution
from sweeps.recipes.search import SEARCH

_DEEPEST = 8
"""Levels of rows, searches and lists within each other."""


def checked(space: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the space with the values of each grid search as a list.

    Raises `WrongRequest` for a name that is no text, and for anything but numbers, texts, rows and grid searches over
    lists. A distribution inside a row or a list is refused too: only an axis of the grid itself is drawn.
    """
    for name in space:
        if not isinstance(name, str):
            raise WrongRequest(f"{shorten(name)}: must be the name of an axis")
        if name == SEARCH:
            raise WrongRequest("grid: must be a dict of axes, and each of them may have a tune.grid_search([...])")
    return {name: _plain(name, value, 0) for name, value in space.items()}


def _plain(axis: str, value: Any, level: int) -> Any:
    """The value of an axis, in which tuples, ranges and arrays that are searched are lists."""
    if level > _DEEPEST:
        raise WrongRequest(f"{axis}: has more than {_DEEPEST} levels of values within values")
    if isinstance(value, dict) and set(value) == {SEARCH}:
        return {SEARCH: [_plain(axis, item, level + 1) for item in _searched(axis, value[SEARCH])]}
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise WrongRequest(f"{axis}: {shorten(name)} must be the name of an axis")
        return {name: _plain(name, inner, level + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(axis, item, level + 1) for item in value]
    if value is None or isinstance(value, str | Path | numbers.Number):
        return value
    if is_distribution(value):
        raise WrongRequest(f"{axis}={describe(value)}: a distribution stands in the grid itself, not within a value")
    raise WrongRequest(f"{axis}={shorten(value)}: an axis takes tune.grid_search([...]) or a fixed value")


def _searched(axis: str, values: Any) -> list[Any]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple | range):
        raise WrongRequest(f"{axis}: tune.grid_search takes a list, not {shorten(values)}")
    return list(values)


def count(space: Mapping[str, Any]) -> int:
    """Returns how many variants a checked space has."""
    return math.prod(map(_count, space.values()))


def _count(value: Any) -> int:
    if isinstance(value, dict) and set(value) == {SEARCH}:
        return sum(map(_count, value[SEARCH]))
    if isinstance(value, dict | list):
        return math.prod(map(_count, value.values() if isinstance(value, dict) else value))
    return 1


def variants(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields each combination of a checked space's grid searches, in the order of Ray Tune: the axis whose name comes
    first in the alphabet varies fastest.
    """
    searches = {name: value[SEARCH] for name, value in space.items() if _is_plain_search(value)}
    names = sorted(searches, reverse=True)
    if not any(_has_search(value) for name, value in space.items() if name not in searches):
        for values in itertools.product(*(searches[name] for name in names)):
            yield {**space, **dict(zip(names, values, strict=True))}
        return
    from ray.tune.search.variant_generator import generate_variants

    # Tune resolves grid searches inside rows. It copies the whole space for every variant, so plain searches are
    # replaced by the positions of their values.
    positions = {name: {SEARCH: list(range(len(values)))} for name, values in searches.items()}
    for _, variant in generate_variants({"grid": {**space, **positions}}):
        yield {name: searches[name][v] if name in searches else v for name, v in variant["grid"].items()}


def points(space: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Returns the variants of a checked space that differ in their seed alone, for each point of the grid."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for variant in variants(space):
        by_name.setdefault(point_name(variant), []).append(variant)
    return list(by_name.values())


def point_name(variant: Mapping[str, Any]) -> str:
    """Returns what tells a variant from those that differ in more than the seed."""
    return repr(sorted((axis, repr(value)) for axis, value in variant.items() if axis != "seed"))


def merged(variant: Mapping[str, Any], overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the axes of a variant with their values, rows spread out; overrides win over the axes of a row.

    Raises `WrongRequest` for a name that is no axis.
    """
    for name, value in variant.items():
        if not isinstance(value, dict):
            check_axis(name)
            yield name, value
            continue
        for axis, inner in value.items():
            check_axis(axis)
            if axis not in overrides:
                yield axis, inner


def _has_search(value: Any) -> bool:
    """Whether a grid search stands anywhere in a value."""
    if isinstance(value, dict):
        return SEARCH in value or any(map(_has_search, value.values()))
    return isinstance(value, list) and any(map(_has_search, value))


def _is_plain_search(value: Any) -> bool:
    """Whether a value is a grid search over values, or over rows of values, that are no searches themselves."""
    if not isinstance(value, dict) or set(value) != {SEARCH}:
        return False
    if any(isinstance(item, list) and _has_search(item) for item in value[SEARCH]):
        return False
    rows = (row for row in value[SEARCH] if isinstance(row, dict))
    return not any(isinstance(inner, dict) for row in rows for inner in row.values())
