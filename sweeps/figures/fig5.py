"""Figure 5: P-probes for the first token of each attribute, read at six positions of a biography, GPT-2 on bioS.

The paper shows accuracy by attribute and special position; a cell is blank once the attribute has been written.
Rows (`BIOS`): the sixteen of Figure 3.
"""

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_probe
from sweeps.recipes.rows import BIOS

sweep = Sweep(
    name="fig5",
    question="How early in a biography is an attribute readable?",
    figure="fig5",
    grid=grid(BIOS, p_probe, people=PEOPLE_PROBED),
)
