"""Grids: axes, cells, the plan, running it with Ray Tune; one module per figure of the paper."""

from sweeps.planning.grid import Sweep
from sweeps.recipes.search import grid_search

__all__ = ["Sweep", "grid_search"]
