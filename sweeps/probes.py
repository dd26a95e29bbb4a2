"""Figures 5, 7, 13 and 16: where the states of a network hold what it has read, by P-probes and Q-probes."""

from typing import Any

from ray import tune

from sweeps import Sweep
from sweeps.fig3 import SETTINGS

PROBES = [
    {"readout.kind": "p_probe", "readout.rank_embedding": 2},
    {"readout.kind": "p_probe", "readout.rank_embedding": 4},
    {"readout.kind": "q_probe", "readout.rank_embedding": 16},
    {"readout.kind": "q_probe", "readout.rank_embedding": 64},
]
"""The paper's ranks, and the larger ones of its controls."""
SETTINGS_MINI = [SETTINGS[0], {"corpus.multi": 5, "corpus.permute": 1, "corpus.fullname": False}]
PEOPLE_MINI = {"corpus.people": 1000, "train.steps": 10_800}
"""More people than `mini` has, or classes would have too few: docs/miniature.md says how these were found."""


def grid(scale: str) -> dict[str, Any]:
    """The sixteen rows of Figure 3 times the probes; at `mini` the two of the demo, without the controls."""
    if scale == "mini":
        probes = [probe for probe in PROBES if probe["readout.rank_embedding"] in (2, 16)]
        return {"setting": tune.grid_search(SETTINGS_MINI), "probe": tune.grid_search(probes), **PEOPLE_MINI}
    return {"setting": tune.grid_search(SETTINGS), "probe": tune.grid_search(PROBES)}


sweep = Sweep(
    name="probes",
    question="Where in a network does what it has read become readable?",
    figure="fig5",
    grid=grid,
)
