"""Figure 15: Figure 6 for one, two and five entries of each person."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_probe

sweep = Sweep(
    name="fig15",
    question="Do more entries make an attribute readable before the one that always stands before it?",
    figure="fig15",
    grid=grid(("bioS couple1", "bioS couple2", "bioS couple5"), p_probe, people=PEOPLE_PROBED),
)
