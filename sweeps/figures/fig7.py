"""Figure 7: Q-probes, which read an attribute from the name alone, beside QA finetuning, GPT-2 on bioS.

The paper shows exact match of QA finetuning on held-out people, and Q-probe accuracy for the first token and for the
whole attribute. Rows (`BIOS`): the sixteen of Figure 3.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, finetuned, grid, q_probe
from sweeps.recipes.rows import BIOS

sweep = Sweep(
    name="fig7",
    question="Does what a name alone tells predict what can be extracted?",
    figure="fig7",
    grid=grid(BIOS, finetuned, q_probe, people=PEOPLE_PROBED),
    best_of=("readout.rank_qv",),
)
