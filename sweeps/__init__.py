"""Grids: axes, cells, the plan, running it with Ray Tune; one module per figure of the paper."""

from sweeps.planning.sweep import Sweep
from sweeps.recipes.search import grid_search

__all__ = ["Sweep", "grid_search"]
