"""Figure 18: P-probes of people who are no celebrities."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_probe
from sweeps.rows import MINORITY

sweep = Sweep(
    name="fig18",
    question="Do celebrities move the knowledge about the others to earlier places of their biographies?",
    figure="fig18",
    grid=grid(MINORITY, p_probe, people=PEOPLE_PROBED),
)
