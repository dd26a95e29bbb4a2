"""Figure 14: P-probes of bioR, for first tokens and whole attributes, with the larger rank as control."""

from sweeps import Sweep
from sweeps.recipes import PEOPLE_PROBED, grid, p_control, p_probe
from sweeps.rows import BIOR

sweep = Sweep(
    name="fig14",
    question="How early in a biography by a language model is an attribute readable?",
    figure="fig14",
    grid=grid(BIOR, p_probe, p_control, people=PEOPLE_PROBED),
)
