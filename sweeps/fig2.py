"""Figure 2: no finetuning extracts what was read in one wording, whatever it may change in the network."""

from sweeps import Sweep
from sweeps.recipes import any_adapter, grid, whole

ROWS = ("bioS single", "bioR single")

sweep = Sweep(
    name="fig2",
    question="Does it matter how much of the network a finetuning may change?",
    figure="fig2",
    parts=(
        Sweep("usual sizes", grid(ROWS, any_adapter, whole)),
        Sweep("682M", grid(ROWS, any_adapter, whole, size="682m")),
    ),
    best_of=("readout.weight_decay", "readout.learning_rate"),
)
