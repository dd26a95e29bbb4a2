"""Figure 8: celebrities, whose biographies have many wordings, and the minority, who have one.

The paper shows exact match on held-out people of the minority after QA finetuning on celebrities alone.
Rows: bioS single+permute1, also +CEL; bioR single, also +wiki and +CEL.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import finetuned, grid

ROWS = (
    "bioS single+permute1",
    "bioS single+permute1+CEL",
    "bioR single",
    "bioR single+wiki",
    "bioR single+CEL",
)

sweep = Sweep(
    name="fig8",
    question="Do a few well-documented people make the knowledge about the others extractable?",
    figure="fig8",
    grid=grid(ROWS, finetuned),
    best_of=("readout.rank_qv",),
)
