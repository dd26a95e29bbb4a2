"""Figure 6: whether an attribute is readable once its partner has been read, by P-probes on ordered pairs."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_probe

sweep = Sweep(
    name="fig6",
    question="Does an attribute become readable only after the one that always stands before it?",
    figure="fig6",
    grid=grid(("bioS couple2",), p_probe, people=PEOPLE_PROBED),
)
