"""Figure 15: the P-probes of Figure 6 with one, two and five biographies of each person.

The paper shows first-token accuracy by which attributes stand before the position: none, others, or the partner.
Rows: bioS couple1, couple2 and couple5.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_probe

sweep = Sweep(
    name="fig15",
    question="Do more entries make an attribute readable before the one that always stands before it?",
    figure="fig15",
    grid=grid(("bioS couple1", "bioS couple2", "bioS couple5"), p_probe, people=PEOPLE_PROBED),
)
