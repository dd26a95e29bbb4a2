"""Figure 16: Figure 7 for bioS and bioR, with the larger rank of the probes as control."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, finetuned, grid, q_control, q_probe
from sweeps.rows import BIOR, BIOS

sweep = Sweep(
    name="fig16",
    question="Does what a name alone tells predict what can be extracted, and does a larger probe read more?",
    figure="fig16",
    grid=grid((*BIOS, *BIOR), finetuned, q_probe, q_control, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
