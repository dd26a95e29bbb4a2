"""Figure 16: the Q-probes of Figure 7 on bioS (a, b) and bioR (c, d), beside QA finetuning.

The paper shows accuracy for the first token and for the whole attribute, with embedding rank 16 (bioS) and 32 (bioR),
and, as control, 64 and 128. Rows: `BIOS`, the sixteen of Figure 3, and `BIOR`, the six of Figure 12a.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, finetuned, grid, q_control, q_probe
from sweeps.recipes.rows import BIOR, BIOS

sweep = Sweep(
    name="fig16",
    question="Does what a name alone tells predict what can be extracted, and does a larger probe read more?",
    figure="fig16",
    grid=grid((*BIOS, *BIOR), finetuned, q_probe, q_control, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
