"""Figure 3: sixteen ways to write the biographies, each read out by QA finetuning and by mixed training."""

from sweeps import Sweep
from sweeps.recipes import finetuned, grid, mixed
from sweeps.rows import BIOS

sweep = Sweep(
    name="fig3",
    question="Which ways of writing make knowledge extractable?",
    figure="fig3",
    grid=grid(BIOS, finetuned, mixed),
    best_of=("readout.rank_qv",),
)
