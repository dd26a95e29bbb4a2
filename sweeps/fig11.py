"""Figure 11: the grids of Figure 2 for twelve other ways of writing."""

from sweeps import Sweep
from sweeps.recipes import any_adapter, grid, whole

ROWS = (
    "bioS single+fullname",
    "bioR single+fullname",
    "bioS single+permute5",
    "bioS single+permute5+fullname",
    "bioS multi2+fullname",
    "bioR multi3+fullname",
    "bioS multi2+permute",
    "bioS multi2+permute+fullname",
    "bioS multi5",
    "bioR multi5",
    "bioS multi5+permute",
    "bioS multi5+permute+fullname",
)

sweep = Sweep(
    name="fig11",
    question="Does it matter how much of the network a finetuning may change, where finetuning does extract?",
    figure="fig11",
    grid=grid(ROWS, any_adapter, whole),
    best_of=("readout.weight_decay", "readout.learning_rate"),
)
