"""Figure 6: P-probes where attributes come in ordered pairs, such as birth date always before birth city.

The paper shows first-token accuracy by which attributes stand before the position: none, others, or the partner.
Row: bioS couple2.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_probe

sweep = Sweep(
    name="fig6",
    question="Does an attribute become readable only after the one that always stands before it?",
    figure="fig6",
    grid=grid(("bioS couple2",), p_probe, people=PEOPLE_PROBED),
)
