"""Figure 17: Figure 8 with more rows.

The paper shows exact match on held-out people of the minority after QA finetuning on celebrities alone.
Rows: three of bioS, each also +CEL; bioR single and bioR single+fullname, each also +wiki and +CEL.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import finetuned, grid

ROWS = (
    "bioS single+permute1",
    "bioS single+permute1+CEL",
    "bioS single",
    "bioS single+CEL",
    "bioS single+permute1+fullname",
    "bioS single+permute1+fullname+CEL",
    "bioR single",
    "bioR single+wiki",
    "bioR single+CEL",
    "bioR single+fullname",
    "bioR single+fullname+wiki",
    "bioR single+fullname+CEL",
)

sweep = Sweep(
    name="fig17",
    question="Do celebrities help whatever is written about the others, and does other text help as well?",
    figure="fig17",
    grid=grid(ROWS, finetuned),
    best_of=("readout.rank_qv",),
)
