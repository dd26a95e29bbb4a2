"""Figure 13: P-probes of GPT-2 on bioS for first tokens (a, b) and whole attributes (c, d).

The paper shows accuracy by attribute and special position, with embedding rank 2 and, as control, rank 4.
Rows (`BIOS`): the sixteen of Figure 3.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_control, p_probe
from sweeps.recipes.rows import BIOS

sweep = Sweep(
    name="fig13",
    question="How early in a biography is an attribute readable, and does a larger probe read more?",
    figure="fig13",
    grid=grid(BIOS, p_probe, p_control, people=PEOPLE_PROBED),
)
