"""All figures of the paper; stages that several figures share are counted and trained once."""

from sweeps import Sweep
from sweeps.planning.grid import load

FIGURES = tuple(f"fig{number}" for number in range(1, 20) if number != 4)
"""Figure 4 is an illustration without data."""

sweep = Sweep(
    name="paper",
    question="What does the whole paper say, and does it say so here?",
    parts=tuple(load(name) for name in FIGURES),
)
