"""Figure 13: P-probes of bioS, for first tokens and whole attributes, with the larger rank as control."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_control, p_probe
from sweeps.rows import BIOS

sweep = Sweep(
    name="fig13",
    question="How early in a biography is an attribute readable, and does a larger probe read more?",
    figure="fig13",
    grid=grid(BIOS, p_probe, p_control, people=PEOPLE_PROBED),
)
