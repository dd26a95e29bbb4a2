"""Figure 19: Q-probes of people who are no celebrities, beside what finetuning extracts."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, finetuned, grid, q_probe
from sweeps.rows import MINORITY

sweep = Sweep(
    name="fig19",
    question="Do celebrities bind the knowledge about the others to their names?",
    figure="fig19",
    grid=grid(MINORITY, finetuned, q_probe, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
