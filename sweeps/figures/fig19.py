"""Figure 19: Q-probes of the minority, with and without celebrities in the corpus, beside QA finetuning.

The paper shows exact match of QA finetuning on held-out people of the minority, and Q-probe accuracy.
Rows (`MINORITY`): bioS single; bioS single+permute1, also +CEL; bioR single and single+fullname, also +wiki and +CEL.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, finetuned, grid, q_probe
from sweeps.recipes.rows import MINORITY

sweep = Sweep(
    name="fig19",
    question="Do celebrities bind the knowledge about the others to their names?",
    figure="fig19",
    grid=grid(MINORITY, finetuned, q_probe, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
