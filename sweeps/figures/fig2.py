"""Figure 2: QA finetuning after pretraining on one wording, with LoRA of any rank or of the whole network.

The paper shows, for each rank of the query/value update and of the embedding update, first-token accuracy on training
people and exact match on held-out people. Rows (`ONE_WORDING`): bioS single and bioR single, also with 682M networks.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import any_adapter, grid, whole
from sweeps.recipes.rows import ONE_WORDING

sweep = Sweep(
    name="fig2",
    question="Does it matter how much of the network a finetuning may change?",
    figure="fig2",
    parts=(
        Sweep("usual sizes", grid(ONE_WORDING, any_adapter, whole)),
        Sweep("682M", grid(ONE_WORDING, any_adapter, whole, size="682m")),
    ),
    best_of=("readout.weight_decay", "readout.learning_rate"),
)
