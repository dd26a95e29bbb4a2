"""Figure 18: P-probes of the minority, with and without celebrities in the corpus.

The paper shows accuracy for first tokens (a) and whole attributes (b) by attribute and special position.
Rows (`MINORITY`): bioS single; bioS single+permute1, also +CEL; bioR single and single+fullname, also +wiki and +CEL.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_probe
from sweeps.recipes.rows import MINORITY

sweep = Sweep(
    name="fig18",
    question="Do celebrities move the knowledge about the others to earlier places of their biographies?",
    figure="fig18",
    grid=grid(MINORITY, p_probe, people=PEOPLE_PROBED),
)
