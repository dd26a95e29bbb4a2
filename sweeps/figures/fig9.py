"""Figure 9: GBERT, which is bidirectional, on bioS.

The paper shows exact match of mixed training and of QA finetuning on held-out people, and Q-probe accuracy.
Rows: the sixteen of Figure 3 in an order of their own.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, gbert_finetuned, gbert_mixed, grid, q_probe

ROWS = (
    "bioS single",
    "bioS single+fullname",
    "bioS single+permute1+fullname",
    "bioS single+permute2+fullname",
    "bioS single+permute5+fullname",
    "bioS single+permute1",
    "bioS single+permute2",
    "bioS single+permute5",
    "bioS multi2",
    "bioS multi2+fullname",
    "bioS multi2+permute+fullname",
    "bioS multi2+permute",
    "bioS multi5",
    "bioS multi5+fullname",
    "bioS multi5+permute+fullname",
    "bioS multi5+permute",
)
"""The sixteen rows of Figure 3 in the order of Figure 9."""

sweep = Sweep(
    name="fig9",
    question="Does a bidirectional model store knowledge extractably?",
    figure="fig9",
    grid=grid(ROWS, gbert_mixed, gbert_finetuned, q_probe, family="gbert", people=PEOPLE_PROBED),
    best_of=("readout.rank_qv", "readout.rank_embedding", "train.qa_ratio"),
)
