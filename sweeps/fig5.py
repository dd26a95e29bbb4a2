"""Figure 5: where in a biography its writer's states hold what comes later, by P-probes for first tokens."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_probe
from sweeps.rows import BIOS

sweep = Sweep(
    name="fig5",
    question="How early in a biography is an attribute readable?",
    figure="fig5",
    grid=grid(BIOS, p_probe, people=PEOPLE_PROBED),
)
