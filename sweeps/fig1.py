"""Figure 1: mixed training on one wording, and its five learning curves."""

from sweeps import Sweep
from sweeps.recipes import grid, mixed

sweep = Sweep(
    name="fig1",
    question="Do questions mixed into the biographies make one wording extractable?",
    figure="fig1",
    grid=grid(("bioS single", "bioR single"), mixed),
)
