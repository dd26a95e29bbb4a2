"""Figure 1: mixed training on one wording of each biography.

The paper shows exact match on held-out people (a) and five learning curves (b). Rows: bioS single, bioR single.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import grid, mixed

sweep = Sweep(
    name="fig1",
    question="Do questions mixed into the biographies make one wording extractable?",
    figure="fig1",
    grid=grid(("bioS single", "bioR single"), mixed),
)
