"""Grids: axes, cells, the plan, running it with Ray Tune; one module per figure of the paper."""

from sweeps.planning.grid import Sweep

__all__ = ["Sweep"]
