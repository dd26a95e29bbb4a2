"""Figure 7: what is readable from a name alone, by Q-probes, beside what finetuning extracts."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, finetuned, grid, q_probe
from sweeps.rows import BIOS

sweep = Sweep(
    name="fig7",
    question="Does what a name alone tells predict what can be extracted?",
    figure="fig7",
    grid=grid(BIOS, finetuned, q_probe, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
