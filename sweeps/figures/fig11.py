"""Figure 11: the rank grids of Figure 2 for twelve more ways of writing, in which finetuning does extract.

The paper shows first-token accuracy on training people and exact match on held-out people for each pair of ranks.
Rows (`EXTRACTABLE`): eight of bioS and four of bioR, with +fullname, +permute or several wordings.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import any_adapter, grid, whole
from sweeps.recipes.rows import EXTRACTABLE

sweep = Sweep(
    name="fig11",
    question="Does it matter how much of the network a finetuning may change, where finetuning does extract?",
    figure="fig11",
    grid=grid(EXTRACTABLE, any_adapter, whole),
    best_of=("readout.weight_decay", "readout.learning_rate"),
)
