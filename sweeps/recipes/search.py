"""Ray Tune's grid search as data. Importing Ray Tune takes a second, for which a plan does not wait."""

from collections.abc import Sequence
from typing import Any

SEARCH = "grid_search"
"""The only key of the dict that `ray.tune.grid_search` returns."""


def grid_search(values: Sequence[Any]) -> dict[str, Any]:
    """Returns what `ray.tune.grid_search` returns."""
    return {SEARCH: values}
