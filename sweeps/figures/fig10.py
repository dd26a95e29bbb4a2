"""Figure 10: mixed training with question shares (`train.qa_ratio`) of 0.1 to 0.9.

The paper shows exact match on held-out people for each share. Rows (`RATIOS`): five of bioS and five of bioR.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import grid, mixed_any_ratio
from sweeps.recipes.rows import RATIOS

sweep = Sweep(
    name="fig10",
    question="How many questions have to be mixed in?",
    figure="fig10",
    grid=grid(RATIOS, mixed_any_ratio),
)
