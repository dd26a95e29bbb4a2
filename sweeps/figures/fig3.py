"""Figure 3: exact match on held-out people for sixteen ways of writing biographies, GPT-2 on bioS.

The paper shows each attribute and the mean, for QA finetuning after pretraining and for mixed training.
Rows (`BIOS`): bioS single, bioS multi2 and bioS multi5, each with and without +fullname and +permute; single has
+permute1, +permute2 and +permute5.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import finetuned, grid, mixed
from sweeps.recipes.rows import BIOS

sweep = Sweep(
    name="fig3",
    question="Which ways of writing make knowledge extractable?",
    figure="fig3",
    grid=grid(BIOS, finetuned, mixed),
    best_of=("readout.rank_qv",),
)
