"""The P-probes and Q-probes of Figures 5, 7, 13 and 16: where a network holds what it has read."""

from collections.abc import Mapping
from typing import Any

from sweeps import Sweep
from sweeps.recipes.readouts import PEOPLE_PROBED, grid, p_control, p_probe, q_control, q_probe
from sweeps.recipes.rows import BIOS
from sweeps.recipes.scales import MINIATURES


def cells(scale: str) -> Mapping[str, Any]:
    """Returns the sixteen rows of Figure 3 under every probe; for a miniature the demo's two, without the controls."""
    if scale in MINIATURES:
        return grid(("bioS single", "bioS multi5+permute"), p_probe, q_probe, people=PEOPLE_PROBED)(scale)
    return grid(BIOS, p_probe, p_control, q_probe, q_control)(scale)


sweep = Sweep(
    name="probes",
    question="Where in a network does what it has read become readable?",
    figure="fig5",
    grid=cells,
)
