"""Figure 8: celebrities, of whom much is written, help with people of whom little is."""

from sweeps import Sweep
from sweeps.recipes import finetuned, grid

ROWS = (
    "bioS single+permute1",
    "bioS single+permute1+CEL",
    "bioR single",
    "bioR single+wiki",
    "bioR single+CEL",
)

sweep = Sweep(
    name="fig8",
    question="Do a few well-documented people make the knowledge about the others extractable?",
    figure="fig8",
    grid=grid(ROWS, finetuned),
    best_of=("readout.rank_qv",),
)
