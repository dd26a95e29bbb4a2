"""Figure 14: P-probes of GPT-2 on bioR for first tokens (a, b) and whole attributes (c, d).

The paper shows accuracy by attribute and special position, with embedding rank 2 and, as control, rank 4.
Rows (`BIOR`): bioR single, multi3 and multi5, each with and without +fullname.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_control, p_probe
from sweeps.recipes.rows import BIOR

sweep = Sweep(
    name="fig14",
    question="How early in a biography by a language model is an attribute readable?",
    figure="fig14",
    grid=grid(BIOR, p_probe, p_control, people=PEOPLE_PROBED),
)
